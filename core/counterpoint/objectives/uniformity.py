"""Alignment, uniformity and spread on the unit sphere."""

from __future__ import annotations

from math import log

import torch
from torch import Tensor
from torch.linalg import vector_norm

from counterpoint.batch import Outputs
from counterpoint.kernels import softmax_stats
from counterpoint.kernels.identities import counts
from counterpoint.objectives.objective import Needs, Objective, mean


class AlignUniform(Objective):
    """Alignment and uniformity (Wang and Isola, 2020, section 4.1), z L2-normalised.

        align   = mean over pairs of views of mean_i ||q_i - k_i||^alpha
        uniform = mean over views of log mean_{i, j: different samples} exp(-t ||z_i - z_j||^2)
        loss    = align_weight * align + uniform_weight * uniform

    Uniformity is over pairs of one view, without the diagonal; nothing is detached. The weights of 1 are those of the
    authors' code; the paper's best STL-10 encoder has 0.98 and 0.96. A view of fewer than
    two samples has no uniformity and is left out.
    """

    def __init__(self, *, align_weight: float = 1.0, uniform_weight: float = 1.0, alpha: float = 2.0, t: float = 2.0):
        super().__init__()
        self.align_weight, self.uniform_weight, self.alpha, self.t = align_weight, uniform_weight, alpha, t

    def needs(self) -> Needs:
        return Needs(pairs="all", batch=2)

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        align = mean([self.alignment(p.q - p.k) for p in outputs.pairs()], outputs)
        spread = [self.uniformity(e.z, outputs.ids(e)) for e in outputs.views()]
        uniform = mean([term for term in spread if term is not None], outputs)
        parts = {"align": align.detach(), "uniform": uniform.detach()}
        return self.align_weight * align + self.uniform_weight * uniform, parts

    def alignment(self, difference: Tensor) -> Tensor:
        """The mean of |q - k|^alpha over differences (N, D)."""
        if self.alpha == 2:  # without the root, whose slope at 0 is infinite
            return difference.square().sum(-1).mean()
        return vector_norm(difference, dim=-1).pow(self.alpha).mean()

    def uniformity(self, z: Tensor, ids: Tensor) -> Tensor | None:
        """||a - b||^2 = 2 - 2 a . b on the sphere, so the mean is a log-sum-exp at scale 2 t."""
        pairs = int(counts(len(z), len(z), (ids, ids), None, z.device).sum())
        if not pairs:
            return None
        rows = softmax_stats(z, z, 2 * self.t, exclude=(ids, ids)).rows
        return torch.logsumexp(rows[rows > -torch.inf], 0) - log(pairs) - 2 * self.t


class KoLeo(Objective):
    """The Kozachenko-Leonenko regulariser (Sablayrolles et al., 2019, section 3.1), z L2-normalised.

        loss = mean over views of -mean_i log( min_{j: another sample} ||z_i - z_j|| + eps )

    Each view on its own; the gradient reaches the nearest neighbour too. eps as in DINOv2's code, which also adds it to
    every coordinate of the difference; here it stands where it is written. A row without another sample is left out.
    """

    CHUNK = 1024  # rows whose neighbours are sought at a time

    def __init__(self, *, eps: float = 1e-8):
        super().__init__()
        self.eps = eps

    def needs(self) -> Needs:
        return Needs(batch=2)

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        terms = [self._spread(e.z, outputs.ids(e)) for e in outputs.views()]
        return mean([term.mean() for term in terms if len(term)], outputs), {}

    def _spread(self, z: Tensor, ids: Tensor) -> Tensor:
        if not len(z):
            return z[:, 0]
        nearest, found = self._neighbours(z.detach(), ids)
        return -torch.log(vector_norm(z - z[nearest], dim=-1)[found] + self.eps)

    def _neighbours(self, z: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Position of the nearest row of another sample, and whether there is one."""
        best = []
        for rows, own in zip(z.split(self.CHUNK), ids.split(self.CHUNK)):
            best.append((rows @ z.T).masked_fill(own[:, None] == ids, -torch.inf).max(1))
        similarity, nearest = (torch.cat(parts) for parts in zip(*best))
        return nearest, similarity > -torch.inf
