"""Which tiles of the N x M logits there are, and which of their entries are out."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from counterpoint.kernels.identities import Rule, out_of

ROWS, KEYS = 512, 512  # 1 MiB of float32, a core's own cache: one buffer of this size is used again for every tile
ON_GPU = 2  # times longer sides: there a call costs more than its arithmetic


def blocks(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


class Plan:
    """The tiles for N queries and M keys. `symmetric`: they are one, only tiles on and above the diagonal."""

    def __init__(self, a: Tensor, b: Tensor, exclude: Rule | None, only: Rule | None, symmetric: bool = False):
        self.exclude, self.only, self.symmetric = exclude, only, symmetric
        times = ON_GPU if a.is_cuda else 1
        self.rows = blocks(len(a), times * ROWS)
        self.keys = self.rows if symmetric else blocks(len(b), times * KEYS)
        self._excluding = None if exclude is None else _touching(exclude, self.rows, self.keys)
        self._allowing = None if only is None else _touching(only, self.rows, self.keys)

    def __iter__(self) -> Iterator[tuple[slice, slice, Tensor | None]]:
        """(rows, keys, bool (rows, keys) true = out or None when all are in) of every tile that has an entry."""
        for i, rows in enumerate(self.rows):
            for j, keys in enumerate(self.keys):
                if (self.symmetric and j < i) or (self._allowing is not None and not self._allowing[i][j]):
                    continue
                excluding = self._excluding is not None and self._excluding[i][j]
                yield rows, keys, out_of(_cut(self.exclude, rows, keys) if excluding else None, self._only(rows, keys))

    def _only(self, rows: slice, keys: slice) -> Rule | None:
        return None if self.only is None else _cut(self.only, rows, keys)


def ranked(exclude: Rule | None, only: Rule | None) -> tuple[Tensor, Tensor] | None:
    """Orders of the queries and of the keys in which equal ids stand together, so that a rule touches few tiles.

    None without a rule, and where ids rise already, as those of a batch's own pairs do: nothing has to be moved.
    """
    rule = exclude if only is None else only
    if rule is None or all(bool((ids[1:] >= ids[:-1]).all()) for ids in rule):
        return None
    return rule[0].argsort(stable=True), rule[1].argsort(stable=True)


def reorder(rule: Rule | None, rows: Tensor, keys: Tensor) -> Rule | None:
    return None if rule is None else (rule[0][rows], rule[1][keys])


def _cut(rule: Rule, rows: slice, keys: slice) -> Rule:
    return rule[0][rows], rule[1][keys]


def _touching(rule: Rule, rows: list[slice], keys: list[slice]) -> list[list[bool]]:
    """Whether an id of row block i may equal an id of key block j: their ranges overlap."""
    row_low, row_high = _ranges(rule[0], rows)
    key_low, key_high = _ranges(rule[1], keys)
    return ((row_low[:, None] <= key_high) & (key_low <= row_high[:, None])).tolist()


def _ranges(ids: Tensor, parts: list[slice]) -> tuple[Tensor, Tensor]:
    if not parts:
        return ids[:0], ids[:0]
    return torch.stack([ids[part].min() for part in parts]), torch.stack([ids[part].max() for part in parts])
