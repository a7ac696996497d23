"""Objectives that differ from NT-Xent and InfoNCE by their denominator, as plain loops."""

from functools import partial

import torch

from counterpoint.objectives.decoupled import DCL, DCLW
from counterpoint.objectives.hard import HardContrastive
from counterpoint.objectives.individual import ISogCLR, SogCLR
from counterpoint.objectives.nt_xent import MultiviewNTXent
from counterpoint.objectives.simcse import SimCSE
from objectives.scenes import (  # fmt: skip
    ALL,
    MANY,
    ONE,
    Case,
    aligned,
    average,
    dot,
    lse,
    total,
    view_pairs,
    who,
)


def stacked(o):
    return [(e, i) for e in o.student if e.role != "negative" for i in range(len(e.row))]


def ordered_pairs(o):
    """(anchor, positive, negatives of the anchor), each a (view, row), in both orders."""
    rows = stacked(o)
    for a, i in rows:
        for b, j in rows:
            if a is not b and who(o, a, i) == who(o, b, j):
                yield (a, i), (b, j), [(c, k) for c, k in rows if who(o, c, k) != who(o, a, i)]


def cosine(one, other):
    return dot(one[0].z[one[1]], other[0].z[other[1]])


def plain_dcl(o, m):
    t = m.temperature()
    return average(lse(cosine(a, n) / t for n in rest) - cosine(a, p) / t for a, p, rest in ordered_pairs(o))


def plain_dclw(o, m):
    t, pairs, terms = m.temperature(), list(ordered_pairs(o)), []
    closeness = [(cosine(a, p) / m.sigma).exp() for a, p, _ in pairs]
    for (a, p, rest), close in zip(pairs, closeness):
        weight = 2 - close / average(closeness)
        weight = weight.detach() if m.detach_weights else weight
        terms.append(lse(cosine(a, n) / t for n in rest) - weight * cosine(a, p) / t)
    return average(terms)


def plain_multiview(o, m):
    t, rows, terms = m.temperature(), stacked(o), []
    for n, (a, i) in enumerate(rows):
        others = [row for k, row in enumerate(rows) if k != n]
        logits = [cosine((a, i), row) / t for row in others]
        positives = [x for x, (b, j) in zip(logits, others) if who(o, b, j) == who(o, a, i)]
        if positives:
            terms.append(average(lse(logits) - x for x in positives))
    return average(terms)


def plain_sogclr(o, m):
    return plain_global(o, m)[0]


def plain_global(o, m):
    """The loss, and what the state becomes: {(slot, sample): (log s, u, tau)}."""
    anchors = plain_stack(o) if m.modalities is None else plain_across(o, m)
    losses, left = [], {}
    for slot, sample, count, similarities, positives in anchors:
        tau = m.tau[slot, sample] if hasattr(m, "tau") else torch.tensor(m.temperature, dtype=torch.float64)
        g = average((s.detach() / tau).exp() for s in similarities)
        old = m.log_s[slot, sample].exp()
        s = g if o.epoch == 0 or old == 0 else (1 - m.gamma) * old + m.gamma * g
        weights = [(x.detach() / tau).exp() / s for x in similarities]
        if positives:
            losses.append((average(w * x for w, x in zip(weights, similarities)) - average(positives)) / count)
        slope = s.log() - average(w * x.detach() / tau for w, x in zip(weights, similarities))
        left.setdefault((slot, int(sample)), []).append((s, slope))
    return total(losses), {key: plain_state(m, key, rows) for key, rows in left.items()}


def plain_state(m, key, rows):
    s = total(s for s, _ in rows) / (len(rows) if m.state == "mean" else 1)
    if not hasattr(m, "tau"):
        return (s.log(),)
    slope = average(slope for _, slope in rows) + m.rho
    u = (1 - m.beta) * m.u[key] + m.beta * slope.clamp(-m.limit, m.limit)
    return s.log(), u, (m.tau[key] - m.rate * u).clamp(*m.bounds)


def plain_stack(o):
    """For two views: (slot, sample, what divides it, similarities to negatives, similarities to positives)."""
    rows, pairs = stacked(o), len(list(ordered_pairs(o)))
    for a, i in rows:
        rest = [cosine((a, i), (c, k)) for c, k in rows if who(o, c, k) != who(o, a, i)]
        own = [cosine((a, i), (c, k)) for c, k in rows if c is not a and who(o, c, k) == who(o, a, i)]
        yield 0, who(o, a, i), pairs / 2 / max(1, len(own)), rest, own


def plain_across(o, m):
    pairs = [(a, b) for a, b in view_pairs(o, "across") if {a.modality, b.modality} <= set(m.modalities)]
    for x, y in pairs:
        for a, b, way in ((x, y, aligned(x, y)), (y, x, [(j, i) for i, j in aligned(x, y)])):
            slot = m.slots.index((a.modality, b.modality))
            for i, j in way:
                rest = [n for _, n in way if who(o, b, n) != who(o, a, i)]
                relative = [dot(a.z[i], b.z[n]) - dot(a.z[i], b.z[j]) for n in rest]
                yield slot, who(o, a, i), len(way) * len(pairs), relative, [a.z.sum() * 0]


def plain_hard(o, m):
    losses = []
    for x, y in view_pairs(o):
        for a, b, way in ((x, y, aligned(x, y)), (y, x, [(j, i) for i, j in aligned(x, y)])):
            terms = []
            for i, j in way:
                rest = [dot(a.z[i], b.z[n]) for _, n in way if who(o, b, n) != who(o, a, i)]
                terms.append(plain_hard_term(m, dot(a.z[i], b.z[j]), rest))
            losses.append(average(terms))
    return average(losses)


def plain_hard_term(m, positive, rest):
    floor = sorted((float(x.detach()) for x in rest), reverse=True)[max(1, round(m.share * len(rest))) - 1]
    left = [x for x in rest if x >= floor - 1e-12]
    if m.simple is not None:
        return m.simple * total(left) - positive
    return lse([x / m.temperature for x in [positive, *left]]) - positive / m.temperature


def plain_simcse(o, m, extra=lambda z: []):
    losses = []
    for a, b in view_pairs(o):
        hard = [
            e.z[n] for e in o.student if e.role == "negative" and e.modality == b.modality for n in range(len(e.row))
        ]
        terms, t = [], m.temperature()
        for i, j in aligned(a, b):
            rest = [b.z[n] for _, n in aligned(a, b) if who(o, b, n) != who(o, a, i)]
            logits = [dot(a.z[i], v) / t for v in [b.z[j], *rest, *hard, *extra(a.z[i])]]
            terms.append(lse(logits) - logits[0])
        losses.append(average(terms))
    return average(losses)


SIZE = 64  # samples of the scenes' training set
BOTH = ["image", "text"]
VIEWS = (*ONE, "multi-crop", "hard negatives", "captions, some missing")
THREE = {"size": SIZE, "modalities": ["image", "text", "ecg"]}
CASES = {
    "dcl": Case(DCL, plain_dcl, ALL),
    "dcl learned": Case(partial(DCL, learnable=True, temperature=0.3), plain_dcl, ONE),
    "dclw": Case(DCLW, plain_dclw, ALL),
    "dclw released": Case(partial(DCLW, detach_weights=False, sigma=0.3), plain_dclw, ONE),
    "ntxent_multiview": Case(MultiviewNTXent, plain_multiview, (*ALL, "multi-crop"), zero_without_pairs=False),
    "sogclr": Case(partial(SogCLR, size=SIZE), plain_sogclr, VIEWS),
    "sogclr across": Case(partial(SogCLR, size=SIZE, modalities=BOTH, gamma=0.7), plain_sogclr, MANY),
    "sogclr across, three": Case(partial(SogCLR, **THREE), plain_sogclr, ("three modalities, some missing",)),
    "isogclr": Case(partial(ISogCLR, size=SIZE), plain_sogclr, ONE),
    "isogclr across": Case(partial(ISogCLR, size=SIZE, modalities=BOTH, rho=8.0), plain_sogclr, MANY),
    "hard_contrastive, in the batch": Case(partial(HardContrastive, queue=None, share=0.5), plain_hard, ALL),
    "hard_contrastive, simple": Case(partial(HardContrastive, queue=None, share=0.5, simple=0.2), plain_hard, ALL),
    "simcse": Case(SimCSE, plain_simcse, ALL),
}
