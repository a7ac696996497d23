"""Objectives of series, whose tokens are time steps."""

from functools import partial

import torch

from counterpoint.batch import APART
from counterpoint.objectives.autotcl import AutoTCL
from objectives.scenes import Case, aligned, average, dot, lse, total, unit, who


def real(e, i):
    return [e.tokens[i, t] for t in range(e.tokens.shape[1]) if e.mask is None or e.mask[i, t]]


def largest(vectors):
    return torch.stack(vectors).amax(0)


def alike(x, i, v, j):
    return dot(largest(real(x, i)), largest(real(v, j)))


def whole(o, x, v, temperature):
    pairs = aligned(x, v)
    for i, j in pairs:
        positive = alike(x, i, v, j) / temperature
        others = [alike(x, i, v, n) / temperature for m, n in pairs if who(o, x, m) != who(o, x, i)]
        yield lse([positive, *others]) - positive


def beside(x, k, start, temperature):
    for i in range(len(x.row)):
        steps = [unit(token) for token in real(x, i)]
        size = len(steps) // k
        first = int(start * (len(steps) - size * k + 1))
        s = [largest(steps[first + c * size : first + (c + 1) * size]) for c in range(k)] if size else []
        for c in range(len(s)):
            positive = (s[c] * s[c + 1 if c + 1 < k else c - 1]).sum() / temperature
            others = [(s[c] * s[d]).sum() / temperature for d in range(k) if abs(d - c) > 1]
            yield lse([positive, *others]) - positive


def plain_autotcl(o, m):
    start, wholes, parts = torch.rand(()), [], []
    for modality in dict.fromkeys(e.modality for e in o.student):
        x, *others = [e for e in o.student if e.modality == modality and e.role not in APART]
        wholes += [average(whole(o, x, v, m.temperature)) for v in others if aligned(x, v)]
        terms = list(beside(x, m.stretches, start, m.temperature)) if others else []
        parts += [average(terms) if terms else x.z.sum() * 0] if others else []
    zero = o.student[0].z.sum() * 0
    return sum(([average(w)] if w else [zero])[0] * f for w, f in ((wholes, 1), (parts, m.local_weight))) + total(
        [zero]
    )


SCENES = ("two views", "three views", "rows missing", "views and modalities", "hard negatives", "multi-crop")
CASES = {
    "autotcl": Case(partial(AutoTCL, stretches=3), plain_autotcl, SCENES, zero_without_pairs=False),
    "autotcl sharp": Case(
        partial(AutoTCL, stretches=3, temperature=0.2, local_weight=2.0),
        plain_autotcl,
        ("two views", "labels' texts"),
        zero_without_pairs=False,
    ),
}
