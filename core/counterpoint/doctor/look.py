"""A look at a bounded part of the data: what each sample holds as hashes and sketches, never the samples themselves.

Dimensions: n samples looked at, W width of a sketch.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from counterpoint.data.dataset import Sample
from counterpoint.data.spread import spread
from counterpoint.errors import DataError
from counterpoint.fit.assembly import build_dataset
from counterpoint.randomness import key, seed_host
from counterpoint.recipe import Recipe

MOST = 2048  # samples that are read of a split
NUMBERS = 1 << 28  # numbers that are read of a split: fewer samples, where samples are large
WIDTH = 256  # of a sketch: 1 - cosine of two near rows is then known to a tenth of itself


@dataclass
class Part:
    """What was seen of one split.

    index     int64 (n,): numbers of the samples that were read; bad: of those that cannot be
    hashes    modality -> int64 (n,): of the content, equal where it is; -1: the sample lacks the modality
    sketches  modality of numbers -> float32 (n, W), unit rows whose products are the cosines of the centred samples,
              but for chance; a zero row: constant or absent
    flat      modality of numbers -> int64: numbers of samples that are constant
    texts     modality -> the text of a sample by its number, where the data keeps it
    """

    dataset: object
    split: str
    index: np.ndarray
    bad: list[int] = field(default_factory=list)
    hashes: dict[str, np.ndarray] = field(default_factory=dict)
    sketches: dict[str, np.ndarray] = field(default_factory=dict)
    flat: dict[str, list[int]] = field(default_factory=dict)
    texts: dict[str, dict[int, str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.index)

    def column(self, name: str) -> np.ndarray | None:
        """A group or label of the whole split."""
        for table in (getattr(self.dataset, "groups", {}), getattr(self.dataset, "labels", {})):
            if name in table:
                return np.asarray(table[name])
        return None


@dataclass
class Data:
    """The splits that a recipe trains and scores on, as far as they were looked at."""

    recipe: Recipe
    train: Part
    test: Part | None


def look(recipe: Recipe, most: int = MOST) -> Data:
    """Read evenly spread samples of the training split, and of the split that scores are taken on."""
    train = build_dataset(recipe)
    others = "test" in train.spec.splits and bool(recipe.evaluate)
    test = build_dataset(recipe, split="test") if others else None
    return Data(recipe, part_of(train, "train", most), part_of(test, "test", most) if test is not None else None)


def read(dataset, index: int, *own: int) -> Sample:
    """A sample, read with the same random draws as every other: what is the same file is then the same stretch of it.

    own  numbers that its draws depend on, where that sameness would mislead
    """
    seed_host(key("doctor", *own))
    return dataset[index]


def rows(value: Tensor | list[Tensor]) -> list[Tensor]:
    return [torch.as_tensor(x) for x in (value if isinstance(value, list | tuple) else [value])]


def symbols(x: Tensor) -> bool:
    """Whether a row is one of token ids."""
    return x.ndim == 1 and not x.is_floating_point()


def affordable(dataset, most: int, numbers: int = NUMBERS) -> int:
    """How many samples of the size of the first readable one may be read."""
    for index in range(min(len(dataset), 64)):
        try:
            size = sum(x.numel() for value in read(dataset, index).inputs.values() for x in rows(value))
        except DataError:
            continue
        return max(2, min(most, numbers // max(1, size)))
    return most


def part_of(dataset, split: str, most: int) -> Part:
    asked = spread(dataset, affordable(dataset, most))
    modalities = list(dataset.spec.modalities)
    seen: dict[str, list] = {m: [] for m in modalities}
    part = Part(dataset, split, asked, flat={m: [] for m in modalities}, texts={m: {} for m in modalities})
    good = []
    for index in asked.tolist():
        try:
            sample = read(dataset, index)
        except DataError:
            part.bad.append(index)
            continue
        good.append(index)
        for modality in modalities:
            seen[modality].append(_facts(part, modality, index, sample))
    part.index = np.array(good, dtype=np.int64)
    for modality, facts in seen.items():
        part.hashes[modality] = np.array([one[0] for one in facts], dtype=np.int64)
        if any(one[1] is not None for one in facts):
            nothing = np.zeros(WIDTH, np.float32)
            part.sketches[modality] = np.stack([nothing if one[1] is None else one[1] for one in facts])
    return part


def _facts(part: Part, modality: str, index: int, sample: Sample) -> tuple[int, np.ndarray | None]:
    """The hash and the sketch of one modality of a sample."""
    if modality not in sample.inputs:
        return -1, None
    found = rows(sample.inputs[modality])
    digest = hashlib.blake2b(digest_size=8)
    for x in found:
        digest.update(str((x.dtype, tuple(x.shape))).encode() + x.contiguous().numpy().tobytes())
    number = int.from_bytes(digest.digest(), "big") >> 1
    if isinstance(text := sample.fields.get(modality), str):
        part.texts[modality][index] = text
    if symbols(found[0]):
        return number, None
    made = sketch(found[0])
    if not made.any():
        part.flat[modality].append(index)
    return number, made


def sketch(x: Tensor) -> np.ndarray:
    """float32 (W,): random signs and sums of the centred numbers of `x`, the last axis first; a unit row, 0 for a constant.

    The product of two such rows is the cosine of the two, with an error of about (1 - cosine^2) / sqrt(W): Charikar, Chen
    and Farach-Colton, ICALP 2002 (the count sketch), here with a bucket every W places. Rows of another length begin alike.
    """
    flat = x.float().movedim(-1, 0).reshape(-1).numpy()
    flat = flat - flat.mean(dtype=np.float64) if len(flat) else flat
    length = float(np.linalg.norm(flat))
    if not np.isfinite(length) or length <= 1e-6 * max(1e-30, float(x.float().norm())):
        return np.zeros(WIDTH, np.float32)
    whole = np.pad(flat, (0, -len(flat) % WIDTH)).reshape(-1, WIDTH)
    made = (whole * _signs(len(whole))).sum(0)
    return (made / max(1e-30, float(np.linalg.norm(made)))).astype(np.float32)


@lru_cache(maxsize=256)
def _block(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 2, (256, WIDTH), dtype=np.int8) * 2 - 1


def _signs(count: int) -> np.ndarray:
    """int8 (count, W): the same signs for every row, however long it is."""
    return np.concatenate([_block(number) for number in range(-(-count // 256))])[:count]
