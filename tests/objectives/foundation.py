"""The foundation's objectives as plain loops.

CASES: name in a recipe, and what is special about the case -> Case.
"""

from functools import partial

import torch

from counterpoint.objectives.byol import BYOL
from counterpoint.objectives.clip import CLIP
from counterpoint.objectives.info_nce import InfoNCE
from counterpoint.objectives.moco import MoCo
from counterpoint.objectives.nt_xent import NTXent
from counterpoint.objectives.redundancy import BarlowTwins, VICReg
from counterpoint.objectives.siglip import SigLIP
from counterpoint.objectives.simsiam import SimSiam
from counterpoint.objectives.supcon import SupCon
from counterpoint.objectives.uniformity import AlignUniform, KoLeo
from objectives.scenes import (  # fmt: skip
    ALL,
    MANY,
    ONE,
    Case,
    D,
    across,
    aligned,
    average,
    columns,
    dot,
    lse,
    total,
    unit,
    view_pairs,
    who,
)


def plain_info_nce(o, m, which="all", by="index"):
    scale, eps, losses = 1 / m.temperature(), m.label_smoothing, []
    hard = [e for e in o.student if e.role == "negative"]

    def way(a, b, pairs):
        terms = []
        more = [e.z[j] for e in hard if e.modality == b.modality for j in range(len(e.row))]
        for i, j in pairs:
            same = [q for _, q in pairs if who(o, b, q, by) == who(o, a, i, by)]
            others = [q for _, q in pairs if who(o, b, q, by) != who(o, a, i, by)]
            candidates = [scale * dot(a.z[i], b.z[q]) for q in others] + [scale * dot(a.z[i], v) for v in more]
            if by == "index":
                pos = scale * dot(a.z[i], b.z[j])
                logps = [x - lse([pos, *candidates]) for x in [pos, *candidates]]
                terms.append(-(1 - eps) * logps[0] - eps * average(logps))
            else:
                positives = [scale * dot(a.z[i], b.z[q]) for q in same]
                terms.append(average(lse(positives + candidates) - x for x in positives))
        return average(terms)

    for a, b in view_pairs(o, which):
        if pairs := aligned(a, b):
            back = way(b, a, [(j, i) for i, j in pairs])
            losses.append(m.direction * way(a, b, pairs) + (1 - m.direction) * back)
    return average(losses)


def plain_clip(o, m):
    return plain_info_nce(o, m, across(o))


def plain_nt_xent(o, m):
    scale, terms = 1 / m.temperature(), []
    rows = [(e, i) for e in o.student if e.role != "negative" for i in range(len(e.row))]
    for a, i in rows:
        for b, j in rows:
            if a is not b and who(o, a, i) == who(o, b, j):
                pos = scale * dot(a.z[i], b.z[j])
                rest = [scale * dot(a.z[i], c.z[k]) for c, k in rows if who(o, c, k) != who(o, a, i)]
                terms.append(lse([pos, *rest]) - pos)
    return average(terms)


def plain_siglip(o, m):
    t, bias, losses = m.log_scale.exp(), m.bias, []
    for a, b in view_pairs(o, across(o)):
        pairs = aligned(a, b)
        terms = [torch.log(1 + torch.exp(-(t * dot(a.z[i], b.z[j]) + bias))) for i, j in pairs]
        for i, _ in pairs:
            for _, j in pairs:
                if who(o, a, i) != who(o, b, j):
                    terms.append(torch.log(1 + torch.exp(t * dot(a.z[i], b.z[j]) + bias)))
        losses.append(total(terms) / len(pairs))
    return average(losses)


def plain_moco(o, m):
    losses = []
    for a in o.student:
        for b in o.momentum:
            if (
                a.role == "negative"
                or b.role == "negative"
                or not (b.view > a.view or (m.symmetric and b.view < a.view))
            ):
                continue
            if (m.modalities is None) != (a.modality == b.modality):
                continue
            queue = o.queues["keys" if m.modalities is None else f"keys_{b.modality}"]
            terms = []
            for i, j in aligned(a, b):
                pos = dot(a.z[i], b.z[j].detach()) / m.temperature
                seen = [z for z, n in zip(queue.z, queue.index) if not (m.drop_own and n == who(o, a, i))]
                rest = [dot(a.z[i], z) / m.temperature for z in seen]
                terms.append(lse([pos, *rest]) - pos)
            losses.append(average(terms))
    return average(losses)


def plain_momentum_info_nce(o, m):
    """Abbaspourazad et al., 2024: every student view against the momentum encoder's other views, positives by patient."""
    losses = []
    for a in o.student:
        for b in o.momentum:
            if a.view == b.view:
                continue
            pairs = aligned(a, b)
            terms = []
            for i, _ in pairs:
                logits = [dot(a.z[i], b.z[j].detach()) / m.temperature() for _, j in pairs]
                own = [x for x, (_, j) in zip(logits, pairs) if who(o, b, j, "patient") == who(o, a, i, "patient")]
                terms.append(average(lse(logits) - x for x in own))
            losses.append(average(terms))
    return average(losses)


def plain_predictor(m, z):
    first, norm, _, last = m.predictor
    x = z @ first.weight.T + (0 if first.bias is None else first.bias)
    spread = ((x - x.mean(0)) ** 2).mean(0)
    x = norm.weight * (x - x.mean(0)) / torch.sqrt(spread + norm.eps) + norm.bias
    return torch.where(x > 0, x, 0.0) @ last.weight.T + (0 if last.bias is None else last.bias)


def plain_byol(o, m):
    losses = []
    for a, b in view_pairs(o):
        one = 0.0
        for x, y in ((a, b), (b, a)):
            target = next(e.z.detach() for e in o.momentum if e.view == y.view)
            p = plain_predictor(m, x.z)
            one = one + average(((unit(p[i]) - unit(target[j])) ** 2).sum() for i, j in aligned(x, y))
        losses.append(one)
    return average(losses)


def plain_simsiam(o, m):
    losses = []
    for a, b in view_pairs(o):
        for x, y in ((a, b), (b, a)):
            p = plain_predictor(m, x.z)
            losses.append(-average(dot(p[i], y.z[j].detach()) for i, j in aligned(x, y)))
    return average(losses)


def plain_barlow(o, m):
    losses = []
    for a, b in view_pairs(o):
        x, y = ((z - z.mean(0)) / torch.sqrt(((z - z.mean(0)) ** 2).mean(0) + m.eps) for z in columns(a, b))
        terms = []
        for d in range(D):
            for e in range(D):
                c = average(x[i, d] * y[i, e] for i in range(len(x)))
                terms.append((1 - c) ** 2 if d == e else m.weight * c**2)
        losses.append(total(terms))
    return average(losses)


def plain_vicreg(o, m):
    losses = []
    for a, b in view_pairs(o):
        x, y = columns(a, b)
        n = len(x)
        loss = m.weights[0] * average((x[i, d] - y[i, d]) ** 2 for i in range(n) for d in range(D))
        for z in (x, y):
            z = z - z.mean(0)
            cov = [[total(z[i, d] * z[i, e] for i in range(n)) / (n - 1) for e in range(D)] for d in range(D)]
            loss = loss + m.weights[1] * m.share * average(
                (1 - (cov[d][d] + m.eps).sqrt()).clamp(min=0) for d in range(D)
            )
            loss = loss + m.weights[2] * total(cov[d][e] ** 2 for d in range(D) for e in range(D) if d != e) / D
        losses.append(loss)
    return average(losses)


def plain_supcon(o, m):
    by, terms = m.group or m.label, []
    rows = [(e, i) for e in o.student if e.role != "negative" for i in range(len(e.row))]
    for n, (a, i) in enumerate(rows):
        logits = [dot(a.z[i], b.z[j]) / m.temperature for b, j in rows]
        rest = [x for k, x in enumerate(logits) if k != n]
        same = [logits[k] for k, (b, j) in enumerate(rows) if k != n and who(o, b, j, by) == who(o, a, i, by)]
        terms.append(average(lse(rest) - x for x in same) if same else a.z[i].sum() * 0)
    return m.factor * average(terms)


def plain_align_uniform(o, m):
    align = [
        average((unit(a.z[i]) - unit(b.z[j])).norm() ** m.alpha for i, j in aligned(a, b)) for a, b in view_pairs(o)
    ]
    uniform = []
    for e in (e for e in o.student if e.role != "negative"):
        pairs = [(i, j) for i in range(len(e.row)) for j in range(i) if e.row[i] != e.row[j]]
        uniform.append(average((-m.t * ((unit(e.z[i]) - unit(e.z[j])) ** 2).sum()).exp() for i, j in pairs).log())
    return m.align_weight * average(align) + m.uniform_weight * average(uniform)


def plain_koleo(o, m):
    losses = []
    for e in (e for e in o.student if e.role != "negative"):
        terms = []
        for i, r in enumerate(e.row):
            distances = [(unit(e.z[i]) - unit(e.z[j])).norm() for j, s in enumerate(e.row) if s != r]
            terms.append(-(min(distances) + m.eps).log())
        losses.append(average(terms))
    return average(losses)


CASES = {
    "info_nce": Case(InfoNCE, plain_info_nce, ALL),
    "info_nce learned": Case(partial(InfoNCE, learnable=True, temperature=0.3), plain_info_nce, ALL),
    "info_nce group": Case(partial(InfoNCE, positives="patient"), partial(plain_info_nce, by="patient"), ALL),
    "info_nce within": Case(
        partial(InfoNCE, pairs="within", direction="forward"),
        partial(plain_info_nce, which="within"),
        ONE,
    ),
    "info_nce across": Case(
        partial(InfoNCE, pairs="across", direction=0.3), partial(plain_info_nce, which="across"), MANY
    ),
    "info_nce momentum": Case(partial(InfoNCE, positives="patient", momentum=0.99), plain_momentum_info_nce, ONE),
    "nt_xent": Case(NTXent, plain_nt_xent, ALL),
    "clip": Case(CLIP, plain_clip, (*ONE, *MANY)),
    "clip smoothed": Case(partial(CLIP, label_smoothing=0.1), plain_clip, (*ONE, *MANY)),
    "siglip": Case(SigLIP, plain_siglip, ALL),
    "moco": Case(MoCo, plain_moco, (*ONE, "hard negatives"), refuses_one=False),
    "moco symmetric": Case(partial(MoCo, symmetric=True), plain_moco, ONE, refuses_one=False),
    "moco, own rows out": Case(partial(MoCo, drop_own=True), plain_moco, ONE, refuses_one=False),
    "moco across": Case(
        partial(MoCo, modalities=["image", "text"], symmetric=True), plain_moco, MANY, refuses_one=False
    ),
    "byol": Case(partial(BYOL, dim=D, hidden=24), plain_byol, ALL),
    "simsiam": Case(partial(SimSiam, dim=D, hidden=6), plain_simsiam, ALL),
    "barlow_twins": Case(BarlowTwins, plain_barlow, ALL),
    "vicreg": Case(VICReg, plain_vicreg, ALL),
    "vicreg released": Case(partial(VICReg, variance_mean=True), plain_vicreg, ONE),
    "supcon label": Case(partial(SupCon, label="class"), plain_supcon, ALL, zero_without_pairs=False),
    "supcon group": Case(
        partial(SupCon, group="patient", base_temperature=0.07), plain_supcon, ALL, zero_without_pairs=False
    ),
    "align_uniform": Case(AlignUniform, plain_align_uniform, ALL, zero_without_pairs=False),
    "align_uniform, alpha 3": Case(
        partial(AlignUniform, alpha=3.0, uniform_weight=0.5), plain_align_uniform, ONE, zero_without_pairs=False
    ),
    "koleo": Case(KoLeo, plain_koleo, ALL, zero_without_pairs=False),
}
