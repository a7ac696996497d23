"""Objectives with prototypes as plain loops: assignments to them, and memories clustered by them."""

from functools import partial

import torch
from torch.nn.functional import normalize

from counterpoint.objectives.beclr import BECLR
from counterpoint.objectives.swav import SwAV
from objectives.foundation import plain_predictor
from objectives.scenes import MANY, ONE, Case, D, aligned, average, dot, lse, total, unit, who


def plain_sinkhorn(scores, epsilon, iterations):
    """Assignments of rows as lists: the masses of K prototypes and n rows are balanced in turn, prototypes first."""
    q = [[(s / epsilon).exp() for s in row] for row in scores]
    n, k = len(q), len(q[0])
    for _ in range(iterations):
        mass = [sum(row[c] for row in q) for c in range(k)]
        q = [[row[c] / mass[c] / k for c in range(k)] for row in q]
        q = [[x / sum(row) / n for x in row] for row in q]
    return [[x * n for x in row] for row in q]


def plain_swav(o, m):
    weights = m.prototypes.detach()
    # the rows are scaled without a gradient, and with it in the first steps there is none
    learned = 0 * m.prototypes if o.step < m.frozen_steps else m.prototypes - weights
    prototypes = [unit(w) + d for w, d in zip(weights, learned)]
    if o.step < m.frozen_steps:
        prototypes = [p.detach() for p in prototypes]
    held = o.queues["keys"].z if m.queue and o.epoch >= m.queue_start else []
    scores = lambda rows: [[dot_raw(unit(z), c) for c in prototypes] for z in rows]  # noqa: E731
    views, losses = [e for e in o.student if e.role != "negative"], []
    for g in views:
        if g.role == "local" or not len(g.row):
            continue
        targets = plain_sinkhorn([[s.detach() for s in row] for row in scores([*g.z, *held])], m.epsilon, m.iterations)
        for v in views:
            if v is g or not aligned(g, v):
                continue
            terms = []
            for i, j in aligned(g, v):
                logits = [s / m.temperature for s in scores([v.z[j]])[0]]
                terms.append(-total(t * (x - lse(logits)) for t, x in zip(targets[i], logits)))
            losses.append(average(terms))
    return average(losses)


def dot_raw(a, b):
    return (a * b).sum()


class Filled(BECLR):
    """A BECLR whose memories are full and clustered."""

    def _apply(self, fn, recurse=True):
        random = torch.Generator().manual_seed(11)
        for memory in self.memories.values():
            if not memory.clustered:
                memory.rows.copy_(normalize(torch.randn(memory.rows.shape, generator=random), dim=1))
                memory.centres.copy_(torch.randn(memory.centres.shape, generator=random))
                memory.labels.copy_(torch.arange(len(memory.rows)) % 7 % len(memory.centres))
                memory.seen.fill_(len(memory.rows))
                memory.clustered.fill_(True)
        return super()._apply(fn, recurse)


def plain_nearest(memory, v, k):
    cluster = max(range(len(memory.centres)), key=lambda c: float(dot(v, memory.centres[c]).detach()))
    inside = [r for r in range(len(memory.rows)) if memory.labels[r] == cluster]
    inside = range(len(memory.rows)) if len(inside) < k else inside
    return [
        memory.rows[r].detach().clone()
        for r in sorted(inside, key=lambda r: -float(dot(v, memory.rows[r]).detach()))[:k]
    ]


def plain_beclr(o, m):
    use = bool(m.memories["teacher"].clustered) and o.epoch >= m.start
    near = lambda name, v: plain_nearest(m.memories[name], v, m.neighbours) if use else []  # noqa: E731
    views = [e for e in o.student if e.role != "negative"]
    predicted = {e.view: plain_predictor(m, e.z) if len(e.row) else e.z for e in views}
    attract, stack = [], []
    for a in views:
        for b in o.momentum:
            if b.role == "negative" or b.view == a.view or not aligned(a, b):
                continue
            terms = []
            for i, j in aligned(a, b):
                p, t = unit(predicted[a.view][i]), unit(b.z[j].detach())
                terms.append(dot_raw(p, t))
                terms += [dot_raw(x, y) for x, y in zip(near("predictor", p), near("teacher", t))]
            attract.append(average(terms))
        for i in range(len(a.row)):
            z = unit(a.z[i])
            stack += [((who(o, a, i), rank), v) for rank, v in enumerate([z, *near("projector", z)])]
    apart = []
    for one, z in stack:
        others = [dot_raw(z, v) / m.temperature for other, v in stack if other != one]
        apart.append(average(x.exp() for x in others))
    return -average(attract) + m.negative_weight * average(apart).log()


MEMORY = {"memory": 14, "clusters": 3, "neighbours": 2, "start": 0}
CASES = {
    "swav": Case(partial(SwAV, dim=D, prototypes=6), plain_swav, (*ONE, "multi-crop", *MANY, "hard negatives")),
    "swav learning": Case(
        partial(SwAV, dim=D, prototypes=5, frozen_steps=0, epsilon=0.1, iterations=5), plain_swav, (*ONE, "multi-crop")
    ),
    "swav queue": Case(partial(SwAV, dim=D, prototypes=6, frozen_steps=0, queue=6, queue_start=0), plain_swav, ONE),
    "swav, queue later": Case(partial(SwAV, dim=D, prototypes=6, queue=6), plain_swav, ("two views",)),
    "beclr": Case(partial(BECLR, dim=D), plain_beclr, ONE),
    "beclr enhanced": Case(partial(Filled, dim=D, **MEMORY), plain_beclr, ONE),
}
