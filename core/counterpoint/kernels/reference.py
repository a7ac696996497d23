"""The dense form in plain torch, holding the N x M logits: the yardstick, and the form with second derivatives."""

from __future__ import annotations

import torch
from torch import Tensor

from counterpoint.kernels.identities import Rule, out_of


def log_sum_exp(logits: Tensor, dim: int) -> Tensor:
    """log sum exp along `dim`, where a line of nothing but -inf gives -inf with a zero gradient, not NaN."""
    low = lowest(logits)
    lse = torch.logsumexp(logits.clamp(min=low), dim)
    return lse.masked_fill(lse < low / 2, -torch.inf)


def lowest(logits: Tensor) -> float:
    """Stands for -inf: its exponential is 0, and the gradient of a line full of it is a number."""
    return torch.finfo(logits.dtype).min / 4


def dense(
    queries: Tensor, keys: Tensor, exclude: Rule | None, only: Rule | None, columns: bool
) -> tuple[Tensor, Tensor | None]:
    """Row and column log-sum-exp of the logits: `queries` (..., N, D), scaled, times `keys` (..., M, D)."""
    logits, out = queries @ keys.mT, out_of(exclude, only)  # (..., N, M)
    if out is None:
        return torch.logsumexp(logits, -1), torch.logsumexp(logits, -2) if columns else None
    logits = logits.masked_fill(out, lowest(logits))
    return _line(logits, -1), _line(logits, -2) if columns else None


def _line(logits: Tensor, dim: int) -> Tensor:
    lse = torch.logsumexp(logits, dim)
    return lse.masked_fill(lse < lowest(logits) / 2, -torch.inf)
