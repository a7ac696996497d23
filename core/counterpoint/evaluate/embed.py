"""A data set seen by frozen encoders: each sample once, whole, without augmentation."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from counterpoint.batch import Features, View
from counterpoint.data.collate import collate
from counterpoint.data.guard import Skipped
from counterpoint.data.plan import Seeded
from counterpoint.evaluate.evaluator import Embeddings
from counterpoint.tower import Tower
from counterpoint.views.pipeline import Pipeline


class Raw(nn.Module):
    """The input itself as representation, flattened: the trivial baseline."""

    width = 0

    def forward(self, data: Tensor) -> Tensor:
        return data.flatten(1).float()


class Bare(nn.Module):
    """An encoder without head, in the place of a tower."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.tower = Tower("", encoder, nn.Identity())

    def features(self, view: View) -> Features:
        return self.tower.features(view)


def loader(dataset, batch: int, workers: int) -> DataLoader:
    """Batches of every sample in order, each read with the same generators whenever it is read."""
    indices = [[(0, i) for i in range(a, min(a + batch, len(dataset)))] for a in range(0, len(dataset), batch)]
    return DataLoader(Seeded(dataset, 0), batch_sampler=indices, collate_fn=collate, num_workers=workers)


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
) -> dict[str, Embeddings]:
    """Embeddings of `dataset` by several sets of models at once, so that it is read once.

    models: name -> modality -> Tower, or Bare for h alone. Preparations among the views run; augmentations do not.
    skip: fraction of the samples that may be unreadable; beyond it, DataError names them.
    """
    whole = {id(model): model for towers in models.values() for model in towers.values()}.values()
    training = {module: module.training for model in whole for module in model.modules()}
    for model in whole:
        model.eval().to(device)
    try:
        found = _embed(models, pipelines, _readable(loader(dataset, batch, workers), dataset, skip), device)
    finally:
        for module, mode in training.items():  # each its own: an encoder may keep some of its layers still
            module.training = mode
    return {name: _columns(embeddings, dataset) for name, embeddings in found.items()}


def _readable(batches, dataset, skip: float):
    skipped = Skipped(size=len(dataset), limit=skip)
    for samples in batches:
        skipped(samples)
        yield samples


def _embed(models, pipelines, batches, device) -> dict[str, Embeddings]:
    parts: dict[tuple[str, str, str], list[Tensor]] = {}
    for samples in batches:
        samples = samples.to(device)
        for modality, raw in samples.inputs.items():
            if modality not in pipelines:
                continue
            index = samples.index[raw.row]
            view = pipelines[modality].prepare(raw)
            for name, towers in models.items():
                if modality in towers:
                    _add(parts, name, modality, towers[modality], view, index)
    result = {name: Embeddings({}, {}) for name in models}
    for (name, modality, what), pieces in parts.items():
        getattr(result[name], what)[modality] = torch.cat(pieces)
    return result


def _add(parts: dict, name: str, modality: str, model: nn.Module, view: View, index: Tensor) -> None:
    view = _in_precision_of(model, view)
    keep = lambda what, value: parts.setdefault((name, modality, what), []).append(value.cpu())  # noqa: E731
    if isinstance(model, Tower):
        encoded = model(view, 0)
        keep("z", encoded.z.float())
        keep("h", encoded.h.float())
    else:
        keep("h", model.features(view).h.float())
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
