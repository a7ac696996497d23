"""Linear models of embeddings, and the strength of their penalty chosen on held-out parts of the fit set.

Dimensions: n rows, D width of an embedding, C outputs (classes, or 1 for a value).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from counterpoint.evaluate.rows import Rows
from counterpoint.randomness import splitmix64

GRID = (10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)  # strengths that are tried when none is named
FOLDS = 5
ENOUGH = 1000  # held-out rows after which the choice is no longer noisy


class Linear(NamedTuple):
    """Weight (D, C) and bias (C,), float64."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


def standardise(fit: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float64 with the columns of `fit` at mean 0 and deviation 1; a constant column becomes 0.

    With more columns than rows in `fit`, both are rotated into the span of its rows: the penalised model is the same.
    """
    fit, test = fit.double(), test.double()
    mean, deviation = fit.mean(0), fit.std(0, correction=0)
    varies = deviation > 1e-7 * mean.abs()  # less is beyond what float32 resolves
    scale = torch.where(varies, 1 / deviation, 0.0)
    fit, test = (fit - mean) * scale, (test - mean) * scale
    if fit.shape[1] > fit.shape[0]:
        basis = torch.linalg.qr(fit.T).Q  # (D, n)
        fit, test = fit @ basis, test @ basis
    return fit, test


def logistic(x: Tensor, y: Tensor, classes: int, l2: float, max_iter: int, start: Linear | None = None) -> Linear:
    """The minimum of mean cross-entropy + l2 / 2 |W|^2 over softmax models of `x` (n, D), `y` int64 (n,)."""
    model = (
        Linear(x.new_zeros(x.shape[1], classes), x.new_zeros(classes))
        if start is None
        else Linear(*map(torch.clone, start))
    )
    target = one_hot(y, classes).to(x)  # (n, C)
    optimizer = torch.optim.LBFGS(
        list(model),
        max_iter=max_iter,
        tolerance_grad=1e-7,
        tolerance_change=1e-12,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        with torch.no_grad():
            logits = model(x)
            slope = (logits.softmax(1) - target) / len(x)  # (n, C)
            model.weight.grad, model.bias.grad = x.T @ slope + l2 * model.weight, slope.sum(0)
            return cross_entropy(logits, y) + l2 / 2 * model.weight.square().sum()

    optimizer.step(closure)
    return model


def ridge(x: Tensor, y: Tensor, l2: float) -> Linear:
    """The minimum of half the mean squared error + l2 / 2 |w|^2 over linear models of `x` (n, D), `y` (n,)."""
    centre, mean = x.mean(0), y.mean()
    inner = x - centre
    gram = inner.T @ inner / len(x) + l2 * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    weight = torch.linalg.solve(gram, inner.T @ (y - mean) / len(x))
    return Linear(weight[:, None], (mean - centre @ weight)[None])


def inner_splits(y: Tensor, fit: Rows) -> list[tuple[Tensor, Tensor]]:
    """Splits of the fit set on which the penalty is chosen: rows to train on and rows held out, bool (n,) each.

    Five folds of whole clusters, dealt out in the order of (class, a hash of the cluster): each class in its share,
    whatever the order of the rows. A held-out row whose class is not among the others says nothing of the penalty and is
    dropped; where none is left (a cluster has its class to itself), samples are dealt out instead, then rows. Once
    ENOUGH rows have been held out, further folds only cost time.
    """
    for unit in (fit.cluster, fit.index, torch.arange(len(y), device=y.device)):
        splits, count = [], 0
        fold = _deal(y, unit)
        for nth in range(FOLDS):
            train, held = fold != nth, fold == nth
            held &= torch.ones_like(held) if y.is_floating_point() else torch.isin(y, y[train])
            if held.any() and train.any() and count < ENOUGH:
                splits.append((train, held))
                count += int(held.sum())
        if splits:
            break
    return splits


def _deal(y: Tensor, unit: Tensor) -> Tensor:
    """int64 (n,): the fold of every row; a unit stands where its smallest class or value stands."""
    units, member = unit.unique(return_inverse=True)
    lead = torch.full((len(units),), y.max(), dtype=y.dtype, device=y.device).scatter_reduce_(0, member, y, "amin")
    order = torch.argsort(splitmix64(units), stable=True)
    order = order[torch.argsort(lead[order], stable=True)]
    fold = torch.empty_like(order)
    fold[order] = torch.arange(len(order), device=y.device) % FOLDS
    return fold[member]


def choose_l2(solve: Callable[..., Linear], x: Tensor, y: Tensor, splits: list[tuple[Tensor, Tensor]]) -> float:
    """The strength of GRID with the least loss on held-out rows; its middle when nothing could be held out."""
    if not splits:
        return GRID[len(GRID) // 2]
    losses = [0.0] * len(GRID)
    for train, held in splits:
        model = None
        for i, l2 in enumerate(GRID):  # each starts from its stronger neighbour
            model = solve(x[train], y[train], l2, model)
            losses[i] += _loss(model(x[held]), y[held])
    return GRID[losses.index(min(losses))]


def _loss(output: Tensor, y: Tensor) -> float:
    if y.is_floating_point():
        return float((output[:, 0] - y).square().sum())
    return float(cross_entropy(output, y, reduction="sum"))
