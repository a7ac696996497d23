"""Pairs of a small batch on a CPU: key i is the positive of query i, and both come from one kept table.

For fewer than some hundred pairs the calls cost more than the arithmetic: the diagonal is the positive, so that nothing has to
be compared or multiplied again to find it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import Function

from counterpoint.kernels.autocast import no_autocast
from counterpoint.kernels.kept import slopes
from counterpoint.kernels.reference import log_sum_exp
from counterpoint.kernels.tiled import refuse_second_derivative

RANGE = 80.0  # between the largest and the least logit: exponentials below the largest are still normal numbers


class KeptPairs(Function):
    """(queries (N, D), keys (N, D), scale 0-d) -> rows lse and columns lse without the positive (N,), positives (N,)."""

    @staticmethod
    def forward(ctx, queries: Tensor, keys: Tensor, scale: Tensor, columns: bool):
        ctx.set_materialize_grads(False)
        table = torch.mm(queries, keys.T).mul_(scale)
        positive = table.diagonal().clone()
        low, high = torch.aminmax(table)
        ctx.bounded = bool(high - low <= RANGE)
        table.fill_diagonal_(-torch.inf)
        if ctx.bounded:
            table.sub_(high).exp_()
        # without the largest logit, which is added at the end: the table is relative to it
        line = (lambda dim: table.sum(dim).log_()) if ctx.bounded else (lambda dim: log_sum_exp(table, dim))
        lines = line(1), line(0) if columns else None
        ctx.save_for_backward(queries, keys, scale, table, *lines)
        top = high if ctx.bounded else 0.0
        return lines[0] + top, lines[1] + top if columns else None, positive

    @staticmethod
    def backward(ctx, grad_rows: Tensor | None, grad_cols: Tensor | None, grad_positive: Tensor | None):
        refuse_second_derivative()
        queries, keys, scale, table, rows, cols = ctx.saved_tensors
        lines = [(rows, grad_rows, 1), (cols, grad_cols, 0)]
        with no_autocast(queries.device.type):
            change = slopes(table, lines, ctx.bounded)
            if grad_positive is not None:
                change.diagonal().add_(grad_positive)
            by_queries, by_keys = change @ keys, change.T @ queries
        by_scale = (by_queries * queries).sum() if ctx.needs_input_grad[2] else None
        return by_queries.mul_(scale), by_keys.mul_(scale), by_scale, None
