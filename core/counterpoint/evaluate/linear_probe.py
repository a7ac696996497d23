"""A linear model on frozen embeddings: logistic regression for classes, ridge regression for values.

Dimensions: n rows, D width of an embedding, C outputs (classes, or 1 for a value), R resamples.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from counterpoint.errors import ComponentError, CounterpointError
from counterpoint.evaluate.bootstrap import Statistic, scores
from counterpoint.evaluate.evaluator import Embeddings, Score
from counterpoint.evaluate.rows import Rows, modalities, prefix, rows
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


class LinearProbe:
    """Accuracy of the best linear classifier, or R2 of the best linear regression, on frozen embeddings.

    Columns are standardised with the mean and deviation of the fit set. A label of classes: softmax regression, mean
    cross-entropy + l2 / 2 |W|^2, bias free, by L-BFGS in float64 (scikit-learn's LogisticRegression with
    C = 1 / (n l2)); accuracy, balanced accuracy, macro F1, and AUROC when there are two classes. A label of values: ridge
    regression, half the mean squared error + l2 / 2 |w|^2; R2 and mean absolute error. Rows without a known label are
    left out; a class that the fit set lacks counts as wrong.

    label     what to predict, by the name of the label or group
    modality  which to read; every one in turn when not named
    l2        strength of the penalty; chosen on held-out fifths of the fit set when not named (see `inner_splits`)
    max_iter  L-BFGS iterations at most
    on        representation `h` or contrasted embedding `z`
    cluster   group whose rows are not independent (patient): kept on one side of the inner splits, and the interval
              resamples whole groups
    """

    crosses = False

    def __init__(
        self,
        *,
        label: str,
        modality: str | None = None,
        l2: float | None = None,
        max_iter: int = 500,
        on: Literal["h", "z"] = "h",
        cluster: str | None = None,
    ):
        if l2 is not None and not l2 > 0:
            raise ComponentError(f"linear_probe: l2 must be above 0; got {l2}")
        if max_iter < 1:
            raise ComponentError(f"linear_probe: max_iter must be at least 1; got {max_iter}")
        self.label, self.modality, self.l2, self.max_iter = label, modality, l2, max_iter
        self.on, self.cluster = on, cluster

    def needs(self) -> set[str]:
        return {self.label} | ({self.cluster} if self.cluster else set())

    def __call__(self, fit: Embeddings | None, test: Embeddings) -> list[Score]:
        if fit is None:
            raise CounterpointError("linear_probe: expected a fit set to train on beside the test set; there is none")
        found, chosen = [], modalities("linear_probe", test, self.on, self.modality)
        for modality in chosen:
            modalities("linear_probe", fit, self.on, modality)  # the fit set must have it, too
            known = [rows("linear_probe", e, self.on, modality, self.label, self.cluster) for e in (fit, test)]
            score = self._regress if known[0].target.is_floating_point() else self._classify
            found += score(prefix(modality, chosen), *known)
        return found

    @torch.no_grad()
    def _classify(self, part: str, fit: Rows, test: Rows) -> list[Score]:
        seen = fit.target.unique()
        self._check_classes(len(fit), seen)
        classes = torch.cat([seen, test.target]).unique()
        y, truth = torch.searchsorted(seen, fit.target), torch.searchsorted(classes, test.target)
        x, queries = standardise(fit.x, test.x)
        model = self._fit(lambda x, y, l2, start: logistic(x, y, len(seen), l2, self.max_iter, start), x, y, fit)
        logits = model(queries)
        predicted = torch.searchsorted(classes, seen[logits.argmax(1)])
        names = [f"{part}{figure}" for figure in ("accuracy", "balanced_accuracy", "macro_f1")]
        found = scores(names, agreement(truth, predicted, len(classes)), test.cluster)
        if len(seen) == len(classes) == 2 and len(truth.unique()) == 2:
            found += scores([f"{part}auroc"], auroc(truth == 1, logits[:, 1] - logits[:, 0]), test.cluster)
        return found

    def _check_classes(self, count: int, seen: Tensor) -> None:
        if len(seen) < 2:
            raise CounterpointError(
                f"linear_probe: expected two classes of {self.label!r} or more to tell apart; "
                f"the {count} labelled rows of the fit set have one"
            )

    @torch.no_grad()
    def _regress(self, part: str, fit: Rows, test: Rows) -> list[Score]:
        if len(fit) < 2 or len(test) < 2:
            raise CounterpointError(
                f"linear_probe: expected two rows or more with a known {self.label!r}; got {len(fit)} to fit, {len(test)} to test"
            )
        x, queries = standardise(fit.x, test.x)
        model = self._fit(lambda x, y, l2, start: ridge(x, y, l2), x, fit.target.double(), fit)
        names = [f"{part}r2", f"{part}mae"]
        return scores(names, fit_of(test.target.double(), model(queries)[:, 0]), test.cluster, names[1:])

    def _fit(self, solve: Callable[..., Linear], x: Tensor, y: Tensor, fit: Rows) -> Linear:
        l2 = self.l2 if self.l2 is not None else choose_l2(solve, x, y, inner_splits(y, fit))
        return solve(x, y, l2, None)


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


def agreement(truth: Tensor, predicted: Tensor, classes: int) -> Statistic:
    """Accuracy, balanced accuracy (mean recall of the classes there are), macro F1 (of the classes there are or were said)."""
    truth, predicted = truth.cpu(), predicted.cpu()

    def statistic(weights: Tensor) -> Tensor:
        count = lambda member, w: w.new_zeros(len(w), classes).index_add_(1, member, w)  # noqa: E731
        there, said = count(truth, weights), count(predicted, weights)  # (R, C)
        hit = count(truth, weights * (truth == predicted))
        recall, f1 = (hit / there).nanmean(1), (2 * hit / (there + said)).nanmean(1)
        return torch.stack([hit.sum(1) / weights.sum(1), recall, f1], 1)

    return statistic


def auroc(positive: Tensor, score: Tensor) -> Statistic:
    """Area under the ROC curve: chance that a positive stands above a negative, half when they are level."""
    score, order = score.cpu().sort()
    positive = positive.cpu()[order].double()
    first, last = torch.searchsorted(score, score), torch.searchsorted(score, score, right=True)

    def statistic(weights: Tensor) -> Tensor:
        weights = weights[:, order]
        below = torch.nn.functional.pad((weights * (1 - positive)).cumsum(1), (1, 0))  # (R, n + 1): negatives before
        wins = (weights * positive * (below[:, first] + below[:, last]) / 2).sum(1)
        return (wins / ((weights @ positive) * (weights @ (1 - positive))))[:, None]

    return statistic


def fit_of(truth: Tensor, predicted: Tensor) -> Statistic:
    """R2 (1 - squared error over the squared deviation from the queries' own mean) and mean absolute error."""
    truth, predicted = truth.cpu(), predicted.cpu()
    error = truth - predicted

    def statistic(weights: Tensor) -> Tensor:
        total = weights.sum(1)
        deviation = (truth - (weights @ truth / total)[:, None]).square()  # (R, n)
        spread = (weights * deviation).sum(1)
        r2 = torch.where(spread > 0, 1 - weights @ error.square() / spread, torch.nan)
        return torch.stack([r2, weights @ error.abs() / total], 1)

    return statistic
