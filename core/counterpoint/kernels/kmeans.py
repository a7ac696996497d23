"""k-means of rows, in blocks of distances.

Dimensions: n rows, D width, k clusters. Everything is the same in every run, on a GPU too: draws are hashes, and sums
are taken in the order of the rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from counterpoint.kernels.identities import sums
from counterpoint.randomness import Draw

CHUNK = 2**24  # distances held at a time


@torch.no_grad()
def kmeans(rows: Tensor, k: int, seed: int, iterations: int = 20) -> tuple[Tensor, Tensor]:
    """Labels int64 (n,) and centres (k, D) of rows (n, D); with fewer rows than clusters, some stay empty."""
    centres = _spread(rows, k, seed)
    labels = _filled(*nearest(rows, centres), k)
    for _ in range(iterations):
        before, centres = labels, centres_of(rows, labels, centres)
        labels = _filled(*nearest(rows, centres), k)
        if torch.equal(labels, before):
            break
    return labels, centres


def _spread(rows: Tensor, k: int, seed: int) -> Tensor:
    """k-means++ (Arthur and Vassilvitskii, 2007, section 2.2): rows drawn in proportion to their squared distance.

    The largest of weight / exponential is drawn in proportion to the weights, without a running sum to round.
    """
    draw = Draw(seed, torch.arange(len(rows), device=rows.device))
    distance, centres = rows.new_ones(len(rows)), []
    for _ in range(k):
        exponential = -torch.log(draw.uniform() + 2.0**-25)
        centre = rows[(distance / exponential).argmax()]
        centres.append(centre)
        to_it = (rows - centre).square().sum(1)
        distance = to_it if len(centres) == 1 else torch.minimum(distance, to_it)
    return torch.stack(centres)


def nearest(rows: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest centre of every row (n,) and the squared distance to it (n,)."""
    half, parts = centres.square().sum(1) / 2, []
    for part in rows.split(max(1, CHUNK // len(centres))):
        least, label = (half - part @ centres.T).min(1)
        parts.append((label, part.square().sum(1) + 2 * least))
    labels, distances = zip(*parts)
    return torch.cat(labels), torch.cat(distances)


def ranked(rows: Tensor, labels: Tensor, centres: Tensor, top: int) -> Tensor:
    """int64 (n, top): the cluster of every row, then the nearest other centres."""
    parts = []
    for part, label in zip(rows.split(step := max(1, CHUNK // len(centres))), labels.split(step)):
        distance = centres.square().sum(1) / 2 - part @ centres.T
        distance.scatter_(1, label[:, None], -torch.inf)
        parts.append(distance.topk(top, 1, largest=False).indices)
    return torch.cat(parts)


def _filled(labels: Tensor, distance: Tensor, k: int) -> Tensor:
    """Labels without an empty cluster, as far as there are rows."""
    counts = torch.bincount(labels, minlength=k)
    for empty in (counts == 0).nonzero().flatten().tolist():
        largest = counts.argmax()
        if counts[largest] < 2:
            break
        moved = distance.masked_fill(labels != largest, -torch.inf).argmax()
        labels[moved], distance[moved] = empty, 0.0
        counts[largest] -= 1
        counts[empty] += 1
    return labels


@torch.no_grad()
def split_small(rows: Tensor, labels: Tensor, centres: Tensor, least: int, seed: int) -> Tensor:
    """Labels in which clusters of fewer than `least` rows were dissolved, and got half of the largest by 2-means.

    The rows of a small cluster go to the nearest centre of those that are not; nothing changes when all are small.
    """
    counts = torch.bincount(labels, minlength=len(centres))
    small = counts < max(1, least)
    if not small.any() or small.all():
        return labels
    moved = small[labels]
    far = nearest(rows[moved], centres[~small])[0] if moved.any() else labels[moved]
    labels = labels.masked_scatter(moved, (~small).nonzero().flatten()[far])
    for empty in small.nonzero().flatten().tolist():
        members = (labels == torch.bincount(labels, minlength=len(centres)).argmax()).nonzero().flatten()
        if len(members) < 2:
            break
        labels[members[kmeans(rows[members], 2, seed)[0] == 1]] = empty
    return labels


def centres_of(rows: Tensor, labels: Tensor, centres: Tensor) -> Tensor:
    """(k, D): the mean of the rows of every cluster; one without rows stays where it is."""
    names = torch.arange(len(centres), device=rows.device)
    counts = torch.bincount(labels, minlength=len(centres))
    mean = sums(rows, None, (names, labels)) / counts.clamp(min=1)[:, None]
    return torch.where(counts[:, None] > 0, mean, centres)
