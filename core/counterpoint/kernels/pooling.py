"""The maximum over time: what a series' tokens (n, L, D) become where one vector a row is wanted."""

from __future__ import annotations

import torch
from torch import Tensor


def max_over_time(tokens: Tensor, mask: Tensor | None) -> Tensor:
    """(n, D): the largest real value of every number; zeros for a row of padding alone."""
    if mask is None:
        return tokens.amax(1)
    return real_or_zero(tokens.masked_fill(~mask[:, :, None], -torch.inf).amax(1))


def real_or_zero(maxima: Tensor) -> Tensor:
    """`maxima` with zeros where there was nothing to take the maximum of."""
    return torch.where(maxima == -torch.inf, 0.0, maxima)


def max_of_stretches(tokens: Tensor, stretch: Tensor, count: int) -> Tensor:
    """(n, count, D): the maxima of the tokens that `stretch` int64 (n, L) puts in each; zeros where it puts none.

    Tokens of a number outside 0..count-1 are in no stretch.
    """
    n, _, width = tokens.shape
    place = torch.where((stretch >= 0) & (stretch < count), stretch, count)
    maxima = tokens.new_full((n, count + 1, width), -torch.inf)
    maxima = maxima.scatter_reduce(1, place[:, :, None].expand_as(tokens), tokens, "amax")
    return real_or_zero(maxima[:, :count])
