"""Data. Dimensions: C channels, L samples in time."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from counterpoint.data.dataset import Dataset, Sample, Spec
from counterpoint.data.reader import Reader
from counterpoint.errors import DataError
from counterpoint.markers import Data
from counterpoint.randomness import key

KINDS, CHANNELS, LENGTH, RATE, WORDS = 4, 2, 64, 32.0, 20


class Tones(Dataset):
    """Generated tones, float32 (C, L), and words for them, int64 (3 to 6,); every fifth sample has no words.

    Group "source": four recordings of each; label "kind": which of four pitches; label "loudness": its amplitude.
    Raises DataError for a split that is neither train nor test.
    """

    def __init__(self, *, sources: int = 12, seed: int = 0, split: Literal["train", "test"] = "train"):
        if split not in ("train", "test"):
            raise DataError(f"api1.tones: expected train or test; got {split!r}")
        self.seed = key(seed, "tones", split)
        source = np.repeat(np.arange(sources), 4)
        self.kind = source % KINDS
        self.loudness = 1.0 + source / sources
        self.groups = {"source": source}
        self.labels = {"kind": self.kind, "loudness": self.loudness}
        self.spec = Spec(
            size=len(source),
            modalities={
                "tone": {"channels": CHANNELS, "length": LENGTH, "rate": RATE},
                "words": {"vocabulary": WORDS, "length": None},
            },
            groups={"source": sources},
            labels={"kind": KINDS, "loudness": None},
            splits=("train", "test"),
            in_memory=True,
        )

    def inputs(self, index: int) -> dict[str, Tensor | list[Tensor]]:
        rng = np.random.default_rng([self.seed % 2**32, index])
        time = np.arange(LENGTH) / RATE
        wave = np.sin(2 * np.pi * (self.kind[index] + 1) * time + rng.uniform(0, 2 * np.pi, (CHANNELS, 1)))
        made = self.loudness[index] * wave + 0.1 * rng.standard_normal(wave.shape)
        found: dict[str, Tensor | list[Tensor]] = {"tone": torch.tensor(made, dtype=torch.float32)}
        if index % 5:
            found["words"] = torch.tensor(rng.integers(0, 5, rng.integers(3, 7)) + 5 * self.kind[index])
        return found


class Part(Dataset):
    """The first `share` of another data set."""

    def __init__(self, *, of: Data, share: float = 0.5, split: str = "train"):
        self.whole = of(split)
        spec = self.whole.spec
        size = max(1, int(share * spec.size))
        self.groups = {name: column[:size] for name, column in self.whole.groups.items()}
        self.labels = {name: column[:size] for name, column in self.whole.labels.items()}
        self.spec = Spec(
            size=size,
            modalities=spec.modalities,
            groups=spec.groups,
            labels=spec.labels,
            splits=spec.splits,
            in_memory=spec.in_memory,
        )

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return self.whole[index]


class Column(Reader):
    """Numbers of a text file, one a line, as float32 (1, L)."""

    suffixes = (".col",)

    def __init__(self, *, rate: float = RATE):
        self.rate = rate

    def facts(self, path: str) -> dict[str, int | float | None]:
        return {"channels": 1, "rate": self.rate, "length": None}

    def read(self, path: str) -> Tensor:
        return torch.tensor([[float(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]])
