"""CWCL: what the frozen modality finds alike is a positive in proportion."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from counterpoint.batch import Outputs, Pair
from counterpoint.kernels import info_nce
from counterpoint.kernels.soft import LowRank, soft_info_nce
from counterpoint.objectives.mechanisms.aligned import places
from counterpoint.objectives.mechanisms.rows import pair_ids
from counterpoint.objectives.mechanisms.temperature import Temperature
from counterpoint.objectives.objective import Needs, Objective, mean


class CWCL(Objective):
    """Continuously weighted contrastive loss (Srinivasa, Cho et al., 2023), the mean over pairs with the source.

    For N aligned rows p (the source, frozen) and q (another modality, trained), L2-normalised, l_ij = p_i . q_j / T:

        w_ij = cos(r_i, r_j) / 2 + 1/2        r: what the source keeps of each sample
        p->q = -mean_i sum_j w_ij / (sum_m w_im) log( exp(l_ij) / sum_m exp(l_im) )
        q->p = -mean_j log( exp(l_jj) / sum_i exp(l_ij) )
        loss = p->q + q->p                    the sum, without a factor 1/2

    Only the direction from the source is weighted. All rows of the batch are candidates of p->q, the positive
    included; in q->p other rows of the own sample are no negatives. w has no gradient; T is learned as in CLIP.

    source   modality whose self-similarity weighs. Freeze its encoder: tune: {<source>: {train: none}}
    weights  h: the representation it keeps, which an encoder that is frozen never moves; z: the contrasted embedding

    The formula was read from a third party's code that cites the paper. Another one has exp((cos - 1) / 0.1) for the
    weights and halves the sum, which is not this loss.
    """

    def __init__(
        self,
        *,
        source: str,
        weights: Literal["h", "z"] = "h",
        temperature: float = 0.07,
        learnable: bool = True,
    ):
        super().__init__()
        self.temperature = Temperature(temperature, learnable)
        self.source, self.weights = source, weights

    def needs(self) -> Needs:
        return Needs(pairs="across", modalities=(self.source,), batch=2)

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        temperature = self.temperature()
        terms = [self.pair_loss(pair, temperature, outputs) for pair in outputs.pairs(self.source)]
        return mean(terms, outputs), self.temperature.parts()

    def pair_loss(self, pair: Pair, temperature: float | Tensor, outputs: Outputs) -> Tensor:
        ids, targets = pair_ids(outputs, pair), self._targets(pair)
        forward = soft_info_nce(pair.q, pair.k, temperature, targets)
        return forward + info_nce(pair.k, pair.q, temperature, exclude=(ids, ids))

    def _targets(self, pair: Pair) -> LowRank:
        """cos / 2 + 1/2 is a product of vectors one longer, so that no table of weights is made."""
        r = getattr(pair.query, self.weights).detach()[places(pair)[0]].flatten(1)
        r = normalize(r.to(pair.q.dtype), dim=-1)
        r = torch.cat([r, torch.ones_like(r[:, :1])], 1) * 0.5**0.5  # (N, H + 1)
        return LowRank(r / (r @ r.sum(0))[:, None], r)
