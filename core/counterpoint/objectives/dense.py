"""Dense objectives: places of two views that show the same place of the sample should agree. PixPro.

Dimensions: N aligned rows of a pair of views, D channels of a projected map, S spatial axes, L places of a map.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from counterpoint.batch import Encoded, Outputs
from counterpoint.errors import ComponentError
from counterpoint.markers import Dim
from counterpoint.objectives.objective import Momentum, Needs, Objective, mean
from counterpoint.views.place import PLACE, cells, diagonals


class Aligned(NamedTuple):
    """A student view and the momentum map of another: row i[n] of the one and j[n] of the other are of one sample."""

    query: Encoded
    key: Encoded
    i: Tensor
    j: Tensor

    def places(self) -> tuple[Tensor, Tensor]:
        """(N, 1 + S, S) twice: where the rows lie in their sample."""
        return self.query.meta[PLACE].to(self.query.z)[self.i], self.key.meta[PLACE].to(self.key.z)[self.j]


def aligned_maps(outputs: Outputs, who: str) -> list[Aligned]:
    """Every ordered pair of views of one modality, for objective `who`; ComponentError where one has no map or no place.

    Rows of one sample that are different parts of it (windows, captions) are no pair: places are those of a part.
    """
    views = {side: {e.view: e for e in outputs.views(of=side)} for side in ("student", "momentum")}
    numbered = {side: [_numbered(e) for e in found.values()] for side, found in views.items()}
    found = []
    for pair in replace(outputs, **numbered).pairs("within", keys="momentum"):
        query, key = views["student"][pair.query.view], views["momentum"][pair.key.view]
        for e in (query, key):
            _check(e, who)
        same = torch.ones_like(pair.q, dtype=torch.bool)
        if "part" in query.meta and "part" in key.meta:
            same = query.meta["part"][pair.q] == key.meta["part"][pair.k]
        found.append(Aligned(query, key, pair.q[same], pair.k[same]))
    return [pair for pair in found if len(pair.i)]


def _numbered(e: Encoded) -> Encoded:
    return replace(e, z=torch.arange(len(e.row), device=e.row.device))


def _check(e: Encoded, who: str) -> None:
    where = f"objective {who!r}: view {e.view} of {e.modality!r}"
    if e.map is None:
        raise ComponentError(f"{where} has no map; its encoder has to give one, and heads.{e.modality} to project it")
    place = e.meta.get(PLACE)
    if not isinstance(place, Tensor):
        raise ComponentError(
            f"{where} does not say where it lies in the sample: no step of views.{e.modality} records it"
        )
    if place.shape[1:] != (e.map.ndim - 1, e.map.ndim - 2):
        axes = f"its map has {e.map.ndim - 2} spatial axes and its place {place.shape[-1]}"
        raise ComponentError(f"{where}: {axes}; expected as many")


class PixPro(Objective):
    """Pixel-to-propagation consistency (Xie et al., 2021, section 3.2, eq. 1 and 3-5), no negatives.

    For a view a and another view b of the same sample, x_i (D) the student's projected map of a at place i, k_j the
    momentum encoder's of b at place j, L2-normalised and detached, cos the cosine, W a linear map of the objective's:

        y_i  = sum_j max(cos(x_i, x_j), 0)^sharpness  unit(W x_j)                over all places of a; W has a bias
        M_ij = 1 if |c_i - c_j| < threshold * max(d_a, d_b), else 0
        L_ab = -2 mean_n [ sum_ij M_ij unit(y_i) . k_j / (sum_ij M_ij + 1e-6) ]
        loss = mean over unordered pairs of views of L_ab + L_ba                 (their sum for two views, as in the code)

    c are the centres of the places in the sample, d the diagonal of one place of a view in it: both in its voxels, from
    what the views record (counterpoint.views.place). The paper writes the cosine averaged over places; this is the
    released form, twice that. Rows without a positive place count 0 and stay in the mean. Pairs are within a modality.
    Logged: `overlap`, the share of rows with a positive.

    The maps are those of the head: heads: {scan: {use: dense}}. The instance branch is a second objective on z
    (objective: {places: pixpro, whole: byol}, with dense's `instance`). The momentum rises from 0.99 to 1.

    sharpness, threshold  of the released runs; sharpness is at least 1, since a root has no slope at 0
    """

    unit = False

    def __init__(
        self,
        *,
        dim: Dim,
        sharpness: float = 2.0,
        threshold: float = 0.7,
        momentum: float = 0.99,
        final_momentum: float = 1.0,
    ):
        super().__init__()
        if not sharpness >= 1 or not threshold > 0:
            raise ComponentError(
                f"objective pixpro: sharpness is at least 1 and threshold positive; got {sharpness} and {threshold}"
            )
        self.sharpness, self.threshold = sharpness, threshold
        self.momentum, self.final_momentum = momentum, final_momentum
        self.value = nn.Linear(dim, dim)

    def needs(self) -> Needs:
        return Needs(
            pairs="within",
            features=frozenset({"map"}),
            heads=frozenset({"map"}),
            records=frozenset({PLACE}),
            momentum=Momentum(self.momentum, self.final_momentum),
        )

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        pairs = aligned_maps(outputs, "pixpro")
        queries = {e.view: self._propagated(places_of(e)) for e in {p.query.view: p.query for p in pairs}.values()}
        terms, overlap = [], []
        for pair in pairs:
            matched = self._matched(pair)  # (N, L, L')
            keys = normalize(places_of(pair.key), dim=-1)[pair.j]  # (N, L', D)
            count = matched.sum((1, 2))
            agreement = (queries[pair.query.view][pair.i] * (matched @ keys)).sum((1, 2))
            terms.append(-2 * (agreement / (count + 1e-6)).mean())
            overlap.append((count > 0).to(count).mean())
        return 2 * mean(terms, outputs), {"overlap": mean(overlap, outputs).detach()}

    def _propagated(self, x: Tensor) -> Tensor:
        """(n, L, D): each place of x (n, L, D) as those of its own view that are like it say it should be."""
        values, x = normalize(self.value(x), dim=-1), normalize(x, dim=-1)
        alike = (x @ x.transpose(1, 2)).clamp(min=0) ** self.sharpness
        return normalize(alike @ values, dim=-1)

    @torch.no_grad()
    def _matched(self, pair: Aligned) -> Tensor:
        (a, b), sizes = pair.places(), (pair.query.map.shape[2:], pair.key.map.shape[2:])
        exact = "donot_use_mm_for_euclid_dist"
        distance = torch.cdist(cells(a, sizes[0]), cells(b, sizes[1]), compute_mode=exact)
        reach = self.threshold * torch.maximum(diagonals(a, sizes[0]), diagonals(b, sizes[1]))
        return (distance < reach[:, None, None]).to(distance)


def places_of(e: Encoded) -> Tensor:
    """(n, L, D): the map of a view, place by place."""
    return e.map.to(e.z.dtype).flatten(2).transpose(1, 2)
