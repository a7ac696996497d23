"""A data set seen by frozen encoders: each sample once, whole, without augmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from counterpoint.batch import Batch, Features, View
from counterpoint.data.guard import Skipped
from counterpoint.data.loader import Loader
from counterpoint.errors import ComponentError
from counterpoint.evaluate.evaluator import Embeddings
from counterpoint.objectives.mechanisms.similarity import Similarity
from counterpoint.towers.tower import Tower
from counterpoint.views.pipeline import Pipeline


class Raw(nn.Module):
    """The input itself as representation, flattened: the trivial baseline."""

    width = 0

    def forward(self, data: Tensor) -> Tensor:
        return data.flatten(1).float()


class Bare(nn.Module):
    """An encoder without head, in the place of a tower: its z is its h, unless `contrasted` is False.

    One with the attribute `reads_text` is called with the texts of the rows, not with their tokens. One with a method
    `observe` is shown the training split first, in the same form.
    """

    def __init__(self, encoder: nn.Module, contrasted: bool = True):
        super().__init__()
        self.tower, self.contrasted = Tower("", encoder, nn.Identity()), contrasted

    @property
    def encoder(self) -> nn.Module:
        return self.tower.encoder

    def features(self, view: View, texts: list[str] | None = None) -> Features:
        if not self._reads_text():
            return self.tower.features(view)
        return Features(self.encoder(self._texts(view, texts)))

    def observe(self, view: View, texts: list[str] | None) -> None:
        if self._reads_text():
            self.encoder.observe(self._texts(view, texts))
        else:
            self.encoder.observe(view.data, view.mask)

    def _reads_text(self) -> bool:
        return getattr(self.encoder, "reads_text", False)

    def _texts(self, view: View, texts: list[str] | None) -> list[str]:
        if texts is None:
            raise ComponentError(f"{type(self.encoder).__name__} reads text; the modality {view.modality!r} has none")
        return texts


def loader(dataset, batch: int, workers: int) -> Loader:
    """Batches of every sample in order, each read with the same generators whenever it is read."""
    indices = [[(0, i) for i in range(a, min(a + batch, len(dataset)))] for a in range(0, len(dataset), batch)]
    return Loader(dataset, 0, batch_sampler=indices, workers=workers)


@torch.no_grad()
def embed(
    models: Mapping[str, Mapping[str, nn.Module]],
    pipelines: Mapping[str, Pipeline],
    dataset,
    *,
    device: torch.device | str = "cpu",
    batch: int = 64,
    workers: int = 0,
    skip: float = 0.0,
    keep: frozenset[str] = frozenset(),
) -> dict[str, Embeddings]:
    """Embeddings of `dataset` by several sets of models at once, so that it is read once.

    models: name -> modality -> Tower, or Bare for h alone. Preparations among the views run; augmentations do not.
    keep: {"tokens"}: what the towers give beside z and h is kept, too.
    skip: fraction of the samples that may be unreadable; beyond it, DataError names them.
    """
    whole = {id(model): model for towers in models.values() for model in towers.values()}.values()
    training = {module: module.training for model in whole for module in model.modules()}
    for model in whole:
        model.eval().to(device)
    try:
        found = _embed(models, pipelines, _readable(loader(dataset, batch, workers), dataset, skip), device, keep)
    finally:
        for module, mode in training.items():  # each its own: an encoder may keep some of its layers still
            module.training = mode
    return {name: _columns(embeddings, dataset) for name, embeddings in found.items()}


@torch.no_grad()
def observe(
    models: Mapping[str, Mapping[str, nn.Module]],
    pipelines: Mapping[str, Pipeline],
    dataset,
    workers: int = 0,
    skip: float = 0.0,
) -> None:
    """Show the training split to the baselines that want to see it; nothing is read when none does."""
    wanting = [
        (m, model)
        for towers in models.values()
        for m, model in towers.items()
        if isinstance(model, Bare) and hasattr(model.encoder, "observe")
    ]
    for samples in _readable(loader(dataset, 64, workers), dataset, skip) if wanting else ():
        for modality, model in wanting:
            if modality in samples.inputs:
                raw = samples.inputs[modality]
                model.observe(pipelines[modality].prepare(raw), _texts(samples, raw))


def _texts(samples: Batch, raw: View) -> list[str] | None:
    """The text of every row, where the data gives it."""
    fields = samples.fields.get(raw.modality)
    if not isinstance(fields, list):
        return None
    part = raw.meta["part"].tolist() if "part" in raw.meta else [0] * len(raw)
    found = [fields[row] if isinstance(fields[row], str) else fields[row][i] for row, i in zip(raw.row.tolist(), part)]
    return found if all(isinstance(text, str) for text in found) else None


def _readable(batches, dataset, skip: float):
    skipped = Skipped(size=len(dataset), limit=skip)
    for samples in batches:
        skipped(samples)
        yield samples


def attach(similarity: Similarity, seen: Mapping[str, Embeddings], names: Sequence[str]) -> None:
    """Have the embeddings of these names compared by `similarity`; what it wants of samples holds for all of `seen`."""
    for name in names:
        seen[name].similarity = similarity
    if similarity.tuples:
        whole = complete(seen[names[0]])
        for embeddings in seen.values():
            embeddings.complete = whole


def complete(embeddings: Embeddings) -> Tensor:
    """int64 (m,): the samples that have a row in every modality."""
    first, *rest = (index.unique() for index in embeddings.index.values())
    for index in rest:
        first = first[torch.isin(first, index)]
    return first


def _embed(models, pipelines, batches, device, keep) -> dict[str, Embeddings]:
    parts: dict[tuple[str, str, str], list[Tensor]] = {}
    for samples in batches:
        samples = samples.to(device)
        for modality, raw in samples.inputs.items():
            if modality not in pipelines:
                continue
            index = samples.index[raw.row]
            view = pipelines[modality].prepare(raw)
            texts = _texts(samples, raw)
            for name, towers in models.items():
                if modality in towers:
                    _add(parts, name, modality, towers[modality], view, index, texts, keep)
    result = {name: Embeddings({}, {}) for name in models}
    for (name, modality, what), pieces in parts.items():
        getattr(result[name], what)[modality] = _joined(pieces) if what in ("tokens", "masks") else torch.cat(pieces)
    return result


def _joined(pieces: list[Tensor]) -> Tensor:
    """Tokens (n, L, C) or masks (n, L) of several batches, padded to the longest with zeros."""
    longest = max(piece.shape[1] for piece in pieces)
    whole = pieces[0].new_zeros(sum(map(len, pieces)), longest, *pieces[0].shape[2:])
    start = 0
    for piece in pieces:
        whole[start : start + len(piece), : piece.shape[1]] = piece
        start += len(piece)
    return whole


def _add(
    parts: dict, name: str, modality: str, model: nn.Module, view: View, index: Tensor, texts, also: frozenset[str]
) -> None:
    view = _in_precision_of(model, view)
    keep = lambda what, value: parts.setdefault((name, modality, what), []).append(value.cpu())  # noqa: E731
    if isinstance(model, Tower):
        encoded = model(view, 0)
        keep("z", encoded.z.float())
        keep("h", encoded.h.float())
        if "tokens" in also and encoded.tokens is not None:
            keep("tokens", encoded.tokens.float())
            keep(
                "masks",
                encoded.tokens.new_ones(encoded.tokens.shape[:2], dtype=torch.bool)
                if encoded.mask is None
                else encoded.mask,
            )
    else:
        h = model.features(view, texts).h.float()
        keep("h", h)
        if model.contrasted:
            keep("z", h)
    keep("index", index)


def _in_precision_of(model: nn.Module, view: View) -> View:
    """The view in the precision of the weights; in training, Lightning converts the batch for `64-true` and the like."""
    weight = next((p for p in model.parameters() if p.is_floating_point()), None)
    if weight is None or not view.data.is_floating_point():
        return view
    return view.replace(data=view.data.to(weight.dtype))


def _columns(embeddings: Embeddings, dataset) -> Embeddings:
    """Add the group and label of every sample; a data set without such columns is read for them."""
    groups, labels = getattr(dataset, "groups", {}), getattr(dataset, "labels", {})
    embeddings.groups = {name: torch.as_tensor(column) for name, column in groups.items()}
    embeddings.labels = {name: torch.as_tensor(column) for name, column in labels.items()}
    return embeddings
