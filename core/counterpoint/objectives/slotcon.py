"""SlotCon: places are grouped by prototypes, alike in both views, and the groups of a sample are contrasted.

Dimensions: N aligned rows of a pair of views, D channels of a projected map, K prototypes, L places of a map.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from counterpoint.batch import Encoded, Outputs
from counterpoint.errors import ComponentError
from counterpoint.heads.dense import small_weights
from counterpoint.kernels import info_nce
from counterpoint.markers import Dim, Prototypes
from counterpoint.objectives.dense import Aligned, aligned_maps, places_of
from counterpoint.objectives.mechanisms.predictor import TolerantNorm
from counterpoint.objectives.objective import Momentum, Needs, Objective, mean
from counterpoint.views.place import PLACE, interpolation, overlap


class Grouped(NamedTuple):
    """What prototypes make of a view: slots (n, K, D), and which of them are the most alike of some place, bool (n, K)."""

    slots: Tensor
    active: Tensor


class SlotCon(Objective):
    """Semantic grouping and slot contrast (Wen et al., 2022, sections 3.1 and 3.2), the mean over ordered pairs of views, doubled.

    For a student view a and the momentum encoder's view b of the same sample, with the projected maps x (L, D) and y, and
    the scores s, t (L, K) that head `slots` gives, cosines with the prototypes; t, y are detached:

        A       = softmax_k(s / teacher_temperature) + 1e-6
        slot_k  = sum_l A_lk x_l / sum_l A_lk                                     likewise of t and y
        group   = -mean_l sum_k softmax_k((t~_l - centre) / teacher_temperature) log softmax_k(s~_l / student_temperature)
        slots   = -2 temperature mean log( exp(cos(p(slot_k), slot'_k) / temperature) / sum_j exp(cos(p(slot_k), slot'_j) / temperature) )
        L_ab    = group_weight * group + (1 - group_weight) * slots
        loss    = mean over unordered pairs of views of L_ab + L_ba               (their sum for two views, as in the code)

    s~ and t~ are the scores where both views look, interpolated at the same L points of the sample (the overlap of the two
    boxes, in cells as many as the map of a has), so that flips and scales are undone; views record where they lie
    (counterpoint.views.place). `slots` is a mean over the slots k of all samples that are active in both views: the first
    choice of some place of it. Candidates j are all active slots of b, of all samples and ranks, the positive among them;
    the same prototype of another row of the same sample is none. p is a predictor (two hidden layers, batch norm, GELU).

    `centre` (K) is a buffer: an average over steps of the mean of t over all places, samples and ranks, with the share
    `centre_momentum` of the old, written after the loss in training mode only. Temperatures are fixed, as in the code, and
    the momentum rises from 0.99 to 1. Logged: `group`, `slots`.

    prototypes  K of the head, from which it is taken

    Departures from the code: samples whose views do not overlap have no part in `group`, where the code reads beyond the
    border (its crops nearly always overlap); of views that are turned, points that one of them lacks have none.
    """

    unit = False

    def __init__(
        self,
        *,
        dim: Dim,
        prototypes: Prototypes = 256,
        hidden: int = 4096,
        temperature: float = 0.2,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.07,
        group_weight: float = 0.5,
        centre_momentum: float = 0.9,
        momentum: float = 0.99,
        final_momentum: float = 1.0,
    ):
        super().__init__()
        if min(temperature, student_temperature, teacher_temperature) <= 0 or hidden < 1:
            got = f"{temperature}, {student_temperature}, {teacher_temperature} and {hidden}"
            raise ComponentError(f"objective slotcon: temperatures and hidden are positive; got {got}")
        if not (0 <= group_weight <= 1 and 0 <= centre_momentum <= 1):
            raise ComponentError(
                f"objective slotcon: group_weight and centre_momentum are in [0, 1]; got {group_weight}, {centre_momentum}"
            )
        self.temperature, self.group_weight, self.centre_momentum = temperature, group_weight, centre_momentum
        self.student_temperature, self.teacher_temperature = student_temperature, teacher_temperature
        self.momentum, self.final_momentum = momentum, final_momentum
        hidden_layers = [(nn.Linear(n, hidden), TolerantNorm(hidden), nn.GELU()) for n in (dim, hidden)]
        self.predictor = nn.Sequential(*hidden_layers[0], *hidden_layers[1], nn.Linear(hidden, dim))
        small_weights(self.predictor)
        self.register_buffer("centre", torch.zeros(prototypes))

    def needs(self) -> Needs:
        return Needs(
            pairs="within",
            features=frozenset({"map"}),
            heads=frozenset({"map", "scores"}),
            records=frozenset({PLACE}),
            momentum=Momentum(self.momentum, self.final_momentum),
        )

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        pairs = aligned_maps(outputs, "slotcon")
        views = {(id(e), e.view): e for pair in pairs for e in (pair.query, pair.key)}
        grouped = {name: self._grouped(e) for name, e in views.items()}
        group = mean([self._group(pair) for pair in pairs], outputs)
        terms = [
            self.contrast(pair, *(grouped[id(e), e.view] for e in (pair.query, pair.key)), outputs) for pair in pairs
        ]
        slots = mean(terms, outputs)
        if self.training:
            self._follow(outputs)
        parts = {"group": group.detach(), "slots": slots.detach()}
        return 2 * (self.group_weight * group + (1 - self.group_weight) * slots), parts

    def _grouped(self, e: Encoded) -> Grouped:
        scores = self._scores(e)  # (n, L, K)
        share = (scores / self.teacher_temperature).softmax(2) + 1e-6
        slots = (share / share.sum(1, keepdim=True)).transpose(1, 2) @ places_of(e)
        active = torch.zeros_like(scores, dtype=torch.bool).scatter_(2, scores.argmax(2, keepdim=True), True)
        return Grouped(slots, active.any(1))

    def _scores(self, e: Encoded) -> Tensor:
        """(n, L, K)."""
        if "scores" not in e.heads:
            raise ComponentError(f"objective slotcon: heads.{e.modality} gives no scores; use: slots does")
        scores = e.heads["scores"].to(e.z.dtype)
        if scores.shape[1] != len(self.centre):
            raise ComponentError(
                f"objective slotcon: expected {len(self.centre)} prototypes; heads.{e.modality} has {scores.shape[1]}"
            )
        return scores.flatten(2).transpose(1, 2)

    def _group(self, pair: Aligned) -> Tensor:
        """The mean cross-entropy of the groups of the same points in both views."""
        places, maps = pair.places(), (pair.query.map.shape[2:], pair.key.map.shape[2:])
        points, there = overlap(*places, maps[0])
        views = zip((pair.query, pair.key), (pair.i, pair.j), places, maps)
        s, t = (interpolation(place, points, sizes) @ self._scores(e)[rows] for e, rows, place, sizes in views)
        target = ((t - self.centre) / self.teacher_temperature).softmax(2)
        terms = -(target * (s / self.student_temperature).log_softmax(2)).sum(2)  # (N, L)
        return (terms * there).sum() / there.sum().clamp(min=1)

    def contrast(self, pair: Aligned, a: Grouped, b: Grouped, outputs: Outputs) -> Tensor:
        """The slots of the one view among those of the other."""
        keys = b.active[pair.j]  # (N, K)
        both = a.active[pair.i] & keys
        if not both.any():
            return outputs.zero()
        number = keys.flatten().cumsum(0).view_as(keys) - 1
        of = outputs.batch.index[pair.query.row[pair.i]][:, None] * len(self.centre)
        ids = of + torch.arange(len(self.centre), device=of.device)  # a prototype of a sample
        predicted = normalize(self.predictor(a.slots[pair.i][both]), dim=1)
        others = normalize(b.slots[pair.j][keys], dim=1)
        exclude = (ids[both], ids[keys])
        found = info_nce(predicted, others, self.temperature, positives=number[both], exclude=exclude)
        return 2 * self.temperature * found

    @torch.no_grad()
    def _follow(self, outputs: Outputs) -> None:
        """The centre moves towards the mean of the teacher's scores."""
        seen = [self._scores(e).flatten(0, 1) for e in outputs.views(of="momentum") if len(e.row)]
        if seen:
            self.centre.lerp_(torch.cat(seen).mean(0).to(self.centre.dtype), 1 - self.centre_momentum)
