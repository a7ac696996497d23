"""Sums of softplus over all pairs, for sigmoid losses: the tiles of the softmax, another function on them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import softplus

from counterpoint.kernels.divided import is_divided, rows_by_parts
from counterpoint.kernels.identities import Rule, out_of
from counterpoint.kernels.plan import Plan, ranked, reorder
from counterpoint.kernels.softmax import DENSE, precise
from counterpoint.kernels.tiled import Buffers, refuse_second_derivative


def softplus_sums(
    queries: Tensor,
    keys: Tensor,
    scale: float | Tensor,
    bias: float | Tensor,
    *,
    exclude: Rule | None = None,
    tiled: bool | None = None,
) -> Tensor:
    """(N,): sum over keys of log(1 + exp(scale * q_i . k_j + bias)), differentiable once, with linear memory.

    queries (N, D), keys (M, D); scale and bias: floats or 0-d tensors; exclude and tiled: as in `softmax_stats`.
    """
    with torch.autocast(queries.device.type, enabled=False):
        queries, keys, scale = precise(queries, keys, scale)
        a, bias = queries * scale, torch.as_tensor(bias, dtype=queries.dtype, device=queries.device)
        if len(a) * len(keys) > DENSE if tiled is None else tiled:
            if is_divided(a, keys, False):
                return rows_by_parts(_tiled, a, keys, bias, exclude)
            return _tiled(a, keys, bias, exclude)
        terms = softplus(a @ keys.T + bias, threshold=40)
        return (terms if exclude is None else terms.masked_fill(out_of(exclude, None), 0.0)).sum(1)


def _tiled(a: Tensor, b: Tensor, bias: Tensor, exclude: Rule | None) -> Tensor:
    orders = ranked(exclude, None)
    if orders is None:
        return TiledSoftplus.apply(a, b, bias, Plan(a, b, exclude, None))
    r, k = orders
    return TiledSoftplus.apply(a[r], b[k], bias, Plan(a, b, reorder(exclude, r, k), None))[r.argsort()]


class TiledSoftplus(Function):
    """(a (N, D), b (M, D), bias ()) -> (N,)."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor, bias: Tensor, plan: Plan) -> Tensor:
        ctx.plan = plan
        ctx.save_for_backward(a, b, bias)
        sums, buffers = a.new_zeros(len(a)), Buffers(a, plan)
        with torch.autocast(a.device.type, enabled=False):
            for r, k, out in plan:
                tile = buffers.logits(a[r], b[k], out).add_(bias)
                sums[r] += softplus(tile, threshold=40).sum(1)
        return sums

    @staticmethod
    def backward(ctx, grad: Tensor):
        refuse_second_derivative()
        a, b, bias = ctx.saved_tensors
        da, db, dbias = torch.zeros_like(a), torch.zeros_like(b), torch.zeros_like(bias)
        buffers = Buffers(a, ctx.plan)
        with torch.autocast(a.device.type, enabled=False):
            for r, k, out in ctx.plan:
                tile = buffers.logits(a[r], b[k], out).add_(bias).sigmoid_().mul_(grad[r, None])
                dbias += tile.sum()
                da[r].addmm_(tile, b[k])
                db[k].addmm_(tile.T, a[r])
        return da, db, dbias, None
