"""The product of a softmax and values, or of its transpose, with memory linear in N + M.

Dimensions: N rows a, M rows b, R their width, D width of the values. Weights P = softmax over j of a_i . b_j are made for
some rows i at a time, and made again in the backward pass; nothing of N x M is held beyond that.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd import Function

from counterpoint.kernels.divided import is_divided, rows_by_parts, sums_by_parts
from counterpoint.kernels.identities import Rule, out_of
from counterpoint.kernels.reference import lowest
from counterpoint.kernels.tiled import refuse_second_derivative

CHUNK = 1024 * 1024  # weights that are held at a time


def softmax_product(a: Tensor, b: Tensor, values: Tensor, exclude: Rule | None) -> Tensor:
    """P values (N, D), for a (N, R), b (M, R) and values (M, D); exclude: a rule of keys that are out."""
    if is_divided(a, b, False) and len(a) * len(b) > CHUNK:
        return rows_by_parts(SoftmaxProduct.apply, a, b, values, exclude)
    return SoftmaxProduct.apply(a, b, values, exclude)


def turned_product(a: Tensor, b: Tensor, values: Tensor, exclude: Rule | None) -> Tensor:
    """P^T values (M, D), for a (N, R), b (M, R) and values (N, D); exclude: a rule of keys that are out."""
    if is_divided(a, b, False) and len(a) * len(b) > CHUNK:
        return sums_by_parts(TurnedProduct.apply, a, b, values, exclude)
    return TurnedProduct.apply(a, b, values, exclude)


def chunks(a: Tensor, b: Tensor, exclude: Rule | None) -> Iterator[tuple[slice, Tensor]]:
    """Some rows and their weights (n, M); a row all of whose keys are out has none."""
    size = max(1, CHUNK // max(1, len(b)))
    for start in range(0, len(a), size):
        rows = slice(start, start + size)
        logits = a[rows] @ b.T
        if exclude is None:
            yield rows, torch.softmax(logits, 1)
            continue
        out = out_of((exclude[0][rows], exclude[1]), None)
        yield rows, torch.softmax(logits.masked_fill_(out, lowest(logits)), 1).masked_fill_(out, 0.0)


class SoftmaxProduct(Function):
    """(a (N, R), b (M, R), values (M, D), rule of keys that are out) -> P values (N, D)."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor, values: Tensor, exclude: Rule | None) -> Tensor:
        product = values.new_empty(len(a), values.shape[1])
        for rows, weights in chunks(a, b, exclude):
            product[rows] = weights.to(values.dtype) @ values
        ctx.save_for_backward(a, b, values, product)
        ctx.exclude = exclude
        return product

    @staticmethod
    def backward(ctx, grad: Tensor):
        refuse_second_derivative()
        a, b, values, product = ctx.saved_tensors
        grads = [torch.zeros_like(t) for t in (a, b, values)]
        with torch.autocast(a.device.type, enabled=False):
            for rows, weights in chunks(a, b, ctx.exclude):
                own = grad[rows]
                grads[2] += weights.to(values.dtype).T @ own
                if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
                    slope = own @ values.T - (own * product[rows]).sum(1, keepdim=True)
                    _slopes(grads, a, b, rows, weights * slope.to(a.dtype))
        return *grads, None


class TurnedProduct(Function):
    """(a (N, R), b (M, R), values (N, D), rule of keys that are out) -> P^T values (M, D)."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor, values: Tensor, exclude: Rule | None) -> Tensor:
        product = values.new_zeros(len(b), values.shape[1])
        for rows, weights in chunks(a, b, exclude):
            product += weights.to(values.dtype).T @ values[rows]
        ctx.save_for_backward(a, b, values)
        ctx.exclude = exclude
        return product

    @staticmethod
    def backward(ctx, grad: Tensor):
        refuse_second_derivative()
        a, b, values = ctx.saved_tensors
        grads = [torch.zeros_like(t) for t in (a, b, values)]
        with torch.autocast(a.device.type, enabled=False):
            for rows, weights in chunks(a, b, ctx.exclude):
                grads[2][rows] = weights.to(values.dtype) @ grad
                if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
                    slope = values[rows] @ grad.T - (values[rows] * grads[2][rows]).sum(1, keepdim=True)
                    _slopes(grads, a, b, rows, weights * slope.to(a.dtype))
        return *grads, None


def _slopes(grads: list[Tensor], a: Tensor, b: Tensor, rows: slice, logits: Tensor) -> None:
    """Adds what the gradient of some rows' logits (n, M) is to a and b."""
    grads[0][rows] = logits @ b
    grads[1] += logits.T @ a[rows]
