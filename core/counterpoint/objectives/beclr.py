"""BECLR: batches enhanced with neighbours from clustered memories of the student and of its momentum teacher."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from counterpoint.batch import Encoded, Outputs, align
from counterpoint.errors import ComponentError
from counterpoint.kernels import softmax_stats
from counterpoint.kernels.identities import counts
from counterpoint.kernels.kmeans import centres_of, kmeans
from counterpoint.kernels.reference import log_sum_exp
from counterpoint.markers import Dim
from counterpoint.objectives.mechanisms.predictor import Predictor
from counterpoint.objectives.mechanisms.sinkhorn import sinkhorn
from counterpoint.objectives.objective import Momentum, Needs, Objective


class ClusterMemory(nn.Module):
    """The last `capacity` rows, unit (K, dim), their clusters (K,) and the centres (P, dim); clustered once it is full."""

    EPSILON, ITERATIONS = 0.05, 10  # of Sinkhorn, as released

    def __init__(self, capacity: int, dim: int, clusters: int):
        super().__init__()
        self.register_buffer("rows", torch.zeros(capacity, dim))
        self.register_buffer("labels", torch.full((capacity,), -1))
        self.register_buffer("centres", torch.zeros(clusters, dim))
        self.register_buffer("seen", torch.tensor(0))
        self.register_buffer("clustered", torch.tensor(False))

    def neighbours(self, queries: Tensor, k: int) -> Tensor:
        """(N, k, dim): the rows nearest to each query in the cluster of the centre nearest to it.

        In a cluster with fewer than k rows, the nearest of all.
        """
        rows = self.rows.to(queries)
        cluster = (queries @ normalize(self.centres.to(queries), dim=1).T).argmax(1)
        other = self.labels != cluster[:, None]
        small = (~other).sum(1, keepdim=True) < k
        similar = (queries @ rows.T).masked_fill(other & ~small, -torch.inf)
        return rows[similar.topk(k, 1).indices]

    def push(self, rows: Tensor, seed: int) -> None:
        """Add rows (n, dim), the oldest giving way, with balanced clusters; the first time it is full, k-means."""
        rows, capacity = rows[-len(self.rows) :].to(self.rows), len(self.rows)
        at = (int(self.seen) + torch.arange(len(rows), device=rows.device)) % capacity
        self.rows[at] = rows
        self.seen += len(rows)
        if self.clustered:
            scores = rows @ normalize(self.centres, dim=1).T
            self.labels[at] = sinkhorn(scores, self.EPSILON, self.ITERATIONS).argmax(1)
            self.centres.copy_(centres_of(self.rows, self.labels, self.centres))
        elif self.seen >= capacity:
            labels, centres = kmeans(self.rows, len(self.centres), seed)
            self.labels.copy_(labels)
            self.centres.copy_(centres)
            self.clustered.fill_(True)


class Enhanced(NamedTuple):
    """One view with its neighbours: encoded rows (n, D), near (n, k, D) or None."""

    encoded: Encoded
    near: Tensor | None


class BECLR(Objective):
    """BECLR (Poulakakis-Daktylidis and Jamali-Rad, 2024, sections 4.1-4.2): loss = L_pos + negative_weight * L_neg.

    z = student, p = predictor(z), t = momentum encoders (detached), all L2-normalised afterwards. Each is enhanced: for
    a row, the k nearest rows of its own memory, in the memory's cluster nearest to the row, stand beside it, so that n
    rows become n (1 + k). Over the enhanced rows of each view, and own(i) all rows that stand at i's place in any view
    (i itself, and its view partner or, for a neighbour, the partner's neighbour of the same rank):

        L_pos = mean over ordered pairs of views (a, b) of  -mean_i cos(p_a,i, t_b,i)
        L_neg = log mean_i mean_{j not in own(i)} exp(z_i . z_j / temperature)    over the rows of all views in one stack

    The positive is not in L_neg, whose log stands outside the mean over anchors; the gradient flows into both sides of
    z_i . z_j. Rows from memories are constants: in L_pos they only weaken the others' share, by 1 / (1 + k), in L_neg
    they are further anchors and negatives. The paper's student sees masked images: put that in the views.

    Each of three memories (of t, p and z) takes the rows of all views after the loss. Full for the first time it is
    clustered by k-means; from then on new rows are assigned by Sinkhorn, which balances, and centres are the means of
    their members. Neighbours are used from epoch `start` on, when a memory has been clustered.

    Departs from the released code in looking for neighbours before the batch enters the memory: there each row is its
    own nearest neighbour. The momentum rises from 0.9 to 1 along a half cosine.

    Drawn: seed, the int64 from which k-means starts.

    dim is the width of z; the predictor's hidden width is a quarter of it. Capacity and clusters of a memory are the
    defaults of the released code (20 rows a cluster), whose defaults for the rest vary by data set.
    """

    unit = False
    draws = ("seed",)

    def __init__(
        self,
        *,
        dim: Dim,
        temperature: float = 2.0,
        negative_weight: float = 0.1,
        memory: int = 2048,
        clusters: int = 100,
        neighbours: int = 10,
        start: int = 50,
        momentum: float = 0.9,
    ):
        super().__init__()
        if temperature <= 0 or min(clusters, neighbours) < 1 or memory < max(clusters, neighbours):
            raise ComponentError(
                "objective beclr: temperature is positive, and a memory holds at least as many rows as clusters and "
                f"neighbours; got {temperature}, memory {memory}, clusters {clusters}, neighbours {neighbours}"
            )
        self.temperature, self.negative_weight, self.momentum = temperature, negative_weight, momentum
        self.neighbours, self.start = neighbours, start
        self.predictor = Predictor(dim, max(1, dim // 4), biased=(True, True))
        names = ("teacher", "predictor", "projector")
        self.memories = nn.ModuleDict({name: ClusterMemory(memory, dim, clusters) for name in names})

    def needs(self) -> Needs:
        return Needs(pairs="all", batch=2, momentum=Momentum(self.momentum, 1.0))

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        students, early = outputs.views(), self.start > 0 and outputs.epoch < self.start
        seed = int(outputs.drawn("seed", (), lambda: torch.tensor(outputs.seed())))
        z = [_unit(e) for e in students]
        p = [_unit(replace(e, z=self.predictor(e.z))) for e in students]
        t = [_unit(e) for e in outputs.views(of="momentum")]
        sides = {"teacher": t, "predictor": p, "projector": z}
        found = {name: self._enhanced(name, side, early) for name, side in sides.items()}
        aligned = _attraction(found["predictor"], found["teacher"])
        apart = self._repulsion(found["projector"], outputs) if aligned else None
        if self.training:
            self._remember(sides, seed)
        if not aligned:
            return outputs.zero(), {}
        positive = -sum(aligned) / len(aligned)
        return positive + self.negative_weight * apart, {"positive": positive.detach(), "negative": apart.detach()}

    @torch.no_grad()
    def _remember(self, sides: dict[str, list[Encoded]], seed: int) -> None:
        for name, side in sides.items():
            if rows := [e.z for e in side if len(e.row)]:
                self.memories[name].push(torch.cat(rows), seed)

    def _enhanced(self, name: str, side: list[Encoded], early: bool) -> list[Enhanced]:
        memory = self.memories[name]
        if early or not all(m.clustered for m in self.memories.values()):
            return [Enhanced(e, None) for e in side]
        with torch.no_grad():
            return [Enhanced(e, memory.neighbours(e.z, self.neighbours)) for e in side]

    def _repulsion(self, views: list[Enhanced], outputs: Outputs) -> Tensor:
        rows = [e.z for e, _ in views] + [near.flatten(0, 1) for _, near in views if near is not None]
        k = self.neighbours + 1  # place 0 is the row itself, place r its neighbour of rank r
        own = [outputs.ids(e) * k for e, _ in views]
        rank = torch.arange(1, k, device=own[0].device)
        own += [(outputs.ids(e)[:, None] * k + rank).flatten() for e, near in views if near is not None]
        z, ids = torch.cat(rows), torch.cat(own)
        others = counts(len(z), len(z), (ids, ids), None, z.device)
        sums = softmax_stats(z, z, 1 / self.temperature, exclude=(ids, ids)).rows - others.clamp(min=1).to(z).log()
        anchors = others > 0
        total = log_sum_exp(sums[None], 1)[0] - anchors.sum().clamp(min=1).to(z).log()
        return torch.where(anchors.any(), total, torch.zeros_like(total))


def _unit(e: Encoded) -> Encoded:
    return replace(e, z=normalize(e.z, dim=-1, eps=1e-12))


def _attraction(students: list[Enhanced], teachers: list[Enhanced]) -> list[Tensor]:
    """The mean cosine over the enhanced rows of each ordered pair of views that have a sample in common."""
    found = []
    for a, near_a in students:
        for b, near_b in teachers:
            if a.view == b.view:
                continue
            place = align(_places(a), _places(b))
            i, j = place.q, place.k
            if len(i):
                cosine = (a.z[i] * b.z[j]).sum(1)
                if near_a is not None:
                    beside = (near_a[i] * near_b[j]).sum(2)  # (N, k), constants
                    cosine = (cosine + beside.sum(1)) / (1 + beside.shape[1])
                found.append(cosine.mean())
    return found


def _places(e: Encoded) -> Encoded:
    """The rows' own numbers in place of z."""
    return replace(e, z=torch.arange(len(e.row), device=e.row.device))
