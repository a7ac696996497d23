"""How rows are compared when that is not one cosine: the same object serves an objective and the retrieval evaluator.

Dimensions: N rows of `one`, M rows of each of the `others`, D width, L and K tokens of a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from counterpoint.batch import Encoded
from counterpoint.errors import ComponentError
from counterpoint.kernels.by_rows import by_rows


@dataclass(frozen=True)
class Side:
    """What is compared of n rows: z (n, D), tokens (n, L, D) with mask bool (n, L), true = real, or None: all are."""

    z: Tensor
    tokens: Tensor | None = None
    mask: Tensor | None = None

    def __len__(self) -> int:
        return len(self.z)

    def __getitem__(self, rows) -> Side:
        return Side(*(None if t is None else t[rows] for t in (self.z, self.tokens, self.mask)))


def side(e: Encoded, rows: Tensor | slice = slice(None)) -> Side:
    """Some rows of an Encoded."""
    return Side(e.z, e.tokens, e.mask)[rows]


class Similarity(nn.Module):
    """s(one, others) -> (forward (N, M), backward (N, M)); larger is more alike.

    `others` are one Side, or several whose rows belong together: a row of `one` is compared with a tuple of rows. Both
    results are (one x others): forward is how a row of `one` finds its partner, backward how a row of the others does,
    and neither need be the other's transpose. Tables are made in row chunks that the backward pass computes again.

    looks_at  {"tokens"}: what it reads beside z
    tuples    whether all modalities of a sample are compared at once
    """

    looks_at: frozenset[str] = frozenset()
    tuples = False

    def forward(self, one: Side, others: list[Side]) -> tuple[Tensor, Tensor]:
        raise TypeError(f"{type(self).__name__} must define forward(one, others)")

    def score(self, one: Side, others: list[Side]) -> Tensor:
        """(N, M): what retrieval ranks the others by, each row of `one` being a query."""
        return self(one, others)[0]

    def joins(self, query: str, key: str) -> Literal["query", "key"] | None:
        """Which side the modalities that are neither query nor key join, as rows of its samples."""
        return None


def similarity_of(objectives: Mapping[str, nn.Module]) -> Similarity | None:
    """The similarity of the first objective that has one of its own, as its attribute `similarity`."""
    found = (getattr(objective, "similarity", None) for objective in objectives.values())
    return next((s for s in found if isinstance(s, Similarity)), None)


class LateInteraction(Similarity):
    """Token by token (FILIP, Yao et al., 2022, equations 3 to 5; CiCo, Cheng et al., 2023, section 3.2).

    Tokens a_k (L of a row of `one`) and b_r (K of a row of the other), L2-normalised, e_kr = a_k . b_r:

        forward  = mean_k best_r e_kr          backward = mean_r best_k e_kr

    over real tokens alone. best is the maximum; with `soft`, sum_r e_kr softmax_r(e_kr / soft). A row without a real
    token has similarity 0 to all.

    soft       temperature of the softmax over tokens, or None: the maximum
    both_ways  retrieval ranks by the mean of forward and backward, as CiCo's code does, instead of by forward
    """

    looks_at = frozenset({"tokens"})

    def __init__(self, soft: float | None = None, both_ways: bool = False):
        super().__init__()
        self.soft, self.both_ways = soft, both_ways

    def forward(self, one: Side, others: list[Side]) -> tuple[Tensor, Tensor]:
        (other,) = others
        (a, real_a), (b, real_b) = _tokens(one), _tokens(other)
        if a.shape[-1] != b.shape[-1]:
            raise ComponentError(
                f"tokens of {a.shape[-1]} and {b.shape[-1]} numbers cannot be compared; "
                "give both modalities head: {use: tokens}, which maps them to one width"
            )
        cost = a.shape[1] * b.shape[0] * b.shape[1] * (1 if self.soft is None else 3)
        return by_rows(self._block, (a, real_a), (b, real_b), cost)

    def score(self, one: Side, others: list[Side]) -> Tensor:
        forward, backward = self(one, others)
        return (forward + backward) / 2 if self.both_ways else forward

    def _block(self, a: Tensor, real_a: Tensor, b: Tensor, real_b: Tensor) -> tuple[Tensor, Tensor]:
        e = (a.flatten(0, 1) @ b.flatten(0, 1).T).unflatten(1, b.shape[:2]).unflatten(0, a.shape[:2])  # (n, L, M, K)
        to_other = self._best(e, real_b, 3)  # (n, L, M)
        to_one = self._best(e, real_a[:, :, None, None], 1)  # (n, M, K)
        return _mean(to_other, real_a[:, :, None], 1), _mean(to_one, real_b, 2)

    def _best(self, e: Tensor, real: Tensor, dim: int) -> Tensor:
        none = ~real.any(dim if real.ndim == e.ndim else -1)
        if self.soft is None:
            best = e.masked_fill(~real, -2.0).amax(dim)  # below every cosine
        else:
            weight = (e / self.soft).masked_fill(~real, torch.finfo(e.dtype).min).softmax(dim)
            best = (e * weight).sum(dim)
        return best.masked_fill(none, 0.0)


def _tokens(s: Side) -> tuple[Tensor, Tensor]:
    """Tokens (n, L, D), L2-normalised, in float32 or more, and which are real."""
    if s.tokens is None:
        raise ComponentError("there are no tokens to compare: the encoder returns h alone")
    tokens = s.tokens if s.tokens.dtype == torch.float64 else s.tokens.float()
    real = tokens.new_ones(tokens.shape[:2], dtype=torch.bool) if s.mask is None else s.mask
    return normalize(tokens, dim=-1, eps=1e-12), real


def _mean(values: Tensor, real: Tensor, dim: int) -> Tensor:
    """The mean along `dim` of the values that are real; 0 where none is."""
    weight = real.to(values.dtype).expand_as(values)
    return (values * weight).sum(dim) / weight.sum(dim).clamp(min=1)


class Volume(Similarity):
    """Minus the volume that a row and a tuple span (GRAM, Cicchetti et al., 2025, section 3.2), rows L2-normalised.

    For a and m_1..m_k with Gram matrix G: V = sqrt(det G), 0 when they are dependent (all agree), 1 when orthogonal.
    forward = backward = -V. det G = det G(m) * (|a|^2 - |U^T a|^2), U an orthonormal basis of the m's by
    Gram-Schmidt: the determinant of a nearly singular matrix in float32 is noise. It is clamped before the root, whose
    slope at 0 is infinite. One vector against one: V = sqrt(1 - cosine^2), blind to the sign.

    anchor  the modality that is compared with tuples of all others; in retrieval the rest joins the other side of it,
            and pairs of two other modalities are compared without the rest
    """

    tuples = True
    LEAST = 1e-12  # of a squared volume

    def __init__(self, anchor: str | None = None):
        super().__init__()
        self.anchor = anchor

    def forward(self, one: Side, others: list[Side]) -> tuple[Tensor, Tensor]:
        basis, size = orthogonal([normalize(other.z, dim=-1) for other in others])  # (K, M, D), (M,)
        (volume,) = by_rows(self._block, (normalize(one.z, dim=-1),), (basis, size), basis.shape[0] * basis.shape[1])
        return -volume, -volume

    def joins(self, query: str, key: str) -> Literal["query", "key"] | None:
        return {query: "key", key: "query"}.get(self.anchor)

    def _block(self, a: Tensor, basis: Tensor, size: Tensor) -> tuple[Tensor]:
        inside = sum((a @ u.T).square() for u in basis)  # (n, M): |U^T a|^2
        squared = size * (a.square().sum(-1, keepdim=True) - inside)
        return (squared.clamp(min=self.LEAST).sqrt(),)


def orthogonal(vectors: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Of each row's K vectors (M, D): an orthonormal basis (K, M, D), and the determinant (M,) of their Gram matrix.

    A vector that depends on those before it gives a zero direction and a zero determinant.
    """
    basis: list[Tensor] = []
    size = vectors[0].new_ones(len(vectors[0]))
    for v in vectors:
        for _ in range(2):  # the second pass removes what rounding left
            for u in basis:
                v = v - (v * u).sum(-1, keepdim=True) * u
        squared = v.square().sum(-1)
        basis.append(v * squared.clamp(min=1e-14).rsqrt()[:, None])
        size = size * squared
    return torch.stack(basis), size


class Product(Similarity):
    """The multilinear inner product (Symile, Saporta et al., 2024, section 3.1), rows L2-normalised.

    sum_d a[d] m_1[d] ... m_k[d], forward and backward alike; for one vector against one it is the cosine. In retrieval
    the modalities that are neither query nor key join the query: its sample's rows of them are known, too.
    """

    tuples = True

    def forward(self, one: Side, others: list[Side]) -> tuple[Tensor, Tensor]:
        together = prod(normalize(other.z, dim=-1) for other in others)  # (M, D)
        value = normalize(one.z, dim=-1) @ together.T
        return value, value

    def joins(self, query: str, key: str) -> Literal["query", "key"] | None:
        return "query"
