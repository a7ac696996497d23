"""The 95 % interval of a score, by resampling the queries.

Dimensions: n rows (queries), R resamples, M figures.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from counterpoint.evaluate.evaluator import Score

Statistic = Callable[[Tensor], Tensor]  # weights of the queries, float64 (R, n) -> figures (R, M)


def resamples(cluster: Tensor, times: int = 1000, seed: int = 0, chunk: int = 1 << 22) -> Iterator[Tensor]:
    """How often each row is drawn in each resample of whole clusters: float64 (R, n), a few resamples at a time.

    The draw hangs on the sorted cluster numbers, so the order of the rows does not change an interval, and two encoders
    scored on the same queries see the same resamples.
    """
    units, member = np.unique(cluster.cpu().numpy(), return_inverse=True)
    generator, count = np.random.default_rng(seed), len(units)
    step = max(1, chunk // len(member))
    for start in range(0, times, step):
        many = min(step, times - start)
        drawn = generator.integers(0, count, (many, count)) + np.arange(many)[:, None] * count
        weights = np.bincount(drawn.ravel(), minlength=many * count).reshape(many, count)
        yield torch.from_numpy(weights[:, member]).double()  # (R, n)


def interval(statistic: Statistic, cluster: Tensor, times: int = 1000, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Lower and upper ends (M,) of the 95 % percentile bootstrap interval (Efron, 1981) of every figure.

    Whole clusters are drawn with replacement (the cluster bootstrap of Davison and Hinkley, 1997, section 3.8). A
    resample in which a figure is undefined is left out of it; with fewer than two clusters the ends are NaN.
    """
    if len(cluster.unique()) < 2:
        nothing = torch.full_like(statistic(torch.ones(1, len(cluster), dtype=torch.float64))[0], torch.nan)
        return nothing, nothing
    figures = torch.cat([statistic(weights) for weights in resamples(cluster, times, seed)])  # (times, M)
    low, high = torch.nanquantile(figures, figures.new_tensor([0.025, 0.975]), dim=0)
    return low, high


def means(values: Tensor) -> Statistic:
    """The statistic that is the mean over the queries of each column of `values` (n, M)."""
    values = values.double().cpu()
    return lambda weights: (weights @ values) / weights.sum(1, keepdim=True)


def scores(
    names: Sequence[str], statistic: Statistic, cluster: Tensor, lower_is_better: Sequence[str] = ()
) -> list[Score]:
    """One Score for each of the M figures of `statistic`, all from the same resamples."""
    value = statistic(torch.ones(1, len(cluster), dtype=torch.float64))[0].tolist()
    low, high = (end.tolist() for end in interval(statistic, cluster))
    return [
        Score(name, v, a, b, len(cluster), name not in lower_is_better)
        for name, v, a, b in zip(names, value, low, high)
    ]
