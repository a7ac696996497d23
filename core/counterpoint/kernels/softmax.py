"""The one primitive of the InfoNCE family: log-sum-exps of scaled dot products. It knows no positives."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from counterpoint.kernels import identities, reference
from counterpoint.kernels.autocast import no_autocast
from counterpoint.kernels.dispatch import fused_for, products_dtype
from counterpoint.kernels.divided import by_parts, is_divided
from counterpoint.kernels.identities import Rule
from counterpoint.kernels.kept import KeptSoftmax
from counterpoint.kernels.plan import Plan, ranked, reorder
from counterpoint.kernels.tiled import TiledSelfSoftmax, TiledSoftmax

DENSE = 1024 * 1024  # logits up to which the dense form is the faster one


class Stats(NamedTuple):
    """Row log-sum-exp (N,), row mean logit (N,) and column log-sum-exp (M,), the last two when asked for."""

    rows: Tensor
    mean: Tensor | None
    columns: Tensor | None


def softmax_stats(
    queries: Tensor,
    keys: Tensor,
    scale: float | Tensor,
    *,
    exclude: Rule | None = None,
    only: Rule | None = None,
    mean: bool = False,
    columns: bool = False,
    tiled: bool | None = None,
) -> Stats:
    """Statistics of logits l_ij = scale_i * q_i . k_j, differentiable once; never an N x M matrix when tiled.

    queries  (N, D) and keys (M, D), float; bfloat16 and float16 are computed and returned in float32. Within
             `products(torch.bfloat16)` the tiled form multiplies in bfloat16 on CUDA and adds up in float32
    scale    float, 0-d tensor, or (N,) one an anchor
    exclude  (row ids (N,), key ids (M,)) int64: keys of equal id are out. only: keys of equal id alone are in
    mean     also the mean logit of the keys that are in (0 where there is none)
    columns  also the log-sum-exp over the queries of each key
    tiled    None: by size. False: dense in plain torch, which has second derivatives and takes leading batch dimensions

    An anchor that sees no key has log-sum-exp -inf and gradient 0. Passing one tensor as queries and keys (and the same
    ids for both) halves the tiled work.
    """
    one = queries is keys
    with no_autocast(queries.device.type):
        queries, keys, scale = precise(queries, keys, scale)
        average = _mean(queries, keys, scale, exclude, only) if mean else None
        form = _form(queries, keys, tiled)
        symmetric = form is _tiled and one and _is_symmetric(scale, exclude, only)
        if form is _tiled and is_divided(queries, keys, symmetric):
            rows, cols = by_parts(form, scaled(queries, scale), keys, exclude, only, columns)
            return Stats(rows, average, cols)
        if symmetric:
            rows = _self_tiled(queries, scale, exclude, only)
            return Stats(rows, average, rows if columns else None)
        rows, cols = form(scaled(queries, scale), keys, exclude, only, columns)
    return Stats(rows, average, cols)


def _form(queries: Tensor, keys: Tensor, tiled: bool | None):
    """Tiles for what is large; below, one kept table on a CPU, and on a GPU plain torch, which never waits for it."""
    if queries.ndim == 2 and (queries.shape[-2] * keys.shape[-2] > DENSE if tiled is None else tiled):
        return _tiled
    return reference.dense if queries.ndim > 2 or tiled is False or queries.is_cuda else _kept


def are_few(queries: Tensor, scale: float | Tensor) -> bool:
    """Whether pairs (N, D) with one scale are few enough for one kept table on a CPU."""
    one_scale, shape = not isinstance(scale, Tensor) or scale.ndim == 0, queries.shape
    return one_scale and len(shape) == 2 and queries.is_cpu and 0 < shape[0] ** 2 <= DENSE


def precise(queries: Tensor, keys: Tensor, scale: float | Tensor) -> tuple[Tensor, Tensor, float | Tensor]:
    """The arguments in float32, or float64 when there is one."""
    dtype = torch.float64 if torch.float64 in (queries.dtype, keys.dtype) else torch.float32
    return _in(dtype, queries), _in(dtype, keys), _in(dtype, scale) if isinstance(scale, Tensor) else scale


def _in(dtype: torch.dtype, x: Tensor) -> Tensor:
    """`x.to(dtype)`, which takes microseconds where nothing changes: they count in the loss of few pairs."""
    return x if x.dtype == dtype else x.to(dtype)


def scaled(queries: Tensor, scale: float | Tensor) -> Tensor:
    """Queries (..., N, D) times a scale that is one number or one an anchor."""
    per_anchor = isinstance(scale, Tensor) and scale.ndim > 0
    return queries * (scale.unsqueeze(-1) if per_anchor else scale)


def _kept(a: Tensor, b: Tensor, exclude: Rule | None, only: Rule | None, columns: bool):
    return KeptSoftmax.apply(a, b, identities.out_of(exclude, only), columns)


def _is_symmetric(scale: float | Tensor, exclude: Rule | None, only: Rule | None) -> bool:
    same_ids = all(rule is None or rule[0] is rule[1] for rule in (exclude, only))
    return same_ids and (not isinstance(scale, Tensor) or scale.ndim == 0) and bool(scale > 0)


def _self_tiled(z: Tensor, scale: float | Tensor, exclude: Rule | None, only: Rule | None) -> Tensor:
    z = z * scale**0.5
    if (kernel := fused_for(z)) is not None:
        return kernel.FusedSelfSoftmax.apply(z, exclude, only, products_dtype())
    orders = ranked(exclude, only)
    if orders is None:
        return TiledSelfSoftmax.apply(z, Plan(z, z, exclude, only, True))
    order = orders[0]
    plan = Plan(z, z, reorder(exclude, order, order), reorder(only, order, order), True)
    return TiledSelfSoftmax.apply(z[order], plan)[order.argsort()]


def _tiled(a: Tensor, b: Tensor, exclude: Rule | None, only: Rule | None, columns: bool):
    if (kernel := fused_for(a)) is not None:
        return kernel.FusedSoftmax.apply(a, b, exclude, only, columns, products_dtype())
    orders = ranked(exclude, only)
    if orders is None:
        return TiledSoftmax.apply(a, b, Plan(a, b, exclude, only), columns)
    r, k = orders
    plan = Plan(a, b, reorder(exclude, r, k), reorder(only, r, k))
    rows, cols = TiledSoftmax.apply(a[r], b[k], plan, columns)
    return rows[r.argsort()], cols[k.argsort()] if columns else None


def _mean(queries: Tensor, keys: Tensor, scale: float | Tensor, exclude: Rule | None, only: Rule | None) -> Tensor:
    n, m = queries.shape[-2], keys.shape[-2]
    seen = identities.counts(n, m, exclude, only, queries.device)
    total = (scaled(queries, scale) * identities.sums(keys, exclude, only)).sum(-1)
    return torch.where(seen > 0, total / seen.clamp(min=1), torch.zeros_like(total))  # a sum of none is rounding alone
