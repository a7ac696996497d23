"""Objectives. Dimensions: R rows of all views, P positive pairs, D width of `z`, which arrives with length 1."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from counterpoint.batch import Outputs
from counterpoint.kernels import softmax_stats
from counterpoint.objectives.mechanisms.rows import stack_views
from counterpoint.objectives.objective import Needs, Objective


class TeamUp(Objective):
    """NT-Xent in which nodes of strong communities count for more the longer it trains (CSGCL, Chen et al., IJCAI 2023).

    All rows of all views are stacked, c_i is the strength of the community of row i, and

        s_ij = z_i . z_j + g (c_i + c_j)
        term(i, p) = -log( exp(s_ip / t) / (exp(s_ip / t) + sum_{j: node of j is not node of i} exp(s_ij / t)) )
        loss       = mean of term over all ordered positive pairs
        g          = min(max(0, epoch - start) / ramp, most)

    The positive is in the denominator, negatives come from both views, nothing is detached. g c_i is in every s_ij of an
    anchor and cancels: only g c_j of the candidates is left, and it goes into the kernel as one more number in each row.
    With g = 0 this is `nt_xent`. A node of unknown strength counts as 0.

    temperature  t; start, ramp: in epochs, a ramp of 100 in the authors' code; most: the greatest g. Their temperature, start
                 and most differ from data set to data set.
    """

    def __init__(self, *, temperature: float = 0.5, start: int = 0, ramp: float = 100.0, most: float = 1.0):
        super().__init__()
        if not (temperature > 0 and ramp > 0 and most >= 0):
            raise ValueError(f"temperature and ramp are above 0, most is not below; got {temperature}, {ramp}, {most}")
        self.temperature, self.start, self.ramp, self.most = temperature, start, ramp, most

    def needs(self) -> Needs:
        return Needs(pairs="all", batch=2, labels=frozenset({"strength"}))

    def gamma(self, epoch: int) -> float:
        return min(max(0, epoch - self.start) / self.ramp, self.most)

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        z, ids, (a, b) = stack_views(outputs)
        gamma = self.gamma(outputs.epoch)
        parts = {"gamma": z.new_tensor(gamma)}
        if not len(a):
            return outputs.zero(), parts
        row = torch.cat([e.row for e in outputs.views()])
        bias = gamma * outputs.batch.labels["strength"].to(z).nan_to_num(0.0)[row][:, None]  # (R, 1)
        queries, keys = torch.cat([z, torch.ones_like(bias)], 1), torch.cat([z, bias], 1)
        negatives = softmax_stats(queries, keys, 1 / self.temperature, exclude=(ids, ids)).rows  # (R,)
        terms = [self._terms(queries[i], keys[j], negatives[i]) for i, j in ((a, b), (b, a))]
        return (terms[0] + terms[1]) / 2, parts

    def _terms(self, queries: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        return softplus(negatives - (queries * positives).sum(-1) / self.temperature).mean()
