"""What a dataset is: typed samples, and a spec that is known without decoding anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass
class Sample:
    """One sample. A modality that it lacks is a missing key.

    inputs  modality -> tensor, or a list of tensors when the sample has several rows (captions, windows)
    groups  name -> identity (int >= 0, -1 = unknown); labels: name -> class (int, -1 = unknown) or value (float)
    fields  named extras of a pack
    """

    inputs: dict[str, Tensor | list[Tensor]]
    groups: dict[str, int] = field(default_factory=dict)
    labels: dict[str, int | float] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Spec:
    """What is known of a dataset before anything is decoded.

    size        number of samples
    modalities  name -> what `Given` may ask for: channels, length (None = varies), rate (Hz), vocabulary, ...
    groups      name -> number of different identities
    labels      name -> number of classes, or None for a continuous value
    splits      names that the dataset's parameter `split` takes
    in_memory   reading a sample costs no input/output, so loader workers would not help
    """

    size: int
    modalities: Mapping[str, Mapping[str, Any]]
    groups: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, int | None] = field(default_factory=dict)
    splits: tuple[str, ...] = ("train",)
    in_memory: bool = False


class Dataset(torch.utils.data.Dataset):
    """Base of datasets whose groups and labels are columns of a table.

    A subclass sets `spec`, `groups` (name -> int64 (N,)), `labels` (name -> int64 or float (N,)) and says how the
    inputs of one sample are read. Whatever is random in reading (which window, which caption) draws from python's,
    numpy's or torch's global generator, which the loop seeds for every sample. A data set in memory without chance in
    its reading defines `inputs_of` in place of `inputs`, or beside it: its batches are read at once then.

    made_of  the datasets that it is made of, where it is
    """

    spec: Spec
    groups: Mapping[str, np.ndarray] = {}
    labels: Mapping[str, np.ndarray] = {}
    made_of: Sequence[Dataset] = ()

    def inputs(self, index: int) -> dict[str, Tensor | list[Tensor]]:
        """The inputs of one sample; raises DataError naming the file."""
        if (found := self.inputs_of(torch.tensor([index]))) is None:
            raise TypeError(f"{type(self).__name__} must define inputs(index)")
        return {modality: rows[0] for modality, rows in found.items()}

    def inputs_of(self, index: Tensor) -> dict[str, Tensor] | None:
        """modality -> (n, ...): what `inputs` gives for each of the samples `index` int64 (n,), stacked; None: one by one.

        A function of `index` alone. It stands in a class that also says what `inputs` and `__getitem__` are, or in one
        derived from it; where a derived class changes one of those and not `inputs_of`, samples are read one by one.
        """
        return None

    def files(self) -> Iterable[str]:
        """The files that it is read from: when one changes, a run on it is not gone on with unasked."""
        return [file for one in self.made_of for file in getattr(one, "files", list)()]

    def told(self, index: int) -> str:
        """What an error may add to the number of a sample, such as its file; nothing is read."""
        return ""

    def __len__(self) -> int:
        return self.spec.size

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of a dataset of {len(self)}")
        return Sample(
            self.inputs(index),
            {name: int(column[index]) for name, column in self.groups.items()},
            {name: column[index].item() for name, column in self.labels.items()},
        )


@cache
def reads_together(kind: type) -> bool:
    """Whether `inputs_of` of a class says the same as its `inputs` and `__getitem__`: neither is defined further down."""
    if not issubclass(kind, Dataset) or kind.inputs_of is Dataset.inputs_of:
        return False
    place = {name: i for i, base in reversed([*enumerate(kind.__mro__)]) for name in vars(base)}
    return place["inputs_of"] <= min(place["inputs"], place["__getitem__"])


def encode_categories(values) -> tuple[np.ndarray, list]:
    """Identities or class names as int64 ids in sorted order, and the names by id; an empty value becomes -1."""
    missing = np.array([value is None or value != value or value == "" for value in values], dtype=bool)
    names = sorted({value for value, gone in zip(values, missing) if not gone}, key=lambda v: (str(type(v)), v))
    ids = {name: i for i, name in enumerate(names)}
    return np.array([-1 if gone else ids[v] for v, gone in zip(values, missing)], dtype=np.int64), names
