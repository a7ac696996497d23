"""OneEncoder: the contrast between a new modality and one that is aligned already."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from counterpoint.batch import Outputs
from counterpoint.errors import ComponentError
from counterpoint.objectives.clip import CLIP
from counterpoint.objectives.objective import Needs


class OneEncoder(CLIP):
    """The loss of OneEncoder (Faye et al., 2024), to be used with the head `oneencoder`, whose transformer is shared.

    For N aligned rows of two modalities, L2-normalised, and l_ij = s * q_i . k_j:

        loss = 1/2 [ mean_i -log( exp(l_ii) / sum_j exp(l_ij) ) + mean_j -log( exp(l_jj) / sum_i exp(l_ij) ) ]

    the mean over pairs of modalities, of `modalities` where it names some: a stage aligns one more with one that is. Or
    those of `anchor`, the aligned one, with each other: two that were never seen together meet through it. Positive in
    the denominator, candidates of the other modality only, nothing detached. s = 1 / temperature is learned from
    exp(2.5). The authors' code clamps a copy of its logarithm to [2.5, 3], so that it gets no gradient and stays at
    exp(2.5): `learnable: false`. docs/stages.md has the stages.
    """

    def __init__(
        self,
        *,
        anchor: str | None = None,
        modalities: list[str] | None = None,
        temperature: float = 0.082085,
        learnable: bool = True,
    ):
        super().__init__(temperature=temperature, learnable=learnable)
        if modalities is not None and (len(set(modalities)) < 2 or anchor not in (None, *modalities)):
            raise ComponentError(
                f"objective oneencoder: modalities names two or more, the anchor among them; got {modalities} and {anchor}"
            )
        self.anchor, self.modalities = anchor, modalities

    def needs(self) -> Needs:
        named = tuple(self.modalities or filter(None, [self.anchor]))
        return Needs(pairs="across", modalities=named or 2, batch=2)

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        seen = [e for e in outputs.student if self.modalities is None or e.modality in self.modalities]
        return super().loss(replace(outputs, student=seen))

    def which(self, outputs: Outputs) -> str:
        return self.anchor or "across"
