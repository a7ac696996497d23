"""GRAM: all modalities at once, by the volume they span.

Dimensions: T tuples, K views beside the anchor, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from counterpoint.batch import Encoded, Outputs
from counterpoint.errors import ComponentError, suggest
from counterpoint.markers import Modalities
from counterpoint.objectives.mechanisms.scored import info_nce_of
from counterpoint.objectives.mechanisms.similarity import Side, Volume
from counterpoint.objectives.mechanisms.temperature import Temperature
from counterpoint.objectives.mechanisms.tuples import tuples
from counterpoint.objectives.objective import Needs, Objective


class GRAM(Objective):
    """The contrastive loss of GRAM (Cicchetti et al., 2025, section 3.3), one anchor modality against all others.

    V_ij: volume that anchor a_i and the tuple of sample j span (`Volume`), l_ij = -V_ij / temperature:

        loss = 1/2 [ mean_i -log( exp(l_ii) / sum_j exp(l_ij) ) + mean_j -log( exp(l_jj) / sum_i exp(l_ij) ) ]

    The tuple always stays that of one sample; only the anchor is exchanged. Positives are in the denominators, other
    rows of the own sample in none; nothing is detached. The anchor is the first view of its modality; all other views
    are in the tuple.

    A volume of fewer vectors is larger and cannot be ranked against one of more. So a sample that lacks modalities is
    contrasted over those it has: its anchor against the tuples of samples that have all of these, cut to them; its tuple
    against all anchors. It needs the anchor and one more. With nothing missing that is the paper's loss.

    anchor           modality; by default the first of the recipe
    temperature      divides the volumes; its inverse is learned from 1 / 0.07 and kept from exceeding 100
    label_smoothing  0.1 in the authors' code, not in the paper

    The matching loss of the authors' code needs a fusion encoder and is not here. Their determinant in float32 is
    taken as it comes; see `Volume`.
    """

    def __init__(
        self,
        *,
        anchor: str | None = None,
        temperature: float = 0.07,
        learnable: bool = True,
        label_smoothing: float = 0.0,
        modalities: Modalities = None,
    ):
        super().__init__()
        if modalities and anchor is not None and anchor not in modalities:
            raise ComponentError(
                f"objective gram: {anchor!r} is not a modality of the recipe{suggest(anchor, modalities)}"
            )
        self.anchor = anchor or (modalities[0] if modalities else None)
        self.temperature, self.label_smoothing = Temperature(temperature, learnable), label_smoothing
        self.similarity = Volume(self.anchor)

    def needs(self) -> Needs:
        return Needs(pairs="all", batch=2, modalities=(self.anchor,) if self.anchor else 1)

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        first = outputs.views(self.anchor)[:1]
        views = first + [e for e in outputs.views() if first and e.view != first[0].view]
        if len(views) < 2:
            return outputs.zero(), self.temperature.parts()
        table, sample = tuples(views)
        used = (table[:, 0] >= 0) & (table[:, 1:] >= 0).any(1)
        if not used.any():
            return outputs.zero(), self.temperature.parts()
        forward, backward = self._terms(views, table[used], outputs.batch.index[sample[used]])
        return (forward.mean() + backward.mean()) / 2, self.temperature.parts()

    def _terms(self, views: list[Encoded], table: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The terms (T,) of both directions; tuples that lack the same views are taken together."""
        has = table[:, 1:] >= 0  # (T, K)
        patterns, which = torch.unique(has, dim=0, return_inverse=True)
        found = [self._of_pattern(views, table, ids, has, p, which == n) for n, p in enumerate(patterns)]
        return torch.cat([f for f, _ in found]), torch.cat([b for _, b in found])

    def _of_pattern(self, views, table, ids, has, pattern, mine) -> tuple[Tensor, Tensor]:
        those = [n + 1 for n, there in enumerate(pattern.tolist()) if there]
        able = (has | ~pattern).all(1)  # the tuples that have at least these views
        sides = lambda rows: [Side(views[v].z[table[rows, v]]) for v in those]  # noqa: E731
        anchors, temperature = Side(views[0].z[table[:, 0]]), self.temperature()
        to_tuples = self.similarity(anchors[mine], sides(able))[0] / temperature  # (mine, able)
        to_anchors = to_tuples if mine.all() else self.similarity(anchors, sides(mine))[1] / temperature  # (T, mine)
        place = torch.cumsum(able, 0)[mine] - 1
        forward = info_nce_of(to_tuples, ids[mine], ids[able], place, self.label_smoothing)
        backward = info_nce_of(to_anchors.T, ids[mine], ids, mine.nonzero()[:, 0], self.label_smoothing)
        return forward, backward
