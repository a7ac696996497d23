"""A linear model on frozen embeddings: logistic regression for classes, ridge regression for values."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from counterpoint.errors import ComponentError, CounterpointError
from counterpoint.evaluate.bootstrap import scores
from counterpoint.evaluate.evaluator import Embeddings, Score
from counterpoint.evaluate.linear_models import Linear, choose_l2, inner_splits, logistic, ridge, standardise
from counterpoint.evaluate.rows import Rows, modalities, prefix, rows
from counterpoint.evaluate.statistics import agreement, auroc, fit_of


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
