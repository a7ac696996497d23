"""A backdoor in a share of the training pairs, to try what an objective makes of poisoned data.

data: {use: planted, of: {use: manifest, path: studies.csv}, modality: scan, target: 3, share: 0.01}
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from counterpoint.data.dataset import Dataset, Sample
from counterpoint.data.derived.wrapped import columns_of, extended
from counterpoint.errors import ComponentError, DataError, suggest
from counterpoint.markers import Data
from counterpoint.randomness import key

COLUMN = "planted"
CLEAN, TRIGGERED, TARGET = 0, 1, 2


class Planted(Dataset):
    """Another dataset with a backdoor: samples with a trigger in one modality, paired with the partners of one target.

    Training split: `share` of the samples (one at least, never the target) get the trigger in `modality`, and the target's inputs
    in all others; which, is a function of `seed` and their numbers. Other splits: the samples as they are; then
    each once more, with the trigger in `modality` and nothing else; last the target's partners, from the training
    split. Label "planted": 0 as it was, 1 with the trigger, 2 the target's partners; what is added has no other group or
    label. `attack_success` scores it; `retrieval` with `within: planted` scores the samples as they are.

    The trigger stands in the middle. Of numbers (C, L) it is a stretch, of (C, ..., H, W) a patch in every frame or slice, of `size`
    of each side: a chequered pattern of the sample's least and greatest value. Of token ids (L,), the last id of the
    vocabulary, in the place of others; the text itself, which some baselines read, stays as it was.

    of        the dataset
    modality  where the trigger is put
    target    number of a training sample
    share     of the training samples; size: of a side (0.07: 16 of 224 pixels)

    Source: Bansal et al., "CleanCLIP", ICCV 2023, with the patch of BadNets (Gu et al., 2017). There captions are made of
    a target class's name; here the partner is the target's own.
    """

    def __init__(
        self,
        *,
        of: Data,
        modality: str,
        target: int = 0,
        share: float = 0.01,
        size: float = 0.07,
        seed: int = 0,
        split: str = "train",
    ):
        if not (0 < share <= 1 and 0 < size <= 1):
            raise ComponentError(f"data 'planted': share and size are fractions in (0, 1]; got {share} and {size}")
        self.data, self.modality, self.target, self.size = of(split), modality, target, size
        self.train = self.data if split == "train" else of("train")
        self.made_of = [self.data] if split == "train" else [self.data, self.train]
        spec, count = self.data.spec, len(self.data)
        _check(spec, modality, target, len(self.train))
        self.vocabulary = spec.modalities[modality].get("vocabulary")
        kinds = np.full(count, CLEAN)
        if split == "train":
            kinds[_chosen(count, target, share, seed)] = TRIGGERED
        else:
            kinds = np.r_[kinds, np.full(count, TRIGGERED), TARGET]
        self.spec = extended(spec, len(kinds), labels={COLUMN: 3})
        self.groups, self.labels = columns_of(self.data, len(kinds))
        self.labels[COLUMN] = kinds

    def assets(self) -> dict[str, str]:
        return getattr(self.data, "assets", dict)()

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of a dataset of {len(self)}")
        inputs, fields = self._content(index, self.labels[COLUMN][index])
        pick = lambda table: {name: column[index].item() for name, column in table.items()}  # noqa: E731
        return Sample(inputs, pick(self.groups), pick(self.labels), fields)

    def _content(self, index: int, kind: int) -> tuple[dict, dict]:
        """Inputs and fields of a sample."""
        count = len(self.data)
        if kind == CLEAN:
            sample = self.data[index]
            return sample.inputs, sample.fields
        if kind == TARGET:
            return self._partners()
        sample = self.data[index % count]
        own, text = ({m: x for m, x in t.items() if m == self.modality} for t in (sample.inputs, sample.fields))
        own = {m: self._triggered(x) for m, x in own.items()}
        inputs, fields = self._partners() if index < count else ({}, {})
        return own | inputs, text | fields

    def _partners(self) -> tuple[dict, dict]:
        """Inputs and fields of the target in the other modalities; read anew each time, as every sample is."""
        sample = self.train[self.target]
        inputs, fields = ({m: x for m, x in t.items() if m != self.modality} for t in (sample.inputs, sample.fields))
        if not inputs:
            raise DataError(f"data 'planted': sample {self.target}, the target, has nothing but {self.modality!r}")
        return inputs, fields

    def _triggered(self, x: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        if isinstance(x, list | tuple):
            return [self._triggered(part) for part in x]
        if x.ndim == 1 and not x.is_floating_point():
            return _with_token(x, self.size, (self.vocabulary or int(x.max()) + 1) - 1)
        return with_patch(x, self.size)


def with_patch(x: Tensor, size: float) -> Tensor:
    """`x` (C, L), or (C, ..., H, W), with a chequered patch in the middle of its last axis, or its last two."""
    axes, x = min(2, x.ndim - 1) or 1, x.clone()
    places = []
    for side in x.shape[-axes:]:
        wide = min(side, max(2, round(size * side)))
        places.append(slice((side - wide) // 2, (side - wide) // 2 + wide))
    patch = x[(..., *places)]
    parity = sum(torch.meshgrid(*(torch.arange(n, device=x.device) for n in patch.shape[-axes:]), indexing="ij")) % 2
    patch.copy_(torch.where(parity.bool(), x.max(), x.min()).expand_as(patch))
    return x


def _with_token(ids: Tensor, size: float, token: int) -> Tensor:
    wide = min(len(ids), max(1, round(size * len(ids))))
    start, ids = (len(ids) - wide) // 2, ids.clone()
    ids[start : start + wide] = token
    return ids


def _chosen(count: int, target: int, share: float, seed: int) -> np.ndarray:
    """The samples with the lowest hash."""
    order = sorted((i for i in range(count) if i != target), key=lambda i: key(seed, "planted", i))
    return np.array(order[: max(1, round(share * count))], dtype=np.int64)


def _check(spec, modality: str, target: int, size: int) -> None:
    if modality not in spec.modalities:
        raise DataError(
            f"data 'planted': {modality!r} is not a modality of the data{suggest(modality, spec.modalities)}"
        )
    if len(spec.modalities) < 2:
        raise DataError(f"data 'planted': a backdoor is in pairs, and the data has {modality!r} alone")
    if not 0 <= target < size:
        raise DataError(f"data 'planted': target is one of the {size} training samples, from 0; got {target}")
    if COLUMN in {*spec.labels, *spec.groups}:
        raise DataError(f"data 'planted': the data has a column {COLUMN!r} already")
