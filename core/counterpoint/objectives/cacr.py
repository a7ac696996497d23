"""Contrastive attraction and contrastive repulsion.

Dimensions: R rows of all views, P ordered pairs of rows of one sample in two views, N rows of a pair of views.
"""

from __future__ import annotations

import torch
from torch import Tensor

from counterpoint.batch import Outputs, Pair
from counterpoint.errors import ComponentError
from counterpoint.kernels.by_rows import by_rows
from counterpoint.objectives.mechanisms.rows import pair_ids, stack_views
from counterpoint.objectives.multi_view import log_sum_exp_by, sums_by
from counterpoint.objectives.objective import Needs, Objective, mean


class CACR(Objective):
    """Doubly contrastive weights (Zheng et al., 2023, Contrastive Attraction and Contrastive Repulsion, section 3).

    z L2-normalised, d(a, b) = ||z_a - z_b||^2. Of an anchor a, positives p are its sample's rows in other views:

        attraction = mean_a sum_p w_p alpha d(a, p),   w = softmax_p( tau_pos d(a, p)): far positives weigh more
        repulsion  = mean over pairs of views of mean_i sum_{j: not sample i} w_j (-beta d(q_i, k_j)),
                     w = softmax_j(-tau_neg d(q_i, k_j)): close negatives weigh more
        loss       = attraction + repulsion

    Negatives come from the other view of the pair, whose first view alone asks, as in the authors' code. Weights have a
    gradient, as in the authors' code of the small experiments; `detach_weights` takes it away, as their ImageNet code
    does. With two views the attraction has one positive and no weights. An anchor without negatives adds 0.

    debias  tau+, the share of false negatives (Chuang et al., 2020): the term of an anchor becomes
            (sum_j w_j (-beta d) + tau+ beta d(q_i, k_i)) / (1 - tau+). The authors' code has minus tau+ d there, which
            with costs of -d is not the debiased mean, and pushes positives apart

    Defaults are those of the authors' CIFAR-10 code.
    """

    def __init__(
        self,
        *,
        tau_pos: float = 1.0,
        tau_neg: float = 1.0,
        alpha: float = 1.0,
        beta: float = 1.0,
        debias: float = 0.0,
        detach_weights: bool = False,
    ):
        super().__init__()
        if not 0 <= debias < 1:
            raise ComponentError(f"objective cacr: debias is a share in [0, 1); got {debias}")
        self.tau_pos, self.tau_neg, self.alpha, self.beta = tau_pos, tau_neg, alpha, beta
        self.debias, self.detach_weights = debias, detach_weights

    def needs(self) -> Needs:
        return Needs(pairs="all", batch=2)

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        z, _, (a, b) = stack_views(outputs)
        if not len(a):
            return outputs.zero(), {}
        attraction = self._attraction(z, torch.cat([a, b]), torch.cat([b, a]))
        repulsion = mean([self._repulsion(pair, outputs).mean() for pair in outputs.pairs()], outputs)
        return attraction + repulsion, {"attraction": attraction.detach(), "repulsion": repulsion.detach()}

    def _attraction(self, z: Tensor, anchor: Tensor, positive: Tensor) -> Tensor:
        distance = (z[anchor] - z[positive]).square().sum(-1)  # (P,)
        logits = self.tau_pos * distance
        weight = self._weights(torch.exp(logits - log_sum_exp_by(logits, anchor, len(z))[anchor]))
        terms = sums_by(weight * self.alpha * distance, anchor, len(z))
        return terms.sum() / len(anchor.unique())

    def _repulsion(self, pair: Pair, outputs: Outputs) -> Tensor:
        ids = pair_ids(outputs, pair)
        (terms, some) = by_rows(self._block, (pair.q, ids), (pair.k, ids), 6 * len(pair.k))
        if not self.debias:
            return terms
        own = self.beta * (pair.q - pair.k).square().sum(-1)
        return torch.where(some, (terms + self.debias * own) / (1 - self.debias), terms)

    def _block(self, q: Tensor, ids: Tensor, k: Tensor, other_ids: Tensor) -> tuple[Tensor, Tensor]:
        distance = q.square().sum(-1, keepdim=True) + k.square().sum(-1) - 2 * q @ k.T  # (n, N)
        out = ids[:, None] == other_ids
        weight = (-self.tau_neg * distance).masked_fill(out, torch.finfo(q.dtype).min).softmax(1).masked_fill(out, 0.0)
        return -self.beta * (self._weights(weight) * distance).sum(1), ~out.all(1)

    def _weights(self, weight: Tensor) -> Tensor:
        return weight.detach() if self.detach_weights else weight
