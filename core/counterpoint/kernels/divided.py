"""The work of one contrast divided among ranks, all of which hold the same queries and keys, as the loop's gather leaves them.

1. Each rank takes its part of the queries, and all keys: the logits of N / ranks rows, tile by tile.
2. Row log-sum-exps are gathered; those of the columns, of which each rank has seen a part, are joined.
3. In the backward pass the gradients of the parts are added up, so that every rank has the gradient of the whole.

Value and gradients are those of the undivided form, on every rank, to rounding. What travels is linear in N + M.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function

from counterpoint.kernels.identities import Rule

ON_GPU = 1 << 28  # logits from which dividing them is thought to pay there: adding up gradients takes time, too

_ranks: ContextVar[int] = ContextVar("ranks", default=1)


@contextmanager
def divided(ranks: int) -> Iterator[None]:
    """Within it, all of the `ranks` call each large contrast, with the same queries and keys."""
    token = _ranks.set(ranks)
    try:
        yield
    finally:
        _ranks.reset(token)


def is_divided(queries: Tensor, keys: Tensor, symmetric: bool) -> bool:
    """Whether a part of the rows is less work than the whole: of a symmetric matrix one rank needs half the tiles alone."""
    return _ranks.get() > 1 + symmetric and (not queries.is_cuda or len(queries) * len(keys) >= ON_GPU)


def by_parts(
    form: Callable, a: Tensor, b: Tensor, exclude: Rule | None, only: Rule | None, columns: bool
) -> tuple[Tensor, Tensor | None]:
    """`form(a, b, exclude, only, columns)`: log-sum-exp (N,) of the rows and (M,) of the columns, of which each rank makes a part."""
    own = _part(len(a))
    rows, cols = form(_Own.apply(a, own), _Whole.apply(b), _of(exclude, own), _of(only, own), columns)
    return _Rows.apply(rows, len(a), own), _Columns.apply(cols) if columns else None


def rows_by_parts(form: Callable, a: Tensor, b: Tensor, shared: Tensor, exclude: Rule | None) -> Tensor:
    """`form(a, b, shared, exclude)`: (N, ...), one for each row, of which each rank makes a part; `shared` is every row's."""
    own = _part(len(a))
    return _Rows.apply(form(_Own.apply(a, own), _Whole.apply(b), _Whole.apply(shared), _of(exclude, own)), len(a), own)


def sums_by_parts(form: Callable, a: Tensor, b: Tensor, values: Tensor, exclude: Rule | None) -> Tensor:
    """`form(a, b, values, exclude)`: a sum over the rows, which have a value (N, ...) each; each rank adds up a part."""
    own = _part(len(a))
    return _Sum.apply(form(_Own.apply(a, own), _Whole.apply(b), _Own.apply(values, own), _of(exclude, own)))


def _part(n: int) -> slice:
    """Of n rows those of this rank."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    return slice(n * rank // ranks, n * (rank + 1) // ranks)


def _of(rule: Rule | None, own: slice) -> Rule | None:
    return rule and (rule[0][own], rule[1])


def _added(gradient: Tensor) -> Tensor:
    dist.all_reduce(gradient)
    return gradient


class _Own(Function):
    """Rows (N, ...) -> those of this rank; their gradients become those of all ranks."""

    @staticmethod
    def forward(ctx, a: Tensor, own: slice) -> Tensor:
        ctx.shape, ctx.own = a.shape, own
        return a[own]

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        whole = gradient.new_zeros(ctx.shape)
        whole[ctx.own] = gradient
        return _added(whole), None


class _Whole(Function):
    """Keys (M, D), or what all rows share, as they are; the gradient of a part of the queries becomes that of all."""

    @staticmethod
    def forward(ctx, b: Tensor) -> Tensor:
        return b.view_as(b)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return _added(gradient.clone(memory_format=torch.contiguous_format))


class _Rows(Function):
    """What this rank's rows have -> (N, ...) of all, in order."""

    @staticmethod
    def forward(ctx, rows: Tensor, n: int, own: slice) -> Tensor:
        ctx.own = own
        whole = rows.new_zeros(n, *rows.shape[1:])
        whole[own] = rows
        return _added(whole)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient[ctx.own], None, None


class _Sum(Function):
    """A part of a sum -> the sum; its gradient is the same on every rank."""

    @staticmethod
    def forward(ctx, part: Tensor) -> Tensor:
        return _added(part.clone(memory_format=torch.contiguous_format))

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient


class _Columns(Function):
    """(M,) log-sum-exps over a part of the rows -> (M,) over all."""

    @staticmethod
    def forward(ctx, part: Tensor) -> Tensor:
        parts = [torch.empty_like(part) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, part.contiguous())
        whole = torch.stack(parts).logsumexp(0)
        ctx.save_for_backward(torch.exp(part - whole.masked_fill(whole == -torch.inf, 0.0)))
        return whole

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        (share,) = ctx.saved_tensors
        return gradient * share
