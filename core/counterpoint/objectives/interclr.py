"""InterCLR: beside its own other view, an image is drawn to one of its pseudo label."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from counterpoint.batch import Encoded, Outputs, Pair
from counterpoint.errors import ComponentError
from counterpoint.kernels import contrast
from counterpoint.kernels.kmeans import centres_of, kmeans, nearest, split_small
from counterpoint.kernels.reference import log_sum_exp
from counterpoint.markers import Dim, Size
from counterpoint.objectives.mechanisms.rows import join, pair_ids
from counterpoint.objectives.moco import MoCo
from counterpoint.objectives.objective import Needs, mean
from counterpoint.randomness import Draw, key

CHUNK = 2**26  # numbers of drawn negatives held at a time


class Memory(nn.Module):
    """A feature (size, dim) and a pseudo label (size,) of every sample, -1 until it is seen, and centroids (k, dim)."""

    def __init__(self, size: int, dim: int, clusters: int, least: int):
        super().__init__()
        self.least = least
        self.register_buffer("features", torch.zeros(size, dim))
        self.register_buffer("seen", torch.zeros(size, dtype=torch.bool))
        self.register_buffer("labels", torch.full((size,), -1))
        self.register_buffer("centroids", torch.zeros(clusters, dim))
        self.register_buffer("clustered", torch.tensor(False))

    def write(self, index: Tensor, rows: Tensor) -> None:
        """Features as they are now, each with the label of the nearest centroid; of equal indices, the last one's."""
        order = index.argsort(stable=True)
        last = torch.ones_like(order, dtype=torch.bool)
        last[:-1] = index[order][1:] != index[order][:-1]
        index, rows = index[order[last]], rows[order[last]].to(self.features)
        self.features[index], self.seen[index] = rows, True
        labels = nearest(rows, self.centroids)[0] if len(rows) else index
        self.labels[index] = torch.where(self.clustered, labels, -1)

    def cluster(self, seed: int) -> None:
        """Centroids from the features: by k-means the first time; later the mean of each label, small ones filled."""
        rows = self.features[self.seen]
        if not self.clustered:
            labels, centroids = kmeans(rows, len(self.centroids), seed)
        else:
            labels = split_small(rows, self.labels[self.seen], self.centroids, self.least, seed)
            centroids = centres_of(rows, labels, self.centroids)
        self.labels[self.seen] = labels
        self.centroids.copy_(centroids)
        self.clustered.fill_(True)

    def members(self, labels: Tensor, chance: Tensor) -> Tensor:
        """(N,): for each label a sample that has it, the one at `chance` (N,) in [0, 1) of all that do."""
        ranked, order = self.labels.sort(stable=True)
        first = torch.searchsorted(ranked, labels.contiguous())
        count = torch.searchsorted(ranked, labels.contiguous(), right=True) - first
        return order[(first + (chance * count).long().clamp(max=count - 1)).clamp(0, len(order) - 1)]


class InterCLR(MoCo):
    """InterCLR on MoCo v2 (Xie et al., 2022, sections 3.1-3.4): invariance within images and between them.

        loss = (1 - w) * L_intra + w * L_inter,  w = inter_weight

    L_intra is that of `moco`. A memory holds, by sample, the last momentum key v and a pseudo label: the nearest of
    `clusters` centroids. For the L2-normalised query q of a sample with label c, a cosine margin m and temperature T:

        L_inter = mean_i -log( exp((q_i . v_p - m) / T) / (exp((q_i . v_p - m) / T) + sum_n exp(q_i . v_n / T)) )

    v_p is drawn from all features of label c, the sample's own old one included; the v_n are `negatives` features drawn
    from the `pool` nearest to q (semi-hard), those of label c left out. The memory is detached; a sample whose label is
    not known yet contributes 0 and stays in the mean. With m < 0 the positive is made easier, which the authors find
    better between images (section 3.4).

    After each batch its keys replace what the memory held and take the label of the nearest centroid; every
    `every` batches centroids become the mean of their features, and clusters of fewer than `least` samples are
    dissolved and filled with half of the largest, split by 2-means. New values take effect from the next batch on.

    Departs from the authors' code: its memory starts from features of the whole data set; this one waits, with
    L_inter = 0, until it has met every sample or the second epoch has begun, then clusters by k-means. Drawn negatives of
    the own label are left out there by drawing again. Of several keys of a sample the last view's is kept.

    size, dim  samples in the training set and width of z, from the recipe
    Defaults are those of the ImageNet run.

    Drawn, for every pair of views alike: partner int64 (N,), the samples p by their index, and negatives int64 (N, M), the
    samples n, M the lesser of `negatives` and `pool`.
    """

    draws = ("partner", "negatives")

    def __init__(
        self,
        *,
        dim: Dim,
        size: Size,
        temperature: float = 0.2,
        queue: int = 65536,
        momentum: float = 0.999,
        inter_weight: float = 0.25,
        margin: float = -0.5,
        clusters: int = 10000,
        least: int = 20,
        every: int = 10,
        pool: int = 128000,
        negatives: int = 16384,
    ):
        super().__init__(temperature=temperature, queue=queue, momentum=momentum)
        if not 0 <= inter_weight <= 1 or min(clusters - 1, every, pool, negatives) < 1 or least < 0:
            raise ComponentError(
                "objective interclr: inter_weight in [0, 1], at least two clusters, every, pool and negatives at least 1; got "
                f"{inter_weight}, {clusters}, {every}, {pool} and {negatives}"
            )
        if clusters > size:
            raise ComponentError(f"objective interclr: {clusters} clusters of {size} samples")
        self.inter_weight, self.margin, self.every = inter_weight, margin, every
        self.pool, self.negatives = min(pool, size), negatives
        self.memory = Memory(size, dim, clusters, least)

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        # Before anything is remembered: what a call does not say is asked for while the memory is as it was.
        late, turn = self.training and outputs.epoch > 0, self.training and self._turn(outputs)
        intra = super().loss(outputs)[0]
        seed, pairs = outputs.seed(), self.view_pairs(outputs)
        terms = [self._inter(pair, pair_ids(outputs, pair), seed, outputs) for pair in pairs]
        inter = mean(terms, outputs)
        if self.training:
            self._remember(outputs, pairs, seed, late, turn)
        return (1 - self.inter_weight) * intra + self.inter_weight * inter, {
            "intra": intra.detach(),
            "inter": inter.detach(),
        }

    def needs(self) -> Needs:
        return replace(super().needs(), index=True, state=len(self.memory.seen))

    def _turn(self, outputs: Outputs) -> bool:
        return self.every == 1 or outputs.step % self.every == 0

    def _inter(self, pair: Pair, ids: Tensor, seed: int, outputs: Outputs) -> Tensor:
        memory, draw = self.memory, Draw(key(seed, pair.query.view, pair.key.view), ids)
        label, chance = memory.labels[ids], draw.uniform()
        partner = memory.features[outputs.drawn("partner", ids.shape, lambda: memory.members(label, chance))]
        positive = ((pair.q * partner.to(pair.q)).sum(1) - self.margin) / self.temperature
        if "negatives" in outputs.draws:
            shape = (len(ids), min(self.negatives, self.pool))
            chosen = outputs.drawn("negatives", shape, lambda: ids)
            valid = memory.seen[chosen] & (memory.labels[chosen] != label[:, None])
        else:
            chosen, valid = self._semi_hard(pair.q.detach(), label, draw)
        negatives = _log_sum(pair.q, memory.features, chosen, valid, 1 / self.temperature)
        return (contrast(negatives, positive) * (label >= 0)).mean()

    @torch.no_grad()
    def _semi_hard(self, q: Tensor, label: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        """int64 (N, m) and bool (N, m): samples drawn from the nearest to each query, and which of them count."""
        memory, chance = self.memory, draw.positions(self.pool)
        found = []
        step = max(1, CHUNK // len(memory.seen))
        for a in range(0, len(q), step):
            similar = (q[a : a + step] @ memory.features.to(q).T).masked_fill(~memory.seen, -torch.inf)
            near = similar.topk(self.pool, 1).indices  # (n, pool), nearest first
            other = memory.seen[near] & (memory.labels[near] != label[a : a + step, None])
            rank = chance[a : a + step].masked_fill(~other, 2.0)
            value, place = rank.topk(min(self.negatives, self.pool), 1, largest=False)
            found.append((near.gather(1, place), value < 2.0))
        return torch.cat([ids for ids, _ in found]), torch.cat([valid for _, valid in found])

    @torch.no_grad()
    def _remember(self, outputs: Outputs, pairs: list[Pair], seed: int, late: bool, turn: bool) -> None:
        served = {pair.key.view for pair in pairs}
        if keys := [e for e in outputs.views(of="momentum") if e.view in served]:
            joined: Encoded = join(keys)
            self.memory.write(outputs.ids(joined), joined.z)
        memory = self.memory
        if memory.clustered:
            due = turn
        else:
            due = bool(memory.seen.all()) or (late and int(memory.seen.sum()) >= len(memory.centroids))
        if due:
            memory.cluster(seed)


def _log_sum(q: Tensor, features: Tensor, chosen: Tensor, valid: Tensor, scale: float) -> Tensor:
    """(N,): the log-sum-exp of the logits of the chosen features (N, m) that are valid.

    The slope, the mean of the features by their probabilities, is found with the value: the memory is written before
    the backward pass, and N x m features are never held.
    """
    step, parts = max(1, CHUNK // max(1, chosen.shape[1] * q.shape[1])), []
    for a in range(0, len(q), step):
        rows = slice(a, a + step)
        parts.append(_with_slope(q[rows].detach(), features[chosen[rows]].to(q), valid[rows], scale))
    value, slope = (torch.cat(part) for part in zip(*parts))
    return value + ((q - q.detach()) * slope).sum(1)


@torch.no_grad()
def _with_slope(q: Tensor, keys: Tensor, valid: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Value (n,) and derivative (n, D) of the log-sum-exp over keys (n, m, D)."""
    logits = (scale * torch.einsum("nd,nmd->nm", q, keys)).masked_fill(~valid, -torch.inf)
    value = log_sum_exp(logits, 1)
    share = torch.where(valid, (logits - value[:, None]).exp(), 0.0)
    return value, scale * torch.einsum("nm,nmd->nd", share, keys)
