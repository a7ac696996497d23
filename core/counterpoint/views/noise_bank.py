"""Normal numbers drawn once: noise is a stretch of them from a random start, several times cheaper than fresh noise.

Two stretches overlap by chance, but stand at different places of it: what is added to one place of two samples is as
uncorrelated as fresh noise, unless both start at the same number, with a chance of one in as many as the bank has.
"""

from __future__ import annotations

import torch
from torch import Tensor

from counterpoint.errors import ComponentError
from counterpoint.randomness import Draw, key


def white(count: int | None) -> Tensor | None:
    """A bank (2 count,): normal numbers twice in a row, so that a stretch that starts near their end goes on with the first."""
    return (
        None if count is None else torch.randn(count, generator=torch.Generator().manual_seed(key("noise"))).repeat(2)
    )


def stretches(bank: Tensor, draw: Draw, channels: int, length: int, who: str) -> Tensor:
    """(n, channels, length): a stretch of the bank for every channel; ComponentError, in the name of `who`, for a short bank."""
    count = len(bank) // 2
    if length > count:
        raise ComponentError(f"view {who!r}: bank must be at least the {length} samples; got {count}")
    start = (draw.uniform(channels) * count).long().clamp(max=count - 1)  # the length changes no start
    rows = bank.unfold(0, length, 1).index_select(0, start.flatten())  # whole rows: 5 times as fast as by [start]
    return rows.view(len(draw), channels, length)
