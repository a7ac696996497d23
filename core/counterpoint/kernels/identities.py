"""Rules over identities: which keys an anchor sees, how many they are, and their sum, without an N x M table.

Dimensions: N queries, M keys, D width. A rule is (row ids (N,), key ids (M,)), int64. Of two rules, `exclude` takes the
keys of equal id out and `only` leaves nothing but them.
"""

from __future__ import annotations

import torch
from torch import Tensor

Rule = tuple[Tensor, Tensor]


def out_of(exclude: Rule | None, only: Rule | None) -> Tensor | None:
    """bool (..., N, M), true where a key is out; None when every key is in."""
    out = None if exclude is None else exclude[0][..., :, None] == exclude[1][..., None, :]
    if only is None:
        return out
    other = only[0][..., :, None] != only[1][..., None, :]
    return other if out is None else out | other


def counts(n: int, m: int, exclude: Rule | None, only: Rule | None, device: torch.device) -> Tensor:
    """int64 (N,): how many keys each query sees."""
    seen = torch.full((n,), m, device=device) if only is None else _matches(only)
    if exclude is None:
        return seen
    return seen - _matches(exclude if only is None else _both(exclude, only))


def sums(keys: Tensor, exclude: Rule | None, only: Rule | None) -> Tensor:
    """(N, D) or (1, D): the sum of the keys each query sees."""
    seen = keys.sum(-2, keepdim=True) if only is None else _group_sums(only, keys)
    if exclude is None:
        return seen
    return seen - _group_sums(exclude if only is None else _both(exclude, only), keys)


def _both(a: Rule, b: Rule) -> Rule:
    """The rule that is equal where both `a` and `b` are."""
    n = len(a[0])
    table = torch.stack([torch.cat(a), torch.cat(b)], 1)
    ids = torch.unique(table, dim=0, return_inverse=True)[1]
    return ids[:n], ids[n:]


def _matches(rule: Rule) -> Tensor:
    rows, ranked = rule[0].contiguous(), rule[1].sort().values
    return torch.searchsorted(ranked, rows, right=True) - torch.searchsorted(ranked, rows)


def _group_sums(rule: Rule, keys: Tensor) -> Tensor:
    """(N, D): the sum of the keys that have the row's id; the same result every run, on a GPU too."""
    ranked, order = rule[1].sort(stable=True)
    names, lengths = torch.unique_consecutive(ranked, return_counts=True)
    nothing = lengths.new_zeros(1)  # the last group is empty: it serves the rows whose id no key has
    groups = torch.segment_reduce(keys[order], "sum", lengths=torch.cat([lengths, nothing]), axis=0, unsafe=True)
    place = torch.searchsorted(names, rule[0].contiguous())
    found = torch.cat([names, names.new_zeros(1)])[place] == rule[0]
    return groups[torch.where(found & (place < len(names)), place, len(names))]
