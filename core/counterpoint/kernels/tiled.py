"""The tiled form: row and column log-sum-exp with memory linear in N + M.

1. Forward: each tile of logits is made in one reused buffer and leaves only its row and column sums of exponentials.
2. Only the two log-sum-exps are kept.
3. Backward: the logits of each tile are made again, turned into probabilities times the incoming gradients, and
   multiplied with queries and keys.

While all |logits| stay under a bound, one exp a logit serves rows, columns and both passes; beyond it running maxima
take over. When queries and keys are one tensor the matrix is symmetric and the upper triangle is enough. Tiles are
visited in a fixed order without atomics: the same input gives the same bits.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import Function

from counterpoint.kernels.plan import Plan

BOUND = {torch.float32: 50.0, torch.float64: 300.0}  # exp(2 * bound) times a sum of many terms is still a number


class Buffers:
    """Reused room for the tiles of one pass: paging in fresh memory costs more than the arithmetic."""

    def __init__(self, like: Tensor, plan: Plan):
        rows, keys = (max((s.stop - s.start for s in part), default=0) for part in (plan.rows, plan.keys))
        self.like, self.size, self.room = like, rows * keys, {}

    def get(self, name: str, rows: int, keys: int) -> Tensor:
        if name not in self.room:
            self.room[name] = self.like.new_empty(self.size)
        return self.room[name][: rows * keys].view(rows, keys)

    def logits(self, a: Tensor, b: Tensor, out: Tensor | None) -> Tensor:
        """(rows, keys): a (rows, D) times b (keys, D), -inf where a key is out."""
        tile = torch.mm(a, b.T, out=self.get("logits", len(a), len(b)))
        return tile if out is None else tile.masked_fill_(out, -torch.inf)


class Line:
    """Sums of exponentials along rows or columns: bare while logits are bounded, else relative to running maxima."""

    def __init__(self, n: int, like: Tensor, bounded: bool):
        self.sum = like.new_zeros(n)
        self.top = None if bounded else like.new_full((n,), -torch.inf)

    def add_exponentials(self, part: slice, exponentials: Tensor, dim: int) -> None:
        self.sum[part] += exponentials.sum(dim)

    def add_logits(self, part: slice, tile: Tensor, dim: int, room: Tensor) -> None:
        top = torch.maximum(self.top[part], tile.amax(dim))
        shift = top.masked_fill(top == -torch.inf, 0.0)
        added = torch.sub(tile, shift.unsqueeze(dim), out=room).exp_().sum(dim)
        self.sum[part] = self.sum[part] * torch.exp(self.top[part] - shift) + added
        self.top[part] = top

    def log(self) -> Tensor:
        return self.sum.log() if self.top is None else self.top + self.sum.log()


def is_bounded(a: Tensor, b: Tensor) -> bool:
    """Whether no logit can leave the range in which exponentials need no maximum."""
    if not len(a) or not len(b):
        return True
    largest = torch.linalg.vector_norm(a, dim=1).max() * torch.linalg.vector_norm(b, dim=1).max()
    return bool(largest <= BOUND[a.dtype])


def sweep(a: Tensor, b: Tensor, plan: Plan, columns: bool, bounded: bool) -> tuple[Tensor, Tensor | None]:
    """Log-sum-exp (N,) of the rows and (M,) of the columns."""
    rows = Line(len(a), a, bounded)
    cols = rows if plan.symmetric else Line(len(b), a, bounded) if columns else None
    buffers = Buffers(a, plan)
    for r, k, out in plan:
        tile = buffers.logits(a[r], b[k], out)
        twice = cols is not None and not (plan.symmetric and r == k)  # a diagonal tile holds both halves already
        if bounded:
            tile.exp_()
            rows.add_exponentials(r, tile, 1)
            if twice:
                cols.add_exponentials(k, tile, 0)
        else:
            room = buffers.get("room", *tile.shape)
            rows.add_logits(r, tile, 1, room)
            if twice:
                cols.add_logits(k, tile, 0, room)
    return rows.log(), cols.log() if cols is not None else None


class Slopes:
    """Gradient of the loss by each logit of a tile, from the gradients by row and column log-sum-exp."""

    def __init__(self, rows: tuple[Tensor, Tensor], cols: tuple[Tensor, Tensor] | None, bounded: bool):
        self.bounded = bounded
        self.rows = self._weights(*rows)
        self.cols = None if cols is None else self._weights(*cols)

    def _weights(self, lse: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        lse = lse.masked_fill(lse == -torch.inf, 0.0)  # an empty line has no probability to weigh
        return lse, grad * torch.exp(-lse) if self.bounded else grad

    def tile(self, logits: Tensor, r: slice, k: slice, buffers: Buffers) -> Tensor:
        room = buffers.get("room", *logits.shape)
        if self.bounded:
            return self._bounded(logits.exp_(), r, k, room)
        left = torch.sub(logits, self.rows[0][r, None], out=room).exp_().mul_(self.rows[1][r, None])
        if self.cols is None:
            return left
        return logits.sub_(self.cols[0][None, k]).exp_().mul_(self.cols[1][None, k]).add_(left)

    def _bounded(self, exponentials: Tensor, r: slice, k: slice, room: Tensor) -> Tensor:
        if self.cols is None:
            return exponentials.mul_(self.rows[1][r, None])
        return exponentials.mul_(torch.add(self.rows[1][r, None], self.cols[1][None, k], out=room))


def unsweep(a: Tensor, b: Tensor, plan: Plan, slopes: Slopes) -> tuple[Tensor, Tensor]:
    """Gradients (N, D) and (M, D); in the symmetric case both are the one total gradient."""
    da = torch.zeros_like(a)
    db = da if plan.symmetric else torch.zeros_like(b)
    buffers = Buffers(a, plan)
    for r, k, out in plan:
        tile = slopes.tile(buffers.logits(a[r], b[k], out), r, k, buffers)
        da[r].addmm_(tile, b[k])
        if not (plan.symmetric and r == k):
            db[k].addmm_(tile.T, a[r])
    return da, db


def refuse_second_derivative() -> None:
    if torch.is_grad_enabled():
        raise RuntimeError(
            "the contrastive kernel has a first derivative only (create_graph=True was asked for); "
            "call softmax_stats(..., tiled=False) for second derivatives"
        )


class TiledSoftmax(Function):
    """(scaled (N, D), keys (M, D)) -> rows lse (N,), columns lse (M,) or None."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor, plan: Plan, columns: bool):
        ctx.set_materialize_grads(False)
        ctx.plan, ctx.bounded = plan, is_bounded(a, b)
        with torch.autocast(a.device.type, enabled=False):
            rows, cols = sweep(a, b, plan, columns, ctx.bounded)
        ctx.save_for_backward(a, b, rows, cols)
        return rows, cols

    @staticmethod
    def backward(ctx, grad_rows: Tensor | None, grad_cols: Tensor | None):
        refuse_second_derivative()
        a, b, rows, cols = ctx.saved_tensors
        grad_rows = torch.zeros_like(rows) if grad_rows is None else grad_rows
        with torch.autocast(a.device.type, enabled=False):
            slopes = Slopes((rows, grad_rows), None if grad_cols is None else (cols, grad_cols), ctx.bounded)
            return *unsweep(a, b, ctx.plan, slopes), None, None


class TiledSelfSoftmax(Function):
    """z (N, D) -> lse (N,) of the rows of z z^T."""

    @staticmethod
    def forward(ctx, z: Tensor, plan: Plan):
        ctx.plan, ctx.bounded = plan, is_bounded(z, z)
        with torch.autocast(z.device.type, enabled=False):
            lse, _ = sweep(z, z, plan, False, ctx.bounded)
        ctx.save_for_backward(z, lse)
        return lse

    @staticmethod
    def backward(ctx, grad: Tensor):
        refuse_second_derivative()
        z, lse = ctx.saved_tensors
        with torch.autocast(z.device.type, enabled=False):
            slopes = Slopes((lse, grad), (lse, grad), ctx.bounded)
            return unsweep(z, z, ctx.plan, slopes)[0], None
