"""InfoNCE with soft targets: operators that give a target's mean key without the N x M table of targets.

Dimensions: N queries, M keys, D width. An operator P stands for N x M weights: P(K) (N, D) is their product with keys
(M, D), `mass` (N,) their row sums, `T` the operator of the transposed table.

    loss_i = -sum_j P_ij log( exp(l_ij) / sum_m exp(l_im) ) = mass_i * lse_i - scale * q_i . P(K)_i
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import torch
from torch import Tensor

from counterpoint.kernels.identities import Rule, counts, sums
from counterpoint.kernels.info_nce import contrast, share_of_forward
from counterpoint.kernels.softmax import precise, softmax_stats
from counterpoint.kernels.softmax_product import softmax_product, turned_product


class Targets(Protocol):
    """What an operator has."""

    @property
    def mass(self) -> Tensor: ...

    @property
    def T(self) -> Targets: ...

    def __call__(self, keys: Tensor) -> Tensor: ...


class Indexed:
    """A few weighted positives: weight[p] at (row[p], column[p]) of an (N, M) table, where equal places add up."""

    def __init__(self, row: Tensor, column: Tensor, weight: Tensor, shape: tuple[int, int]):
        self.row, self.column, self.weight, self.shape = row, column, weight, shape

    @property
    def mass(self) -> Tensor:
        return self(self.weight.new_ones(self.shape[1], 1))[:, 0]

    @property
    def T(self) -> Indexed:
        return Indexed(self.column, self.row, self.weight, self.shape[::-1])

    def __call__(self, keys: Tensor) -> Tensor:
        ranked, order = self.row.sort(stable=True)  # sums by rank: the same result every run, on a GPU too
        bounds = torch.searchsorted(ranked, torch.arange(self.shape[0] + 1, device=ranked.device))
        terms = (self.weight.to(keys.dtype)[:, None] * keys[self.column])[order]
        return torch.segment_reduce(terms, "sum", lengths=bounds.diff(), axis=0, unsafe=True)


def own(n: int, m: int, like: Tensor) -> Indexed:
    """The target 1 for key i of query i, of n <= m keys."""
    place = torch.arange(n, device=like.device)
    return Indexed(place, place, torch.ones(n, device=like.device, dtype=like.dtype), (n, m))


class GroupMean:
    """The mean over the keys of the query's group: ids (N,) and (M,), int64; no mass where no key has the id."""

    def __init__(self, rows: Tensor, keys: Tensor):
        self.rule: Rule = (rows, keys)
        self.count = counts(len(rows), len(keys), None, self.rule, rows.device)

    @property
    def mass(self) -> Tensor:
        return (self.count > 0).float()

    @property
    def T(self) -> Turned:
        return Turned(self, lambda values: sums(values / self._least(values), None, (self.rule[1], self.rule[0])))

    def __call__(self, keys: Tensor) -> Tensor:
        return sums(keys, None, self.rule) / self._least(keys)

    def _least(self, like: Tensor) -> Tensor:
        return self.count.clamp(min=1).to(like.dtype)[:, None]


class LowRank:
    """Weights a_i . b_j, for a (N, R) and b (M, R)."""

    def __init__(self, a: Tensor, b: Tensor):
        self.a, self.b = a, b

    @property
    def mass(self) -> Tensor:
        return self.a @ self.b.sum(0)

    @property
    def T(self) -> LowRank:
        return LowRank(self.b, self.a)

    def __call__(self, keys: Tensor) -> Tensor:
        return self.a.to(keys.dtype) @ (self.b.to(keys.dtype).T @ keys)


class SoftmaxOf:
    """Weights softmax_j(a_i . b_j / temperature), for a (N, R) and b (M, R); keys of an equal id are out of the softmax.

    The table is made some rows at a time, and again in the backward pass. A row without a key has no mass.
    """

    def __init__(self, a: Tensor, b: Tensor, temperature: float | Tensor, exclude: Rule | None = None):
        self.a, self.b, self.exclude = a / temperature, b, exclude

    @property
    def mass(self) -> Tensor:
        seen = counts(len(self.a), len(self.b), self.exclude, None, self.a.device)
        return (seen > 0).to(self.a.dtype)

    @property
    def T(self) -> Turned:
        return Turned(self, lambda values: turned_product(self.a, self.b, values, self.exclude))

    def __call__(self, keys: Tensor) -> Tensor:
        return softmax_product(self.a, self.b, keys, self.exclude)


class Turned:
    """The transposed table of an operator that has no simpler one."""

    def __init__(self, of: Targets, product: Callable[[Tensor], Tensor]):
        self.T, self._product = of, product

    @property
    def mass(self) -> Tensor:
        return self(torch.ones_like(self.T.mass)[:, None])[:, 0]

    def __call__(self, keys: Tensor) -> Tensor:
        return self._product(keys)


class Blend:
    """share * first + (1 - share) * second."""

    def __init__(self, first: Targets, second: Targets, share: float):
        self.first, self.second, self.share = first, second, share

    @property
    def mass(self) -> Tensor:
        first, second = self.first.mass, self.second.mass
        dtype = torch.promote_types(first.dtype, second.dtype)  # before the product, which would round the share
        return self.share * first.to(dtype) + (1 - self.share) * second.to(dtype)

    @property
    def T(self) -> Blend:
        return Blend(self.first.T, self.second.T, self.share)

    def __call__(self, keys: Tensor) -> Tensor:
        return self.share * self.first(keys) + (1 - self.share) * self.second(keys)


def soft_info_nce(
    queries: Tensor,
    keys: Tensor,
    temperature: float | Tensor,
    targets: Targets,
    *,
    back: Targets | None = None,
    direction: float | str = "forward",
    exclude: Rule | None = None,
    reduction: Literal["mean", "none"] = "mean",
) -> Tensor:
    """Cross-entropy of soft targets and the softmax over keys, for queries (N, D) and keys (M, D).

    targets    weights of the keys of each query; `back` those of the queries of each key, None: the transposed ones
    direction  forward, both, or the share of forward; but for `forward`, N = M and query i belongs to key i
    exclude    (row ids (N,), key ids (M,)), equal = no candidate; the targets must have no weight there
    reduction  mean over the anchors, those without mass included with 0; none: (N,)

    Raises ValueError for two directions of unequal length.
    """
    alpha = share_of_forward(direction)
    queries, keys, temperature = precise(queries, keys, temperature)
    if alpha < 1 and len(queries) != len(keys):
        raise ValueError(f"soft_info_nce: two directions go with N = M; got {len(queries)} and {len(keys)}")
    rule = _first_keys(queries, keys) if exclude is None else exclude
    stats = softmax_stats(queries, keys, 1.0 / temperature, exclude=rule, columns=alpha < 1)
    pivot = None if exclude is not None or not len(keys) else keys[rule[0]]
    loss = _terms(queries, keys, pivot, temperature, targets, stats.rows)
    if alpha < 1:
        pivot = None if exclude is not None else queries
        backward = _terms(keys, queries, pivot, temperature, back or targets.T, stats.columns)
        loss = alpha * loss + (1 - alpha) * backward
    return loss if reduction == "none" else loss.sum() / max(len(loss), 1)


def _first_keys(queries: Tensor, keys: Tensor) -> Rule:
    names = torch.arange(len(keys), device=keys.device)
    if len(queries) == len(keys):
        return names, names
    return torch.arange(len(queries), device=keys.device) % max(1, len(keys)), names


def _terms(queries, keys, pivot, temperature, targets: Targets, lse: Tensor) -> Tensor:
    """A pivot is a key left out of the lse: where it has all the mass, the loss keeps its last digits."""
    mass, wanted = targets.mass.to(queries.dtype), targets(keys)
    if pivot is None:
        seen = lse > -torch.inf
        return torch.where(seen, mass * lse.masked_fill(~seen, 0.0) - (queries * wanted).sum(-1) / temperature, 0.0)
    logit = (queries * pivot).sum(-1) / temperature
    rest = (queries * (mass[:, None] * pivot - wanted)).sum(-1) / temperature
    return mass * contrast(lse, logit) + rest


def divergence(
    queries: Tensor,
    keys: Tensor,
    temperature: float | Tensor,
    teacher: tuple[Tensor, Tensor, float | Tensor],
    exclude: Rule | None = None,
) -> Tensor:
    """(N,): KL(p_i || softmax_j(l_ij)), p_i the teacher's softmax; teacher: queries, keys and temperature, detached."""
    targets = SoftmaxOf(*teacher, exclude)
    entropy = soft_info_nce(*teacher, targets, exclude=exclude, reduction="none")
    return soft_info_nce(queries, keys, temperature, targets, exclude=exclude, reduction="none") - entropy
