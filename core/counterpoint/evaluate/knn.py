"""Weighted k-nearest neighbours on frozen embeddings.

Dimensions: N queries, M rows of the bank, D width, C classes.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from counterpoint.errors import ComponentError, CounterpointError
from counterpoint.evaluate.bootstrap import means, scores
from counterpoint.evaluate.evaluator import Embeddings, Score
from counterpoint.evaluate.rows import Rows, identities, modalities, prefix, rows

Metric = Literal["cosine", "euclidean"]


class KNN:
    """Accuracy of a weighted k-nearest-neighbour vote (Wu et al., CVPR 2018, section 3.4).

    The k nearest rows of the fit set vote for their class with weight exp(s / temperature), s the cosine similarity; an
    infinite temperature makes the votes equal. With `metric: euclidean`, s is minus half the squared distance: on unit
    vectors the same vote. A smaller bank than k votes whole. Rows without a known label neither vote nor are counted; a
    class that the fit set lacks counts as wrong. Without a fit set every row is classified by the other samples.

    label     classes or identities to tell apart, by the name of the label or group
    modality  which to read; every one in turn when not named
    on        representation `h` or contrasted embedding `z`
    cluster   group whose rows are not independent (patient): the interval resamples whole groups
    """

    crosses = False

    def __init__(
        self,
        *,
        label: str,
        k: int = 20,
        temperature: float = 0.07,
        modality: str | None = None,
        metric: Metric = "cosine",
        on: Literal["h", "z"] = "h",
        cluster: str | None = None,
    ):
        if k < 1:
            raise ComponentError(f"knn: k is a number of neighbours, at least 1; got {k}")
        if not temperature > 0:
            raise ComponentError(f"knn: temperature must be above 0; got {temperature}")
        if metric not in ("cosine", "euclidean"):
            raise ComponentError(f"knn: metric must be cosine or euclidean; got {metric!r}")
        self.label, self.k, self.temperature, self.modality = label, k, temperature, modality
        self.metric, self.on, self.cluster = metric, on, cluster

    def needs(self) -> set[str]:
        return {self.label} | ({self.cluster} if self.cluster else set())

    def __call__(self, fit: Embeddings | None, test: Embeddings) -> list[Score]:
        if fit is None or fit is test:
            return self.leave_one_out(test)
        found, chosen = [], modalities("knn", test, self.on, self.modality)
        for modality in chosen:
            modalities("knn", fit, self.on, modality)  # the fit set must have it, too
            bank, queries = self._classes(fit, modality), self._classes(test, modality)
            found += self._score(prefix(modality, chosen), queries, self._predict(queries, bank))
        return found

    def leave_one_out(self, embeddings: Embeddings, exclude: str = "index") -> list[Score]:
        """Each row classified by the others.

        exclude  which rows do not vote: "row" (the row itself), "index" (every row of its sample), or the name of a
                 group, such as the patient. A row for which nothing is left to vote is not counted.
        """
        found, chosen = [], modalities("knn", embeddings, self.on, self.modality)
        for modality in chosen:
            bank = self._classes(embeddings, modality)
            apart = self._apart(embeddings, modality, exclude)
            found += self._score(prefix(modality, chosen), bank, self._predict(bank, bank, apart))
        return found

    def _classes(self, embeddings: Embeddings, modality: str) -> Rows:
        found = rows("knn", embeddings, self.on, modality, self.label, self.cluster)
        if found.target.is_floating_point():
            raise CounterpointError(
                f"knn: label {self.label!r} is a continuous value; expected classes; use linear_probe for it"
            )
        return found

    def _apart(self, embeddings: Embeddings, modality: str, exclude: str) -> Tensor:
        known = embeddings.column(self.label, modality) >= 0
        if exclude == "row":
            return torch.arange(int(known.sum()), device=known.device)
        return (embeddings.index[modality] if exclude == "index" else identities(embeddings, exclude, modality))[known]

    def _predict(self, queries: Rows, bank: Rows, apart: Tensor | None = None) -> Tensor:
        if len(bank.target.unique()) < 2:
            raise CounterpointError(
                f"knn: expected two classes of {self.label!r} or more to tell apart; "
                f"the {len(bank)} labelled rows to vote have one"
            )
        return vote(
            queries.x,
            bank.x,
            bank.target,
            self.k,
            self.temperature,
            self.metric,
            None if apart is None else (apart, apart),
        )

    def _score(self, part: str, queries: Rows, predicted: Tensor) -> list[Score]:
        counted = predicted >= 0
        if not counted.any():
            raise CounterpointError(f"knn: none of the {len(queries)} rows has a row of another sample to vote for it")
        correct = (predicted == queries.target)[counted]
        return scores([f"{part}accuracy"], means(correct[:, None]), queries.cluster[counted])


@torch.no_grad()
def vote(
    queries: Tensor,
    bank: Tensor,
    labels: Tensor,
    k: int,
    temperature: float,
    metric: Metric = "cosine",
    apart: tuple[Tensor, Tensor] | None = None,
    chunk: int = 1 << 24,
) -> Tensor:
    """int64 (N,): the class that the k nearest rows of `bank` (M, D) vote for, for every row of `queries` (N, D).

    Pairs with equal numbers in `apart`, int64 (N,) and (M,), do not see each other; -1 where nobody votes. Equal votes
    go to the smaller class. At most `chunk` similarities are held at a time.
    """
    classes, member = labels.unique(return_inverse=True)
    queries, bank, offset = _prepared(queries, bank, metric)
    predicted = []
    for part in torch.arange(len(queries), device=bank.device).split(max(1, chunk // len(bank))):
        similarity = queries[part] @ bank.T - offset  # (chunk, M)
        if apart is not None:
            similarity.masked_fill_(apart[0][part, None] == apart[1], -torch.inf)
        nearest, which = similarity.topk(min(k, len(bank)), dim=1)  # (chunk, k)
        weight = torch.exp((nearest - nearest[:, :1]) / temperature)  # a factor common to all votes changes nothing
        weight = weight.where(nearest.isfinite(), 0.0)
        votes = weight.new_zeros(len(part), len(classes)).scatter_add_(1, member[which], weight)  # (chunk, C)
        predicted.append(torch.where(nearest[:, 0].isfinite(), classes[votes.argmax(1)], -1))
    return torch.cat(predicted)


def _prepared(queries: Tensor, bank: Tensor, metric: Metric) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, bank and offset such that queries @ bank.T - offset is the similarity, up to a constant a query."""
    if metric == "cosine":
        return normalize(queries, dim=-1), normalize(bank, dim=-1), bank.new_zeros(())
    queries, bank = queries.double(), bank.double()  # the difference of two large squares
    centre = bank.mean(0)
    queries, bank = queries - centre, bank - centre
    return queries, bank, bank.square().sum(-1) / 2
