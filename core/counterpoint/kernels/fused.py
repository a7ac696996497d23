"""The Triton form of the primitive, for CUDA: logits live in registers, memory is linear in N + M.

1. Forward: each program takes row blocks in turn and walks over all keys with running maxima. What a key's column has
   seen so far stands in a line of that program's own, (programs, M), so that no two programs write to one place.
   Of one set of rows with itself tiles below the diagonal are not made: a column's sum over those above is its row's.
2. Backward: the gradient of the queries and that of the keys are the same kernel with the roles exchanged; each makes
   the logits again. In the symmetric case one call gives the total.

No atomics: the same input gives the same bits. `TRITON_INTERPRET=1` runs the same kernels on a CPU.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd import Function

from counterpoint.kernels.identities import Rule
from counterpoint.kernels.reference import dense
from counterpoint.kernels.tiled import refuse_second_derivative

ROWS = KEYS = 64  # alike: of one set of rows with itself, a block of rows is one of keys
LOADED = 256  # bytes of a row that are loaded at once: more would not fit into every GPU's shared memory
WIDEST = 256  # numbers of a row that a program of the backward pass holds at once
LOG2E = tl.constexpr(1.4426950408889634)
WARPS = 8
PRECISION = {"highest": "ieee", "high": "tf32x3", "medium": "tf32"}  # of float32 products, as torch is set


@triton.jit
def _logits(a, b, rows, keys, n, m, width, row_x, key_x, row_o, key_o,
            EXCLUDE: tl.constexpr, ONLY: tl.constexpr, R: tl.constexpr, K: tl.constexpr, D: tl.constexpr,
            PRECISE: tl.constexpr):  # fmt: skip
    """(R, K) logits of `rows` and `keys`, -inf for what is out or not there."""
    here, there = rows < n, keys < m
    logits = tl.zeros((R, K), tl.float32)
    for start in range(0, width, D):
        columns = start + tl.arange(0, D)
        inside = columns < width
        q = tl.load(a + rows.to(tl.int64)[:, None] * width + columns[None], here[:, None] & inside[None], 0.0)
        k = tl.load(b + keys.to(tl.int64)[:, None] * width + columns[None], there[:, None] & inside[None], 0.0)
        logits = tl.dot(q, tl.trans(k), logits, input_precision=PRECISE)
    seen = here[:, None] & there[None]
    if EXCLUDE:
        seen &= tl.load(row_x + rows, here, 0)[:, None] != tl.load(key_x + keys, there, 0)[None]
    if ONLY:
        seen &= tl.load(row_o + rows, here, 0)[:, None] == tl.load(key_o + keys, there, 0)[None]
    return tl.where(seen, logits, float("-inf"))


@triton.jit
def _joined(top, total, logits, AXIS: tl.constexpr):
    """Running maximum and sum of exponentials along AXIS, with the logits of one more tile."""
    new = tl.maximum(top, tl.max(logits, AXIS))
    shift = tl.where(new == float("-inf"), 0.0, new)
    added = tl.sum(tl.exp2((logits - tl.expand_dims(shift, AXIS)) * LOG2E), AXIS)
    return new, total * tl.exp2((top - shift) * LOG2E) + added


@triton.jit
def _forward(a, b, row_x, key_x, row_o, key_o, lse, tops, totals, n, m, width,
             EXCLUDE: tl.constexpr, ONLY: tl.constexpr, COLUMNS: tl.constexpr, SELF: tl.constexpr,
             R: tl.constexpr, K: tl.constexpr, D: tl.constexpr, PRECISE: tl.constexpr):  # fmt: skip
    program, programs = tl.program_id(0), tl.num_programs(0)
    own = program.to(tl.int64) * m  # this program's line of column sums
    for block in range(program, tl.cdiv(n, R), programs):
        rows = block * R + tl.arange(0, R)
        top, total = tl.full((R,), float("-inf"), tl.float32), tl.zeros((R,), tl.float32)
        first = block * R if SELF else 0
        for start in range(first, m, K):
            keys = start + tl.arange(0, K)
            logits = _logits(a, b, rows, keys, n, m, width, row_x, key_x, row_o, key_o, EXCLUDE, ONLY, R, K, D, PRECISE)  # fmt: skip
            top, total = _joined(top, total, logits, 1)
            if COLUMNS:
                there = keys < m
                if SELF:  # the columns of the first tile are its rows
                    logits = tl.where(start > first, logits, float("-inf"))
                column_top = tl.load(tops + own + keys, there, float("-inf"))
                column_total = tl.load(totals + own + keys, there, 0.0)
                column_top, column_total = _joined(column_top, column_total, logits, 0)
                tl.store(tops + own + keys, column_top, there)
                tl.store(totals + own + keys, column_total, there)
        tl.store(lse + rows, top + tl.log2(total) / LOG2E, rows < n)


@triton.jit
def _backward(a, b, row_x, key_x, row_o, key_o, row_lse, row_weight, key_lse, key_weight, out, n, m, width,
              EXCLUDE: tl.constexpr, ONLY: tl.constexpr, BY_ROW: tl.constexpr, BY_KEY: tl.constexpr,
              R: tl.constexpr, K: tl.constexpr, D: tl.constexpr, WIDE: tl.constexpr, PRECISE: tl.constexpr):  # fmt: skip
    rows = tl.program_id(0) * R + tl.arange(0, R)
    columns = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    here, inside = rows < n, columns < width
    if BY_ROW:
        mine, weight = tl.load(row_lse + rows, here, 0.0), tl.load(row_weight + rows, here, 0.0)
    gradient = tl.zeros((R, WIDE), tl.float32)
    for start in range(0, m, K):
        keys = start + tl.arange(0, K)
        there = keys < m
        logits = _logits(a, b, rows, keys, n, m, width, row_x, key_x, row_o, key_o, EXCLUDE, ONLY, R, K, D, PRECISE)
        slopes = tl.zeros((R, K), tl.float32)
        if BY_ROW:
            slopes += weight[:, None] * tl.exp2((logits - mine[:, None]) * LOG2E)
        if BY_KEY:
            theirs, key_w = tl.load(key_lse + keys, there, 0.0), tl.load(key_weight + keys, there, 0.0)
            slopes += key_w[None] * tl.exp2((logits - theirs[None]) * LOG2E)
        k = tl.load(b + keys.to(tl.int64)[:, None] * width + columns[None], there[:, None] & inside[None], 0.0)
        gradient = tl.dot(slopes.to(k.dtype), k, gradient, input_precision=PRECISE)
    tl.store(out + rows.to(tl.int64)[:, None] * width + columns[None], gradient, here[:, None] & inside[None])


class Problem:
    """Queries (N, D) and keys (M, D) in the dtype of the products, and the two rules as the kernels take them."""

    def __init__(self, a: Tensor, b: Tensor, exclude: Rule | None, only: Rule | None):
        self.a, self.b = a.contiguous(), b.contiguous()
        self.exclude, self.only = ([ids.contiguous() for ids in rule] if rule else None for rule in (exclude, only))

    @property
    def T(self) -> Problem:
        return Problem(self.b, self.a, *(rule and (rule[1], rule[0]) for rule in (self.exclude, self.only)))

    def arguments(self) -> tuple[list[Tensor], list[int], dict]:
        nothing = [self.a, self.a]  # a pointer that is never read
        tensors = [self.a, self.b, *(self.exclude or nothing), *(self.only or nothing)]
        width = self.a.shape[1]
        shape = {"R": ROWS, "K": KEYS, "D": _power_of_2(width, LOADED // self.a.element_size())}
        precision = PRECISION[torch.get_float32_matmul_precision()]
        rules = {"EXCLUDE": self.exclude is not None, "ONLY": self.only is not None, "PRECISE": precision}
        return tensors, [len(self.a), len(self.b), width], shape | rules

    def log_sum_exps(self, columns: bool, own: bool = False) -> tuple[Tensor, Tensor | None]:
        """Row (N,) and column (M,) log-sum-exp in float32. own: of rows, those from a row's block on; of columns, those before."""
        n, m = len(self.a), len(self.b)
        programs = max(1, min(triton.cdiv(n, ROWS), 2 * _processors(self.a)))
        lse = self.a.new_empty(n, dtype=torch.float32)
        shape = (programs if columns else 0, m)
        tops, totals = (self.a.new_full(shape, value, dtype=torch.float32) for value in (-torch.inf, 0.0))
        tensors, sizes, constants = self.arguments()
        if n:
            what = {"COLUMNS": columns, "SELF": own}
            _forward[(programs,)](*tensors, lse, tops, totals, *sizes, num_warps=WARPS, **what, **constants)
        return lse, (_column_lse(tops, totals) if columns else None)

    def gradient(self, by_row: tuple[Tensor, Tensor] | None, by_key: tuple[Tensor, Tensor] | None) -> Tensor:
        """(N, D) float32, from (lse, gradient by that lse) of the rows and of the keys."""
        tensors, sizes, constants = self.arguments()
        n, _, width = sizes
        out = torch.empty_like(self.a, dtype=torch.float32)
        lines = [*(_weighed(by_row) or (out, out)), *(_weighed(by_key) or (out, out))]
        wide = _power_of_2(width, WIDEST)
        grid = (triton.cdiv(n, ROWS), triton.cdiv(width, wide))
        if n:
            _backward[grid](
                *tensors, *lines, out, *sizes,
                BY_ROW=by_row is not None, BY_KEY=by_key is not None, WIDE=wide, num_warps=WARPS, **constants,
            )  # fmt: skip
        return out


def _power_of_2(width: int, most: int) -> int:
    """The numbers of a row of `width` that a tile has."""
    return min(most, max(16, triton.next_power_of_2(width)))


def _processors(like: Tensor) -> int:
    return torch.cuda.get_device_properties(like.device).multi_processor_count if like.is_cuda else 2


def _column_lse(tops: Tensor, totals: Tensor) -> Tensor:
    """(M,) from the lines of the programs, joined in their order."""
    top = tops.amax(0)
    shift = top.masked_fill(top == -torch.inf, 0.0)
    return shift + (totals * torch.exp(tops - shift)).sum(0).log()


def _weighed(line: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor] | None:
    """Log-sum-exps without -inf: an empty line has no probability to weigh."""
    return line and (line[0].masked_fill(line[0] == -torch.inf, 0.0), line[1].contiguous())


class FusedSoftmax(Function):
    """(scaled (N, D), keys (M, D), dtype of the products) -> rows lse (N,), columns lse (M,) or None, in float32."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor, exclude: Rule | None, only: Rule | None, columns: bool, dtype: torch.dtype):
        ctx.set_materialize_grads(False)
        a, b, ctx.rules = a.to(dtype), b.to(dtype), (exclude, only)
        rows, cols = Problem(a, b, exclude, only).log_sum_exps(columns)
        ctx.save_for_backward(a, b, rows, cols)
        return rows, cols

    @staticmethod
    def backward(ctx, grad_rows: Tensor | None, grad_cols: Tensor | None):
        refuse_second_derivative()
        a, b, rows, cols = ctx.saved_tensors
        by_row = None if grad_rows is None else (rows, grad_rows)
        by_key = None if grad_cols is None else (cols, grad_cols)
        if by_row is None and by_key is None:
            return (None,) * 6
        problem = Problem(a, b, *ctx.rules)
        return problem.gradient(by_row, by_key), problem.T.gradient(by_key, by_row), None, None, None, None


class FusedSelfSoftmax(Function):
    """z (N, D) -> lse (N,) of the rows of z z^T, whose gradient by rows and by keys is one."""

    @staticmethod
    def forward(ctx, z: Tensor, exclude: Rule | None, only: Rule | None, dtype: torch.dtype):
        z, ctx.rules = z.to(dtype), (exclude, only)
        lse = torch.logaddexp(*Problem(z, z, exclude, only).log_sum_exps(True, own=True))
        ctx.save_for_backward(z, lse)
        return lse

    @staticmethod
    def backward(ctx, grad: Tensor):
        refuse_second_derivative()
        z, lse = ctx.saved_tensors
        return Problem(z, z, *ctx.rules).gradient((lse, grad), (lse, grad)), None, None, None


def check(device: str) -> None:
    """Compile the kernels for the largest tiles and compare them with the dense form once; RuntimeError where they differ."""
    random = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, WIDEST, generator=random).to(device).requires_grad_() for n in (70, 130))
    results = []
    for rows, columns in (FusedSoftmax.apply(a, b, None, None, True, a.dtype), dense(a, b, None, None, True)):
        results.append((rows, columns, *torch.autograd.grad(rows.sum() + columns.sum(), (a, b))))
    if not all(torch.allclose(ours, theirs, rtol=1e-2, atol=1e-2) for ours, theirs in zip(*results)):
        raise RuntimeError("the Triton kernels give other numbers than the dense form")
