"""Where every score of embeddings starts and ends: the rows that are queried, and the 95 % interval over them.

Dimensions: n rows (queries), R resamples, M figures.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from counterpoint.errors import CounterpointError, suggest
from counterpoint.evaluate.evaluator import Embeddings, Score

Statistic = Callable[[Tensor], Tensor]  # weights of the queries, float64 (R, n) -> figures (R, M)


@dataclass(frozen=True)
class Rows:
    """The rows of one modality that an evaluator reads.

    x (n, D); index int64 (n,): the sample of each row; target (n,): class, identity or value, known in every row;
    cluster int64 (n,): rows that are not independent of each other share a number
    """

    x: Tensor
    index: Tensor
    target: Tensor
    cluster: Tensor

    def __len__(self) -> int:
        return len(self.x)


def modalities(who: str, embeddings: Embeddings, on: Literal["h", "z"], modality: str | None = None) -> list[str]:
    """The modality asked for, or all there are; CounterpointError when it is not there."""
    there = list(getattr(embeddings, on))
    if modality is None and there:
        return there
    if modality in there:
        return [modality]
    raise CounterpointError(f"{who}: there is no {on!r} of modality {modality!r}{suggest(str(modality), there)}")


def prefix(modality: str, among: Sequence[str]) -> str:
    """What a score's name begins with: the modality where several are scored, else nothing."""
    return f"{modality}/" if len(among) > 1 else ""


def rows(
    who: str, embeddings: Embeddings, on: Literal["h", "z"], modality: str, target: str, cluster: str | None = None
) -> Rows:
    """The rows of `modality` whose `target` (a label, a group, or "index") is known.

    The rows of one sample are one cluster; `cluster` names a group (patient) whose rows are one cluster, too. A row of
    an unknown group shares it with its own sample alone. CounterpointError when no row is left or one is not finite.
    """
    x, index = getattr(embeddings, on)[modality], embeddings.index[modality]
    wanted = index if target == "index" else embeddings.column(target, modality)
    units = index if cluster is None else identities(embeddings, cluster, modality)
    known = ~wanted.isnan() if wanted.is_floating_point() else wanted >= 0
    if not known.any():
        raise CounterpointError(
            f"{who}: expected rows of modality {modality!r} with a known {target!r}; there are none among {len(x)} rows"
        )
    check_finite(who, on, modality, x[known])
    return Rows(x[known], index[known], wanted[known], units[known])


def identities(embeddings: Embeddings, group: str, modality: str) -> Tensor:
    """int64 (n,): the group of every row; an unknown one is replaced by a number that only its own sample has."""
    index, ids = embeddings.index[modality], embeddings.column(group, modality)
    if ids.is_floating_point():
        raise CounterpointError(f"{group!r} is a continuous value; expected a group, such as a patient")
    return torch.where(ids < 0, -2 - index, ids.long())


def check_finite(who: str, on: str, modality: str, x: Tensor) -> None:
    """CounterpointError when there is no row, or one holds NaN or infinity."""
    if len(x) == 0:
        raise CounterpointError(f"{who}: expected embeddings {on!r} of modality {modality!r}; there is no row")
    broken = int((~x.isfinite().all(dim=-1)).sum())
    if broken:
        raise CounterpointError(f"{who}: {broken} of {len(x)} rows of {on!r} of modality {modality!r} are not finite")


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
