"""View generators that treat whole leads.

Dimensions: n rows, C channels (leads), L samples in time.
"""

from __future__ import annotations

from torch import Tensor

from counterpoint.errors import ComponentError
from counterpoint.randomness import Draw
from counterpoint.views.generator import Augmentation


class LeadDrop(Augmentation):
    """Every lead set to zero with probability `drop`, never all of them; (n, C, L) -> (n, C, L).

    With one lead it does nothing. Raises ComponentError unless 0 <= drop < 1.
    Source: Oh et al., "Lead-agnostic self-supervised learning", CHIL 2022 (random lead masking, 0.5).
    """

    def __init__(self, *, drop: float = 0.5, p: float = 1.0):
        super().__init__(p=p)
        if not 0 <= drop < 1:
            raise ComponentError(f"view 'ecg.lead_drop': drop is a probability below 1; got {drop}")
        self.drop = drop

    def augment(self, data: Tensor, mask: Tensor | None, draw: Draw) -> Tensor:
        chance = draw.uniform(data.shape[1])  # (n, C)
        kept = (chance >= self.drop) | (chance == chance.amax(1, keepdim=True))
        return data * kept[..., None]


class LeadPermutation(Augmentation):
    """The leads in random order, for sensors whose channels have no fixed place (PPG); (n, C, L) -> (n, C, L).

    Source: Abbaspourazad et al., ICLR 2024, section 3.1 (channel permute).
    """

    def augment(self, data: Tensor, mask: Tensor | None, draw: Draw) -> Tensor:
        return data.gather(1, draw.permutation(data.shape[1])[..., None].expand_as(data))
