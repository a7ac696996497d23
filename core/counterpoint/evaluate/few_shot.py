"""Few-shot episodes on frozen embeddings: N classes, K labelled rows of each, and the nearest prototype.

Dimensions: E episodes, N ways (classes), K shots, Q queries of a class, D width, U units (independent samples).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from counterpoint.errors import ComponentError, CounterpointError
from counterpoint.evaluate.bootstrap import means, scores
from counterpoint.evaluate.evaluator import Embeddings, Score
from counterpoint.evaluate.rows import Rows, modalities, prefix, rows
from counterpoint.randomness import key, splitmix64

HELD = 1 << 24  # numbers of the rows of some episodes that are held at a time


class FewShot:
    """Accuracy of the nearest prototype over N-way K-shot episodes (Snell, Swersky and Zemel, 2017, section 2).

    An episode draws N classes, and K + Q samples of each: a class's prototype is the mean of its K support rows, a query is
    of the class whose prototype is nearest. Rows are L2-normalised first, distances are squared Euclidean (SimpleShot's L2N,
    Wang et al., 2019). Episodes are a function of `seed` and of the samples' numbers alone, so that every representation
    is asked the same questions; the score is the mean over episodes, its interval resamples them, and its n is E. Only the test split
    is looked at: its classes may be new. Of the rows of one sample, one is drawn from.

    label      classes, by the name of the label or group
    ways, shots, queries, episodes  N, K, Q and E; a class with fewer than K + Q samples is left out
    transport  move the prototypes to the queries of the episode first, all at once (`transported`): transductive
    modality   which to read; every one in turn when not named
    on         representation `h` or contrasted embedding `z`
    cluster    group whose rows are not independent (patient): of its rows in one class, one is drawn from
    """

    crosses = False
    fits = False

    def __init__(
        self,
        *,
        label: str,
        ways: int = 5,
        shots: int = 1,
        queries: int = 15,
        episodes: int = 1000,
        transport: bool = False,
        modality: str | None = None,
        on: Literal["h", "z"] = "h",
        cluster: str | None = None,
        seed: int = 0,
    ):
        if ways < 2 or min(shots, queries, episodes) < 1:
            raise ComponentError(
                "few_shot: ways is at least 2; shots, queries and episodes at least 1; got "
                f"{ways}, {shots}, {queries}, {episodes}"
            )
        self.label, self.ways, self.shots, self.queries, self.episodes = label, ways, shots, queries, episodes
        self.transport, self.modality, self.on, self.cluster, self.seed = transport, modality, on, cluster, seed

    def needs(self) -> set[str]:
        return {self.label} | ({self.cluster} if self.cluster else set())

    @torch.no_grad()
    def __call__(self, fit: Embeddings | None, test: Embeddings) -> list[Score]:
        found, chosen = [], modalities("few_shot", test, self.on, self.modality)
        for modality in chosen:
            units = one_each(rows("few_shot", test, self.on, modality, self.label, self.cluster))
            right = self._accuracies(normalize(units.x.double(), dim=-1), units, self._members(units))
            name = f"{prefix(modality, chosen)}{self.ways}-way {self.shots}-shot accuracy"
            found += scores([name], means(right[:, None]), torch.arange(self.episodes))
        return found

    def _members(self, units: Rows) -> Tensor:
        """int64 (C, most): the places of the units of each class that has enough, -1 where there are no more."""
        if units.target.is_floating_point():
            raise CounterpointError(f"few_shot: label {self.label!r} is a continuous value; expected classes")
        wanted = self.shots + self.queries
        classes, counts = units.target.unique(return_counts=True)
        if len(enough := classes[counts >= wanted]) < self.ways:
            raise CounterpointError(
                f"few_shot: expected {self.ways} classes of {self.label!r} with {wanted} samples (shots + queries) or more; "
                f"there are {len(enough)}, of {len(classes)} classes"
            )
        lists = [(units.target == c).nonzero()[:, 0] for c in enough]
        return torch.nn.utils.rnn.pad_sequence(lists, batch_first=True, padding_value=-1)

    def _accuracies(self, x: Tensor, units: Rows, members: Tensor) -> Tensor:
        """float64 (E,): the share of the queries of every episode that are put into their class."""
        wanted = self.shots + self.queries
        size = max(1, HELD // (self.ways * max(wanted * x.shape[1], members.shape[1])))
        found = []
        for numbers in torch.arange(self.episodes).split(size):
            keys = torch.tensor([key(self.seed, "episode", e) for e in numbers.tolist()], device=x.device)
            drawn = draw(keys, units, members, self.ways, wanted)  # (e, N, K + Q)
            support, queries = x[drawn].split([self.shots, self.queries], 2)
            found.append(nearest_is_own(support.mean(2), queries, self.transport).cpu())
        return torch.cat(found)


def one_each(found: Rows) -> Rows:
    """One row of every cluster in every class: the first in the order of a hash of the samples."""
    units, member = torch.stack([found.cluster, found.target.long()], 1).unique(dim=0, return_inverse=True)
    order = torch.argsort(splitmix64(found.index), stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    first = place.new_full((len(units),), len(place)).scatter_reduce_(0, member, place, "amin")
    return found if found.target.is_floating_point() else found[order[first]]


def draw(keys: Tensor, units: Rows, members: Tensor, ways: int, count: int) -> Tensor:
    """int64 (e, N, count): the places of the rows of e episodes, class by class, by hashes of their keys (e,)."""
    classes = units.target[members[:, 0]]
    chosen = splitmix64(keys[:, None] ^ splitmix64(classes)).topk(ways, 1).indices  # (e, N)
    there = members[chosen]  # (e, N, most)
    chance = splitmix64(~keys[:, None, None] ^ splitmix64(units.index[there.clamp(min=0)]))
    lowest = torch.iinfo(chance.dtype).min
    return there.gather(2, chance.masked_fill(there < 0, lowest).topk(count, 2).indices)


def nearest_is_own(prototypes: Tensor, queries: Tensor, transport: bool) -> Tensor:
    """float64 (e,): the share of `queries` (e, N, Q, D) whose nearest of `prototypes` (e, N, D) is that of their class."""
    n, flat = prototypes.shape[1], queries.flatten(1, 2)  # (e, N Q, D)
    if transport:
        prototypes = transported(prototypes, flat)
    own = torch.arange(n, device=flat.device).repeat_interleave(queries.shape[2])
    return (torch.cdist(flat, prototypes).argmin(2) == own).double().mean(1)


def transported(prototypes: Tensor, queries: Tensor, epsilon: float = 0.05, iterations: int = 100) -> Tensor:
    """(e, N, D): prototypes (e, N, D) moved among the queries (e, M, D): BECLR's OpTA (section 4.3).

        P = argmin over plans P >= 0 with rows that sum to 1 / N and columns to 1 / M of  <P, C> + epsilon sum P (log P - 1)
        C_ij = |p_i - q_j|^2 / max C,    p_i <- sum_j P_ij q_j / sum_j P_ij

    The minimum is P_ij = u_i exp(-C_ij / epsilon) v_j; u and v by Sinkhorn's iterations (Cuturi, 2013), in logarithms. Every
    prototype takes the same mass: that the classes of an episode are equally many is used. Then the prototype is the
    mean of the queries that came to it (barycentric projection).
    """
    cost = torch.cdist(prototypes, queries).square()
    scale = -cost / (epsilon * cost.amax((1, 2), keepdim=True).clamp(min=1e-12))  # (e, N, M)
    u, v = scale.new_zeros(*scale.shape[:2], 1), scale.new_zeros(len(scale), 1, scale.shape[2])
    for _ in range(iterations):
        v = -math.log(scale.shape[2]) - (scale + u).logsumexp(1, keepdim=True)
        u = -math.log(scale.shape[1]) - (scale + v).logsumexp(2, keepdim=True)
    return (scale + u + v).softmax(2) @ queries
