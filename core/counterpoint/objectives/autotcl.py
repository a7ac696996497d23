"""AutoTCL's objective: a series finds its augmented view, and a stretch of it the stretch beside it.

Dimensions: N aligned rows, n rows of a view, L tokens of a row, D numbers of a token, k stretches of a row.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from counterpoint.batch import Encoded, Outputs, replace
from counterpoint.errors import ComponentError
from counterpoint.kernels.info_nce import info_nce
from counterpoint.kernels.pooling import max_of_stretches, max_over_time
from counterpoint.objectives.filip import sides_of_pairs
from counterpoint.objectives.mechanisms.similarity import Side
from counterpoint.objectives.objective import Needs, Objective, mean


class AutoTCL(Objective):
    """Global and local contrast of series (Zheng et al., "Parametric augmentation for time series", ICLR 2024).

    x is the first view of a modality, v each later one; r the maximum over time of a row's tokens, L2-normalised, of N
    aligned rows; T the temperature:

        global = mean_i -log( exp(r_x,i . r_v,i / T) / sum_j exp(r_x,i . r_v,j / T) )           one direction, x to v
        local  = mean over rows and c of -log( e(c, c+) / ( e(c, c+) + sum_{|d - c| > 1} e(c, d) ) )
        loss   = global + local_weight * local

    The positive is in the denominators; other rows of the own sample in none. e(c, d) = exp(s_c . s_d / T): k stretches
    of x of equal length from a random start (one draw a batch), each token L2-normalised, then the maximum over the
    stretch, which is not; c+ is the next stretch, of the last one the one before. A row of fewer than k tokens has no
    stretches. Nothing is detached. z takes no part: tokens are the representation, so that an h that is a maximum over
    them is what learns. Padding has no part.

    local_weight  0.1, the default of the authors' code; its settings for single data sets go from 1e-6 to 0.3
    stretches     k

    Departures from the authors' code: it looks at the stretches of the first series of a batch alone, and leaves out
    one negative more of the first and of the last stretch. Use it with view {use: autotcl}; other pairs of views do.

    Drawn: start, a number in [0, 1): where in its room the first stretch begins.
    """

    draws = ("start",)

    def __init__(self, *, temperature: float = 1.0, local_weight: float = 0.1, stretches: int = 16):
        super().__init__()
        if not temperature > 0:
            raise ComponentError(f"objective autotcl: temperature is above 0; got {temperature}")
        if stretches < 3:
            raise ComponentError(f"objective autotcl: stretches is 3 or more, or none has a negative; got {stretches}")
        self.temperature, self.local_weight, self.stretches = temperature, local_weight, stretches

    def needs(self) -> Needs:
        return Needs(pairs="within", batch=2, features=frozenset({"tokens"}))

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        by_modality = [outputs.views(modality) for modality in outputs.modalities()]
        found = [(views[0], v) for views in by_modality for v in views[1:]]
        pairs = [sides for x, v in found for sides in sides_of_pairs(replace(outputs, student=[x, v]), "within")]
        start = outputs.drawn("start", (), lambda: outputs.rand(device=outputs.batch.index.device))
        whole = mean([self._global(*pair) for pair in pairs], outputs)
        contrasted = [views[0] for views in by_modality if views[1:] and len(views[0].row)]
        local = mean([self._local(x, start) for x in contrasted], outputs)
        return whole + self.local_weight * local, {"global": whole.detach(), "local": local.detach()}

    def _global(self, x: Side, v: Side, ids: Tensor) -> Tensor:
        r_x, r_v = (normalize(max_over_time(side.tokens.to(x.z), side.mask), dim=-1, eps=1e-12) for side in (x, v))
        return info_nce(r_x, r_v, self.temperature, exclude=(ids, ids))

    def _local(self, x: Encoded, start: Tensor) -> Tensor:
        k, tokens = self.stretches, normalize(x.tokens.to(x.z.dtype), dim=-1, eps=1e-12)
        s = max_of_stretches(tokens, _stretch(x, k, start), k)  # (n, k, D)
        place = torch.arange(k, device=s.device)
        positive = torch.where(place < k - 1, place + 1, place - 1)
        beside = ((place[:, None] - place).abs() <= 1) & (place != positive[:, None])
        logits = (s @ s.transpose(1, 2) / self.temperature).masked_fill(beside, -torch.inf)  # (n, k, k)
        there = (_length(x) >= k).nonzero()[:, 0]
        terms = cross_entropy(logits[there].flatten(0, 1), positive.repeat(len(there)), reduction="sum")
        return terms / max(1, k * len(there))


def _length(x: Encoded) -> Tensor:
    """int64 (n,): real tokens of every row, which come before padding."""
    return x.row.new_full((len(x.row),), x.tokens.shape[1]) if x.mask is None else x.mask.sum(1)


def _stretch(x: Encoded, k: int, start: Tensor) -> Tensor:
    """int64 (n, L): in which of k stretches a token is, from `start` in [0, 1) of the room there is; else outside 0..k-1."""
    length = _length(x)
    size = length // k
    first = (start * (length - size * k + 1)).long()
    token = torch.arange(x.tokens.shape[1], device=first.device)
    place = torch.div(token - first[:, None], size.clamp(min=1)[:, None], rounding_mode="floor")
    return torch.where((token < length[:, None]) & (size > 0)[:, None], place, -1)
