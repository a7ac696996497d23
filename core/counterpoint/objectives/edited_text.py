"""TSVLC: texts edited to mean something else, or the same."""

from __future__ import annotations

import torch
from torch import Tensor

from counterpoint.batch import NEGATIVE, POSITIVE, Encoded, Outputs, align
from counterpoint.kernels import contrast, softmax_stats
from counterpoint.kernels.reference import log_sum_exp
from counterpoint.objectives.clip import CLIP
from counterpoint.objectives.mechanisms.rows import pair_ids
from counterpoint.objectives.objective import Needs, mean


class TSVLC(CLIP):
    """Teaching structured vision and language concepts (Doveh et al., 2023, section 3.3), with edited texts.

    I image and T text rows of N samples, N' all rows of role `negative` of the batch, N_i those of sample i, P rows of
    role `positive`, all L2-normalised, s = 1 / temperature learned as in CLIP, nce(q, k) = mean_i
    -log( exp(s q_i . k_i) / sum_j exp(s q_i . k_j) ):

        clip     = 1/2 [ nce(I, T with N' as further candidates) + nce(T, I) ]
        negative = mean over samples with edits of -log( exp(s I_i . T_i) / (exp(s I_i . T_i) + sum_{n in N_i} exp(s I_i . n)) )
        positive = 1/2 [ nce(I, P) + nce(T, P) ]          one direction each, over the samples that have a P
        loss     = clip + negative_weight * negative + positive_weight * positive

    Edits widen only the direction that looks for their modality. Nothing is detached; means over pairs of modalities.
    A sample without edits contributes to `clip` alone. Rows of role `positive` never pair as ordinary views do. Other
    rows of the own sample, edits apart, are never negatives. Weights are 1 as in the paper.

    symmetric_positives  True: also nce(P, I) and nce(P, T), averaged with the two of `positive`, as the authors' code can
    """

    def __init__(
        self,
        *,
        temperature: float = 0.07,
        learnable: bool = True,
        negative_weight: float = 1.0,
        positive_weight: float = 1.0,
        symmetric_positives: bool = False,
    ):
        super().__init__(temperature=temperature, learnable=learnable)
        self.negative_weight, self.positive_weight = negative_weight, positive_weight
        self.share = 0.5 if symmetric_positives else 1.0

    def needs(self) -> Needs:
        return Needs(pairs="across", modalities=2, batch=2, roles=frozenset({POSITIVE, NEGATIVE}))

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        temperature = self.temperature()
        pairs = outputs.pairs("across")
        terms = {
            "clip": mean([self.pair_loss(pair, temperature, outputs) for pair in pairs], outputs),
            "negative": mean([t for pair in pairs for t in self._own_edits(pair, temperature, outputs)], outputs),
            "positive": mean(self._positives(temperature, outputs, outputs.views(role=POSITIVE)), outputs),
        }
        weights = (1.0, self.negative_weight, self.positive_weight)
        total = sum(weight * term for weight, term in zip(weights, terms.values()))
        return total, {name: term.detach() for name, term in terms.items()} | self.temperature.parts()

    def _own_edits(self, pair, temperature, outputs: Outputs) -> list[Tensor]:
        """Each sample's pair against the edits of its own text (or image); of the samples that have any."""
        ids, scale, terms = pair_ids(outputs, pair), 1.0 / temperature, []
        positive = scale * (pair.q * pair.k).sum(-1)
        for anchor, edited in ((pair.q, pair.key), (pair.k, pair.query)):
            edits = outputs.views(edited.modality, NEGATIVE)
            if edits:
                lines = [softmax_stats(anchor, e.z, scale, only=(ids, outputs.ids(e))).rows for e in edits]
                own = log_sum_exp(torch.stack(lines, 1), 1)  # -inf where the sample has none
                terms.append(contrast(own, positive).sum() / own.isfinite().sum().clamp(min=1))
        return terms

    def _positives(self, temperature, outputs: Outputs, positives: list[Encoded]) -> list[Tensor]:
        pairs = [align(e, p) for p in positives for e in outputs.views()]
        return [
            self.contrast(pair.q, pair.k, temperature, pair_ids(outputs, pair), (), self.share)
            for pair in pairs
            if len(pair.row)
        ]
