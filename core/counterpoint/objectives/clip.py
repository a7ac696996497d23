"""CLIP: symmetric InfoNCE between modalities with a learned temperature."""

from __future__ import annotations

from counterpoint.batch import Outputs
from counterpoint.objectives.info_nce import InfoNCE
from counterpoint.objectives.mechanisms.rows import across_or_all
from counterpoint.objectives.objective import Needs


class CLIP(InfoNCE):
    """The loss of CLIP (Radford et al., 2021, figure 3), the mean over pairs of modalities.

    For N aligned rows of two modalities, L2-normalised, and l_ij = exp(t) * q_i . k_j:

        loss = 1/2 [ mean_i -log( exp(l_ii) / sum_j exp(l_ij) ) + mean_j -log( exp(l_jj) / sum_i exp(l_ij) ) ]

    The positive is in the denominator, candidates come from the other modality only, nothing is detached. exp(t) =
    1 / temperature is learned from 1 / 0.07 and kept from exceeding 100 (section 2.5). Other rows of the own sample
    are never negatives. Where the recipe has one modality, pairs are those of its views. `label_smoothing` 0.1 is the
    loss of ALIGN (Jia et al., 2021).
    """

    def __init__(self, *, temperature: float = 0.07, learnable: bool = True, label_smoothing: float = 0.0):
        super().__init__(temperature=temperature, learnable=learnable, label_smoothing=label_smoothing)

    def needs(self) -> Needs:
        return Needs(pairs="all", batch=2)

    def which(self, outputs: Outputs) -> str:
        return across_or_all(outputs)
