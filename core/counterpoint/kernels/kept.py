"""The dense form for small problems on a CPU: one table, made once and kept for the backward pass.

It holds exponentials while logits are bounded, so that rows, columns and gradients share one exp, and logits otherwise.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import Function

from counterpoint.kernels.autocast import no_autocast
from counterpoint.kernels.reference import log_sum_exp
from counterpoint.kernels.tiled import is_bounded, refuse_second_derivative


class KeptSoftmax(Function):
    """(scaled (N, D), keys (M, D), bool (N, M) true = out) -> rows lse (N,), columns lse (M,) or None."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor, out: Tensor | None, columns: bool):
        ctx.set_materialize_grads(False)
        ctx.bounded = is_bounded(a, b)
        table = torch.mm(a, b.T)
        if ctx.bounded:
            table.exp_()
        if out is not None:
            table.masked_fill_(out, 0.0 if ctx.bounded else -torch.inf)
        line = (lambda dim: table.sum(dim).log_()) if ctx.bounded else (lambda dim: log_sum_exp(table, dim))
        lines = line(1), line(0) if columns else None
        ctx.save_for_backward(a, b, table, *lines)
        return lines

    @staticmethod
    def backward(ctx, grad_rows: Tensor | None, grad_cols: Tensor | None):
        refuse_second_derivative()
        a, b, table, rows, cols = ctx.saved_tensors
        with no_autocast(a.device.type):
            change = slopes(table, [(rows, grad_rows, 1), (cols, grad_cols, 0)], ctx.bounded)
            return change @ b, change.T @ a, None, None


def slopes(table: Tensor, lines, bounded: bool) -> Tensor:
    """(N, M): the sum over `lines` (lse, gradient, dim) of gradient * probability along that dim."""
    lines = [(lse.masked_fill(lse == -torch.inf, 0.0), grad, dim) for lse, grad, dim in lines if grad is not None]
    if not lines:
        return torch.zeros_like(table)
    if bounded:
        return table * sum((grad * torch.exp(-lse)).unsqueeze(dim) for lse, grad, dim in lines)
    return sum((table - lse.unsqueeze(dim)).exp_().mul_(grad.unsqueeze(dim)) for lse, grad, dim in lines)
