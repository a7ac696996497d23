"""OneEncoder: the contrast between a new modality and one that is aligned already."""

from __future__ import annotations

from counterpoint.batch import Outputs
from counterpoint.objectives.clip import CLIP
from counterpoint.objectives.objective import Needs


class OneEncoder(CLIP):
    """The loss of OneEncoder (Faye et al., 2024), to be used with the head `oneencoder`, whose transformer is shared.

    For N aligned rows of two modalities, L2-normalised, and l_ij = s * q_i . k_j:

        loss = 1/2 [ mean_i -log( exp(l_ii) / sum_j exp(l_ij) ) + mean_j -log( exp(l_jj) / sum_i exp(l_ij) ) ]

    the mean over pairs of modalities, or over those of `anchor`, the aligned one, with each other: then two modalities that
    were never seen together meet through it. Positive in the denominator, candidates of the other modality only, nothing
    detached. s = 1 / temperature is learned from exp(2.5). The authors' code clamps a copy of its logarithm to [2.5, 3], so
    that it gets no gradient and stays at exp(2.5): `learnable: false`.
    """

    def __init__(self, *, anchor: str | None = None, temperature: float = 0.082085, learnable: bool = True):
        super().__init__(temperature=temperature, learnable=learnable)
        self.anchor = anchor

    def needs(self) -> Needs:
        return Needs(pairs="across", modalities=2 if self.anchor is None else (self.anchor,), batch=2)

    def which(self, outputs: Outputs) -> str:
        return self.anchor or "across"
