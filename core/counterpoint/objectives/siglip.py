"""SigLIP: every pair is its own binary question."""

from __future__ import annotations

from math import log

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from counterpoint.batch import Outputs, Pair
from counterpoint.errors import ComponentError
from counterpoint.kernels import softplus_sums
from counterpoint.objectives.mechanisms.rows import across_or_all, pair_ids
from counterpoint.objectives.objective import Needs, Objective, mean


class SigLIP(Objective):
    """The sigmoid loss of SigLIP (Zhai et al., 2023, section 3.2 and algorithm 1), the mean over pairs of modalities.

    For N aligned rows of two modalities, L2-normalised, t = exp(t') and bias b learned:

        loss = 1/N [ sum_i                          log(1 + exp(-(t q_i . k_i + b)))
                   + sum_{i, j: different samples}  log(1 + exp(t q_i . k_j + b)) ]

    The sum runs over all N x N pairs but is divided by N alone. There is no direction, and nothing is detached. Other
    rows of the own sample are neither negatives nor, beyond the aligned ones, positives. t' starts at log 10 and b at
    -10 (section 3.2). The N x N table is never held.
    """

    def __init__(self, *, scale: float = 10.0, bias: float = -10.0):
        super().__init__()
        if scale <= 0:
            raise ComponentError(f"objective: scale is positive; got {scale}")
        self.log_scale = nn.Parameter(torch.tensor(log(scale)))
        self.bias = nn.Parameter(torch.tensor(float(bias)))

    def needs(self) -> Needs:
        return Needs(pairs="all", batch=2)

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        scale = self.log_scale.exp()
        terms = [self.pair_loss(pair, scale, pair_ids(outputs, pair)) for pair in outputs.pairs(across_or_all(outputs))]
        return mean(terms, outputs), {"scale": scale.detach(), "bias": self.bias.detach()}

    def pair_loss(self, pair: Pair, scale: Tensor, ids: Tensor) -> Tensor:
        positive = softplus(-(scale * (pair.q * pair.k).sum(-1) + self.bias), threshold=40)
        negative = softplus_sums(pair.q, pair.k, scale, self.bias, exclude=(ids, ids))
        return (positive + negative).mean()
