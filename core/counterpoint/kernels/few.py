"""The whole loss of few pairs on a CPU, in one call: value and gradient from one table that is gone when it returns.

1. The table of logits, then of their exponentials relative to the largest: one exp serves both directions.
2. With p an anchor's positive and s the sum over its negatives, -log(p / (p + s)) = log1p(s / p), its slopes 1 / (p + s).
3. What is kept for the backward pass is the gradient by the rows, which it multiplies with the gradient that comes in.

Below some hundred pairs calls cost more than arithmetic: here there are few of them, all out of autograd's sight.
Dimensions: N pairs, R rows of a stack, P pairs of them, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import softplus

from counterpoint.kernels import kept
from counterpoint.kernels.pairs import RANGE
from counterpoint.kernels.reference import log_sum_exp
from counterpoint.kernels.tiled import refuse_second_derivative


class Table:
    """Exponentials of logits (N, M) relative to the largest where their range allows it, else the logits themselves."""

    def __init__(self, a: Tensor, b: Tensor, scale: float | Tensor):
        self.values = torch.mm(a, b.T).mul_(scale)
        self.diagonal = self.values.diagonal()
        low, high = torch.aminmax(self.values)
        self.bounded = float(high) - float(low) <= RANGE
        if self.bounded:
            self.values.sub_(high).exp_()

    def leave_out(self, out: Tensor | None) -> None:
        """bool (N, M), true = out, or None: the diagonal."""
        nothing = 0.0 if self.bounded else -torch.inf
        self.diagonal.fill_(nothing) if out is None else self.values.masked_fill_(out, nothing)

    def sums(self, dim: int) -> Tensor:
        return self.values.sum(dim) if self.bounded else log_sum_exp(self.values, dim)

    def terms(self, sums: Tensor, positive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of anchors whose positive is left out: loss, slope by their line of the table, and minus that by the positive."""
        if self.bounded:
            slope = (sums + positive).reciprocal_()
            return (sums / positive).log1p_(), slope, sums * slope
        slope = torch.sigmoid(sums - positive)
        return softplus(sums - positive, threshold=40), slope, slope.clone()

    def gradient(self, sums: Tensor, slopes: Tensor, dims: list[int]) -> Tensor:
        """(N, M), in the place of the table: by the logits, from sums and slopes of rows (dim 1), columns (dim 0) or both."""
        if not self.bounded:
            return kept.slopes(self.values, list(zip(sums, slopes, dims)), False)
        if len(dims) == 2:
            rows, columns = slopes.unbind()
            return self.values.mul_(rows.unsqueeze(1) + columns)
        return self.values.mul_(slopes.T if dims == [1] else slopes)


class FewPairs(Function):
    """(queries (N, D), keys (N, D), scale, out, share of forward) -> the mean loss; key i is the positive of query i.

    out: bool (N, N), true = no negative, which covers the diagonal; None: the diagonal.
    """

    @staticmethod
    def forward(ctx, queries: Tensor, keys: Tensor, scale: float | Tensor, out: Tensor | None, alpha: float) -> Tensor:
        table = Table(queries, keys, scale)
        positive = table.diagonal.clone()
        table.leave_out(out)
        dims = [dim for dim, share in ((1, alpha), (0, 1 - alpha)) if share]
        sums = torch.stack([table.sums(dim) for dim in dims])
        terms, slope, weight = table.terms(sums, positive)  # (1 or 2, N) each
        if alpha not in (0.0, 0.5, 1.0):
            terms, slope, weight = (x * x.new_tensor([[2 * alpha], [2 - 2 * alpha]]) for x in (terms, slope, weight))
        if any(ctx.needs_input_grad):
            share = scale / sums.numel()
            gradient = table.gradient(sums, slope.mul_(share), dims)
            gradient.diagonal().copy_(weight.sum(0).mul_(-share))
            _keep(ctx, scale, (gradient @ keys, gradient.T @ queries), queries, 1.0)
        return terms.mean()

    @staticmethod
    def backward(ctx, grad: Tensor):
        by_scale, by_queries, by_keys = _times(ctx, grad)
        return by_queries, by_keys, by_scale, None, None


class FewViews(Function):
    """(z (R, D), scale, out, pairs of rows (P,), (P,)) -> the mean loss over both anchors of all pairs.

    out: bool (R, R), true = no negative. The table is symmetric: one product gives the gradient. Each pair comes once.
    """

    @staticmethod
    def forward(ctx, z: Tensor, scale: float | Tensor, out: Tensor, a: Tensor, b: Tensor) -> Tensor:
        table, pairs = Table(z, z, scale), torch.stack([a, b])
        positive = table.values[a, b]
        table.leave_out(out)
        sums = table.sums(1)
        terms, slope, weight = table.terms(sums[pairs], positive)  # (2, P) each
        if any(ctx.needs_input_grad):
            share = scale / terms.numel()
            by_row = torch.zeros_like(sums).index_add_(0, pairs.flatten(), slope.mul_(share).flatten())
            both = [x.expand(2, -1) for x in (sums, by_row)]  # roles of a row
            gradient = table.gradient(*both, [1, 0])
            gradient[pairs, pairs.flip(0)] = weight.sum(0).mul_(-share)
            _keep(ctx, scale, (gradient @ z,), z, 0.5)
        return terms.mean()

    @staticmethod
    def backward(ctx, grad: Tensor):
        by_scale, by_z = _times(ctx, grad)
        return by_z, by_scale, None, None, None


def _keep(ctx, scale: float | Tensor, by_rows: tuple[Tensor, ...], rows: Tensor, share: float) -> None:
    """Saves the gradients: `by_rows`, and that of the scale, from `share` of the first of them."""
    by_scale = (
        (by_rows[0] * (share * rows)).sum() / scale if isinstance(scale, Tensor) and scale.requires_grad else None
    )
    ctx.save_for_backward(by_scale, *by_rows)


def _times(ctx, grad: Tensor) -> list[Tensor | None]:
    refuse_second_derivative()
    return [None if saved is None else saved * grad for saved in ctx.saved_tensors]
