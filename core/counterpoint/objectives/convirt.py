"""ConVIRT: InfoNCE between image and text, one direction weighing more."""

from __future__ import annotations

from counterpoint.errors import ComponentError
from counterpoint.objectives.info_nce import InfoNCE
from counterpoint.objectives.objective import Needs


class ConVIRT(InfoNCE):
    """The loss of ConVIRT (Zhang et al., 2022, eqs. 2-4), the mean over pairs of modalities.

    For N aligned rows v (image) and u (text), (N, D), L2-normalised, and l_ij = v_i . u_j / temperature:

        loss = mean_i [ weight       * -log( exp(l_ii) / sum_j exp(l_ij) )
                      + (1 - weight) * -log( exp(l_ii) / sum_j exp(l_ji) ) ]

    The positive is in the denominator, candidates come from the other modality only, the temperature is fixed, nothing
    is detached. Other rows of the own sample are never negatives. The defaults are the paper's.

    weight  share of the direction from `query` to the other modality
    query   the modality v; None: of two, the one that the recipe names first
    """

    def __init__(self, *, temperature: float = 0.1, weight: float = 0.75, query: str | None = None):
        if not 0 <= weight <= 1:
            raise ComponentError(f"objective convirt: weight is a share in [0, 1]; got {weight}")
        super().__init__(temperature=temperature, direction=weight, pairs=query or "across")
        self.query = query

    def needs(self) -> Needs:
        return Needs(pairs="across", modalities=2 if self.query is None else (self.query,), batch=2)
