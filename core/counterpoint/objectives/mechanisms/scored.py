"""InfoNCE over a finished table of similarities: what the similarities that are no dot product end in."""

from __future__ import annotations

import torch
from torch import Tensor

from counterpoint.kernels import contrast
from counterpoint.kernels.reference import log_sum_exp, lowest


def info_nce_of(
    logits: Tensor, ids: Tensor, other_ids: Tensor, own: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """(N,): -log( exp(l_ip) / (exp(l_ip) + sum_{j: id of j is not that of i} exp(l_ij)) ) of logits (N, M).

    own        int64 (N,): the column p of the positive; None: i
    smoothing  share of the target that is spread evenly over the positive and the negatives
    """
    own = torch.arange(len(logits), device=logits.device) if own is None else own
    positive = logits.gather(1, own[:, None])[:, 0]
    out = ids[:, None] == other_ids  # (N, M)
    loss = contrast(log_sum_exp(logits.masked_fill(out, lowest(logits)), 1), positive)
    if not smoothing:
        return loss
    total = positive + logits.masked_fill(out, 0.0).sum(1)
    return loss + smoothing * (positive - total / ((~out).sum(1) + 1))
