"""What belongs to the rows of an aligned pair: their places, their twins on another side, a value of their samples."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from counterpoint.batch import Encoded, Outputs, Pair, align
from counterpoint.errors import ComponentError
from counterpoint.kernels.identities import counts, sums


def places(pair: Pair) -> tuple[Tensor, Tensor]:
    """int64 (N,), (N,): which rows of query and key the pair took."""
    numbered = [replace(e, z=torch.arange(len(e.row), device=e.row.device)) for e in (pair.query, pair.key)]
    found = align(*numbered)
    return found.q, found.k


def twins(outputs: Outputs, pair: Pair, of: str) -> tuple[Tensor, Tensor]:
    """(N, D), (N, D): the pair as the momentum encoders or the teacher see it; ComponentError when one is not seen."""
    seen = {e.view: e for e in getattr(outputs, of)}
    for e in (pair.query, pair.key):
        if e.view not in seen:
            raise ComponentError(
                f"objective: the {of} has no encoder for {e.modality!r}, which the loss compares with it"
            )
    i, j = places(pair)
    return seen[pair.query.view].z[i], seen[pair.key.view].z[j]


def by_sample(e: Encoded, values: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """(size, ...): the mean of the values (n, ...) of each sample's rows, and bool (size,): the samples that have any."""
    rule = (torch.arange(size, device=e.row.device), e.row)
    found = counts(size, len(e.row), None, rule, e.row.device)
    return sums(values.flatten(1), None, rule) / found.clamp(min=1)[:, None], found > 0
