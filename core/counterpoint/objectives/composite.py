"""CLIP with further terms: contrast within modalities (CleanCLIP), uniformity and alignment (the contrastive gap)."""

from __future__ import annotations

from dataclasses import replace
from math import log

import torch
from torch import Tensor

from counterpoint.batch import NEGATIVE, Outputs, Pair, align
from counterpoint.errors import ComponentError
from counterpoint.kernels import softmax_stats
from counterpoint.kernels.identities import counts
from counterpoint.objectives.clip import CLIP
from counterpoint.objectives.mechanisms.rows import pair_ids
from counterpoint.objectives.objective import Needs, mean
from counterpoint.objectives.uniformity import AlignUniform


class CleanCLIP(CLIP):
    """CleanCLIP (Bansal et al., 2023, section 3): contrast across and within modalities.

    The first view of a modality is the original, the others are augmented ones. For N aligned rows, L2-normalised,
    s = 1 / temperature learned as in CLIP, I and T the originals, I' and T' their augmentations, and
    nce(q, k) = mean_i -log( exp(s q_i . k_i) / sum_j exp(s q_i . k_j) ):

        cross  = 1/2 [ nce(I, T) + nce(T, I) ]            only originals enter it
        within = 1/2 [ nce(I, I') + nce(T, T') ]          one direction, candidates are the augmented views alone
        loss   = cross_weight * cross + within_weight * within

    `cross` is the mean over pairs of modalities, `within` over (original, augmented) pairs. The positive is in every
    denominator, nothing is detached, other rows of the own sample are never negatives. Both weights are 1 as in the
    authors' code, which can also unlearn flagged samples; that term is left out.
    """

    def __init__(
        self,
        *,
        temperature: float = 0.07,
        learnable: bool = True,
        cross_weight: float = 1.0,
        within_weight: float = 1.0,
    ):
        super().__init__(temperature=temperature, learnable=learnable)
        self.cross_weight, self.within_weight = cross_weight, within_weight

    def needs(self) -> Needs:
        return Needs(pairs="across", modalities=2, views=2 if self.within_weight else 1, batch=2)

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        temperature = self.temperature()
        views = [outputs.views(modality) for modality in outputs.modalities()]
        views = [found for found in views if found]
        negatives = [e for e in outputs.student if e.role == NEGATIVE]
        originals = replace(outputs, student=[found[0] for found in views] + negatives)
        pairs = originals.pairs("across")
        cross = mean([self.pair_loss(pair, temperature, originals) for pair in pairs], outputs)
        inner = [align(first, other) for first, *others in views for other in others]
        terms = [self._within(pair, temperature, outputs) for pair in inner if len(pair.row)]
        within = mean(terms, outputs)
        parts = {"cross": cross.detach(), "within": within.detach(), **self.temperature.parts()}
        return self.cross_weight * cross + self.within_weight * within, parts

    def _within(self, pair: Pair, temperature: float | Tensor, outputs: Outputs) -> Tensor:
        return self.contrast(pair.q, pair.k, temperature, pair_ids(outputs, pair), (), 1.0)


class ContrastiveGap(AlignUniform):
    """CLIP with alignment and uniformity, to close the contrastive gap (Fahim et al., 2024, section 4).

    For N aligned rows x, y (N, D) of two modalities, L2-normalised, the temperature fixed:

        align    = mean_i ||x_i - y_i||^2
        uniform  = 1/2 [ log mean_{i < j} exp(-2 ||x_i - x_j||^2) + log mean_{i < j} exp(-2 ||y_i - y_j||^2) ]
        xuniform = log mean_{i != j} exp(-2 ||x_i - y_j||^2)
        loss     = clip + align_weight * align + uniform_weight * uniform + cross_weight * xuniform

    clip is the loss of `clip`. `align` and `xuniform` are means over pairs of modalities, `uniform` over views; i and j
    are different samples, nothing is detached. A term without two samples is left out. The paper writes 1/N before
    the sums for the mean, which adds a constant.

    Weights 1, 1, 0 are the paper's CUA, 1, 1, 1 its CUAXU; align_weight 0 is its CU.
    """

    def __init__(
        self,
        *,
        temperature: float = 0.01,
        align_weight: float = 1.0,
        uniform_weight: float = 1.0,
        cross_weight: float = 0.0,
    ):
        super().__init__(align_weight=align_weight, uniform_weight=uniform_weight)
        self.contrast = CLIP(temperature=temperature, learnable=False)
        self.cross_weight, self.temperature = cross_weight, temperature

    def needs(self) -> Needs:
        return Needs(pairs="across", modalities=2, batch=2)

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        if len(outputs.modalities()) == 1:
            raise ComponentError("objective contrastive_gap: needs two modalities, and the batch has one")
        pairs = outputs.pairs("across")
        terms = {
            "clip": self.contrast.loss(outputs)[0],
            "align": mean([self.alignment(p.q - p.k) for p in pairs], outputs),
            "uniform": _mean_of([self.uniformity(e.z, outputs.ids(e)) for e in outputs.views()], outputs),
            "xuniform": _mean_of([self._cross(p, pair_ids(outputs, p)) for p in pairs], outputs),
        }
        weights = (1.0, self.align_weight, self.uniform_weight, self.cross_weight)
        total = sum(weight * term for weight, term in zip(weights, terms.values()) if weight)
        return total, {name: term.detach() for name, term in terms.items()}

    def _cross(self, pair: Pair, ids: Tensor) -> Tensor | None:
        """Uniformity between modalities: ||a - b||^2 = 2 - 2 a . b on the sphere."""
        found = int(counts(len(ids), len(ids), (ids, ids), None, ids.device).sum())
        if not found:
            return None
        rows = softmax_stats(pair.q, pair.k, 2 * self.t, exclude=(ids, ids)).rows
        return torch.logsumexp(rows[rows > -torch.inf], 0) - log(found) - 2 * self.t


def _mean_of(terms: list[Tensor | None], outputs: Outputs) -> Tensor:
    return mean([term for term in terms if term is not None], outputs)
