"""What a refresh is: a rule that makes a column of the data set from the embeddings of all its samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from counterpoint.errors import ComponentError
from counterpoint.evaluate.evaluator import Embeddings

Space = Literal["z", "h"]


@dataclass
class Vectors:
    """One vector a sample of the data set: unit rows (N, D), zeros where `known` (N,) is false."""

    rows: Tensor
    known: Tensor


class Refresh:
    """Base of what stands under `refresh` in a recipe.

    A subclass says in `modalities` which embeddings it wants (None: those of the first encoder), in `identities` how
    many different values its groups have, or that it is a table (None), and makes the column: int64 (N,) group ids or
    (N, k) for several groups, or int32 (N, k) rows of other samples; -1 is nobody.

    every  epochs between two refreshes; None: once, before the first epoch
    space  z, the contrasted embedding, or h, the representation
    by     whose embeddings: stages before this one, or `teacher`; (): those of the encoders that are trained
    """

    identities: int | None = None
    shape: tuple[int, ...] = ()

    def __init__(self, modalities: tuple[str | None, ...], every: int | None, space: Space, by: Sequence[str] = ()):
        if every is not None and every < 1:
            raise ComponentError(f"refresh: `every` is a number of epochs, or null for once; got {every}")
        self.modalities, self.every, self.space, self.by = modalities, every, space, tuple(by)

    def groups(self, name: str) -> list[str]:
        """The groups of the data that it makes under a name: none for a table; NAME, NAME_2, ... for several."""
        count = 0 if self.identities is None else self.shape[0] if self.shape else 1
        return [name, *(f"{name}_{place}" for place in range(2, count + 1))][:count]

    def empty(self, size: int) -> Tensor:
        """The column before the first refresh: every value unknown."""
        dtype = torch.int32 if self.identities is None else torch.int64
        return torch.full((size, *self.shape), -1, dtype=dtype)

    def make(self, found: Mapping[str | None, Vectors], seed: int) -> Tensor:
        """The column of N samples; a pure function of its arguments."""
        raise TypeError(f"{type(self).__name__} must define make(found, seed)")

    def joined(self, columns: list[Tensor]) -> Tensor:
        """One column of those made by each of `by`, in order."""
        return columns[0]

    def lacking(self, size: int) -> str | None:
        """Why `size` samples are too few for it, if they are."""
        return None


def one_a_sample(seen: Embeddings, modality: str, space: Space, width: int, size: int) -> Vectors:
    """The mean direction of the rows of each of `size` samples, on the host, where sums have one order."""
    total, known = torch.zeros(size, width), torch.zeros(size, dtype=torch.bool)
    if modality in seen.index:
        index = seen.index[modality]
        total.index_add_(0, index, normalize(getattr(seen, space)[modality].float(), dim=-1))
        known[index] = True
    return Vectors(normalize(total, dim=-1), known)
