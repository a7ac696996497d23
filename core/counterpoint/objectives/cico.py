"""CiCo: token similarities that are softly matched, mixed in both directions."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

from torch import Tensor

from counterpoint.batch import Outputs
from counterpoint.errors import ComponentError
from counterpoint.objectives.filip import sides_of_pairs
from counterpoint.objectives.mechanisms.scored import info_nce_of
from counterpoint.objectives.mechanisms.similarity import LateInteraction
from counterpoint.objectives.mechanisms.temperature import Temperature
from counterpoint.objectives.objective import Needs, Objective, mean


class CiCo(Objective):
    """Cross-lingual contrastive learning (Cheng et al., 2023, section 3.2), the mean over pairs of modalities.

    A first modality (video) and a second (text), tokens L2-normalised; f and b (video x text): forward and backward of
    `LateInteraction(soft)`, over temperature; R(x): mean over rows of -log softmax at the diagonal, C(x): over columns:

        loss = 1/2 [ mix R(f) + (1 - mix) C(f) + mix C(b) + (1 - mix) R(b) ]

    Positives are in the denominators, other rows of the own sample in none; nothing is detached. Where the second
    modality has two views, f is with the first and b with the last: the authors augment the text for b alone. Where
    the recipe has one modality, its first two views are the pair. Padding has no part in the softmax, which the
    authors' code runs over padded text tokens, too. Retrieval ranks by (f + b) / 2.

    temperature  its inverse is learned, kept from exceeding 100
    soft         temperature of the softmax over tokens
    mix          share of the direction that a table is made for (`balance` in the authors' code, which has another
                 weighting, `depart`, besides)
    """

    def __init__(self, *, temperature: float = 0.07, learnable: bool = True, soft: float = 0.07, mix: float = 0.5):
        super().__init__()
        if not 0 <= mix <= 1 or soft <= 0:
            raise ComponentError(f"objective cico: mix is in [0, 1] and soft positive; got {mix} and {soft}")
        self.temperature, self.mix = Temperature(temperature, learnable), mix
        self.similarity = LateInteraction(soft, both_ways=True)

    def needs(self) -> Needs:
        return Needs(pairs="all", batch=2, features=frozenset({"tokens"}))

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        temperature = self.temperature()
        tables = [table for two in self._view_pairs(outputs) for table in self._terms(outputs, two, temperature)]
        return mean(tables, outputs), self.temperature.parts()

    def _view_pairs(self, outputs: Outputs) -> list[tuple]:
        """(first, second for f, second for b) of every pair of modalities."""
        by_modality = [outputs.views(m) for m in outputs.modalities()]
        if len(by_modality) == 1:
            first, second = by_modality[0][:1], by_modality[0][1:2]
            return list(zip(first, second, second))
        return [(a[0], b[0], b[-1]) for a, b in combinations([views for views in by_modality if views], 2)]

    def _terms(self, outputs: Outputs, views: tuple, temperature: float | Tensor) -> list[Tensor]:
        first, *others = views
        found = []
        for table, (second, share) in enumerate(zip(others, (self.mix, 1 - self.mix))):
            for q, k, ids in sides_of_pairs(replace(outputs, student=[first, second]), "all"):
                logits = self.similarity(q, [k])[table] / temperature
                rows, columns = info_nce_of(logits, ids, ids), info_nce_of(logits.T, ids, ids)
                found.append(share * rows.mean() + (1 - share) * columns.mean())
        return found
