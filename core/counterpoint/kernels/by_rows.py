"""What needs a table of every row with every other one, made and differentiated some rows at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

HELD = 1 << 24  # numbers a block may hold


def by_rows(
    block: Callable[..., tuple[Tensor, ...]],
    rows: tuple[Tensor | None, ...],
    others: tuple[Tensor | None, ...],
    cost: int,
) -> tuple[Tensor, ...]:
    """The results of block(*some rows, *others), joined along their first dimension.

    rows    tensors of one length N; block is called with the same slice of each
    others  tensors that every call gets whole
    cost    numbers that block holds for one row: at most HELD are held at a time

    Where there are several blocks, each is computed again in the backward pass instead of being kept.
    """
    size = max(1, HELD // max(1, cost))
    count = len(rows[0])
    if count <= size:
        return block(*rows, *others)
    found = []
    for start in range(0, count, size):
        part = [None if t is None else t[start : start + size] for t in rows]
        if torch.is_grad_enabled():
            found.append(checkpoint(block, *part, *others, use_reentrant=False, preserve_rng_state=False))
        else:
            found.append(block(*part, *others))
    return tuple(torch.cat(pieces) for pieces in zip(*found))
