"""Figures of predictions as functions of how often each query counts, for `bootstrap`.

Dimensions: n rows, C classes, R resamples.
"""

import torch
from torch import Tensor

from counterpoint.evaluate.bootstrap import Statistic


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
