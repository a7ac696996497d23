"""Redundancy reduction: objectives on the covariance between dimensions, without negatives.

Dimensions: N aligned rows of a pair of views, D width of z.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import mse_loss, relu

from counterpoint.batch import Outputs, Pair
from counterpoint.objectives.objective import Needs, Objective, mean


def off_diagonal_energy(matrix: Tensor) -> Tensor:
    """The sum of the squared entries off the diagonal."""
    return matrix.square().sum() - matrix.diagonal().square().sum()


class BarlowTwins(Objective):
    """Barlow Twins (Zbontar et al., 2021, eqs. 1 and 2), the mean over pairs of views.

    With z standardised over the N rows, per dimension (mean 0, variance 1, divided by N):

        C    = z_a^T z_b / N                                             (D, D)
        loss = sum_d (1 - C_dd)^2 + weight * sum_{d != e} C_de^2

    z is not L2-normalised; nothing is detached; sums over dimensions are not divided by D. As in the authors' code the
    variance has 1e-5 added (their BatchNorm) and weight is 0.0051. A pair of fewer than two rows has no statistics
    and is left out.
    """

    unit = False

    def __init__(self, *, weight: float = 0.0051, eps: float = 1e-5):
        super().__init__()
        self.weight, self.eps = weight, eps

    def needs(self) -> Needs:
        return Needs(pairs="all", batch=2)

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        found = [self._pair_parts(pair) for pair in outputs.pairs() if len(pair.row) > 1]
        invariance, redundancy = (mean([parts[i] for parts in found], outputs) for i in range(2))
        parts = {"invariance": invariance.detach(), "redundancy": redundancy.detach()}
        return invariance + self.weight * redundancy, parts

    def _pair_parts(self, pair: Pair) -> tuple[Tensor, Tensor]:
        cross = self._standardised(pair.q).T @ self._standardised(pair.k) / len(pair.row)
        return (1 - cross.diagonal()).square().sum(), off_diagonal_energy(cross)

    def _standardised(self, z: Tensor) -> Tensor:
        variance, centre = torch.var_mean(z, 0, correction=0)
        return (z - centre) * torch.rsqrt(variance + self.eps)


class VICReg(Objective):
    """VICReg (Bardes, Ponce and LeCun, 2022, eqs. 1-6 and algorithm 1), the mean over pairs of views.

        s(a, b) = mean over rows and dimensions of (z_a - z_b)^2
        v(a)    = 1/D sum_d max(0, 1 - sqrt(Var_d + 1e-4)),   Var divided by N - 1
        c(a)    = 1/D sum_{d != e} Cov_de^2,                  Cov divided by N - 1
        loss    = invariance * s(a, b) + variance * [v(a) + v(b)] + covariance * [c(a) + c(b)]

    z is not L2-normalised; nothing is detached. s is the mean over dimensions too, as in the paper's algorithm and the
    authors' code (its eq. 5 has no 1/D). `variance_mean` halves the variance term, as the authors' code does and the
    paper does not. A pair of fewer than two rows has no variance and is left out.
    """

    unit = False

    def __init__(
        self,
        *,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
        variance_mean: bool = False,
        eps: float = 1e-4,
    ):
        super().__init__()
        self.weights, self.eps = (invariance, variance, covariance), eps
        self.share = 0.5 if variance_mean else 1.0

    def needs(self) -> Needs:
        return Needs(pairs="all", batch=2)

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        found = [self._pair_parts(pair.q, pair.k) for pair in outputs.pairs() if len(pair.row) > 1]
        parts = [mean([terms[i] for terms in found], outputs) for i in range(3)]
        loss = sum(weight * part for weight, part in zip(self.weights, parts))
        return loss, dict(zip(("invariance", "variance", "covariance"), (p.detach() for p in parts)))

    def _pair_parts(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        variance = self.share * (self._variance(a) + self._variance(b))
        return mse_loss(a, b), variance, self._covariance(a) + self._covariance(b)

    def _variance(self, z: Tensor) -> Tensor:
        return relu(1 - torch.sqrt(z.var(0) + self.eps)).mean()

    def _covariance(self, z: Tensor) -> Tensor:
        centred = z - z.mean(0)
        return off_diagonal_energy(centred.T @ centred / (len(z) - 1)) / z.shape[1]
