"""Objectives on pseudo labels as plain loops."""

from functools import partial

import torch
from torch.nn.functional import normalize, softplus

from counterpoint.objectives.clusters import MCL, MLCD, GSimCLR
from counterpoint.objectives.exits import Unfused
from counterpoint.objectives.interclr import InterCLR
from counterpoint.randomness import Draw, key
from objectives.foundation import plain_moco, plain_nt_xent
from objectives.scenes import (
    ALL,
    LAYERS,
    MANY,
    ONE,
    Case,
    D,
    across,
    aligned,
    average,
    dot,
    lse,
    total,
    unit,
    view_pairs,
    who,
)


def plain_mcl(o, m):
    losses = []

    def way(a, b, pairs):
        terms = []
        for i, j in pairs:
            mates = [
                q for _, q in pairs if who(o, b, q, m.group) == who(o, a, i, m.group) and who(o, b, q) != who(o, a, i)
            ]
            logits = [dot(a.z[i], b.z[q]) / m.temperature() for q in [j, *mates]]
            terms.append(lse(logits) - logits[0])
        return average(terms)

    for a, b in view_pairs(o, across(o)):
        if pairs := aligned(a, b):
            losses.append((way(a, b, pairs) + way(b, a, [(j, i) for i, j in pairs])) / 2)
    return average(losses)


def plain_mlcd(o, m):
    seed, classes = int(torch.randint(2**62, ())), range(len(m.centres))
    drawn = Draw(seed, o.batch.index).positions(len(m.centres)) < m.negatives
    terms = []
    for e in o.student:
        for i, sample in enumerate(e.row) if e.role != "negative" else ():
            own = {int(o.batch.groups[name][sample]) for name in m.groups} - {-1}
            s = [m.scale * dot(e.z[i], c) for c in m.centres]
            against = total([s[0] * 0, *(s[c].exp() for c in classes if c not in own and drawn[sample, c])])
            towards = total([s[0] * 0, *((-s[c]).exp() for c in own)])
            terms.append((torch.log1p(against) + torch.log1p(towards)) if own else s[0] * 0)
    return average(terms)


def plain_projection(project, x):
    """linear, then twice normalise over the rows, ReLU, linear: by the weights of a stack."""
    first, norm, _, second, other_norm, _, last = project.stack
    rows = x @ first.weight.T
    for scale, linear in ((norm, second), (other_norm, last)):
        centred = rows - rows.mean(0)
        rows = scale.weight * centred / (centred.square().mean(0) + scale.eps).sqrt() + scale.bias
        rows = rows.clamp(min=0) @ linear.weight.T + (0 if linear.bias is None else linear.bias)
    return rows


def plain_unfused(o, m):
    losses = []
    for e in o.student:
        if e.role == "negative" or not len(e.row):
            continue
        exits = [e.heads[name] for name in m.exits]
        if not m.exits:
            exits = [plain_projection(p, x) for p, x in zip(m.projections[e.modality], e.layers)]
        terms = []
        for i, sample in enumerate(e.row):
            label, z = int(o.batch.groups[m.group][sample]), e.z[i]
            held = z.detach() if m.detach_targets else z
            share = [(x - lse(held)).exp() for x in held]
            entropy = lambda logits, y=label: lse(logits) - logits[y] if y >= 0 else 0 * logits.sum()  # noqa: E731
            term = entropy(z)
            for q in [rows[i] for rows in exits]:
                logs = [x - lse(q) for x in q]
                term = term + m.alpha * entropy(q)
                term = term + m.beta * total(p * (p.log() - x) for p, x in zip(share, logs))
                term = term + m.gamma * (unit(q) - unit(held)).square().sum()
            terms.append(term)
        losses.append(average(terms))
    return average(losses)


MODALITIES = ("ecg", "image", "text")


class Filled(InterCLR):
    """An InterCLR whose memory has met some samples and clustered them."""

    def _apply(self, fn, recurse=True):
        memory, random = self.memory, torch.Generator().manual_seed(11)
        if not memory.clustered:
            index = torch.arange(len(memory.seen))
            memory.features.copy_(normalize(torch.randn(memory.features.shape, generator=random), dim=1))
            memory.centroids.copy_(torch.randn(memory.centroids.shape, generator=random))
            memory.seen.copy_((index % 7 > 0) & (index != 20))
            memory.labels.copy_(torch.where(memory.seen, index % len(memory.centroids), -1))
            memory.clustered.fill_(True)
        return super()._apply(fn, recurse)


def plain_interclr(o, m):
    memory = m.memory
    features, labels, seen = memory.features.clone(), memory.labels.tolist(), memory.seen.tolist()
    seed, losses = int(torch.randint(2**62, ())), []
    for a, b in view_pairs(o):
        ids = torch.tensor([who(o, a, i) for i, _ in aligned(a, b)])
        draw, terms = Draw(key(seed, a.view, b.view), ids), []
        chance, order = draw.uniform(), draw.positions(m.pool)
        for n, (i, _) in enumerate(aligned(a, b)):
            q, label = unit(a.z[i]), labels[ids[n]]
            if label < 0:
                terms.append(q.sum() * 0)
                continue
            same = [s for s in range(len(labels)) if labels[s] == label]
            positive = ((q * features[same[int(chance[n] * len(same))]]).sum() - m.margin) / m.temperature
            near = sorted((s for s in range(len(labels)) if seen[s]), key=lambda s: -float(q.detach() @ features[s]))[
                : m.pool
            ]
            other = [(order[n, r], s) for r, s in enumerate(near) if labels[s] != label]
            rest = [(q * features[s]).sum() / m.temperature for _, s in sorted(other)[: m.negatives]]
            terms.append(softplus(lse(rest) - positive, threshold=40) if rest else q.sum() * 0)
        losses.append(average(terms))
    return (1 - m.inter_weight) * plain_moco(o, m) + m.inter_weight * average(losses)


def plain_intra(o, m):
    return (1 - m.inter_weight) * plain_moco(o, m)


INTER = {"dim": D, "size": 60, "queue": 6, "clusters": 4}
CASES = {
    "g_simclr": Case(partial(GSimCLR, group="patient"), plain_nt_xent, ALL),
    "mcl_multistage": Case(partial(MCL, group="patient"), plain_mcl, (*ONE, *MANY)),
    "mlcd": Case(
        partial(MLCD, dim=D, classes=5, groups=["patient"], negatives=0.6, scale=4.0),
        plain_mlcd,
        (*ALL, "multi-crop"),
        zero_without_pairs=False,
        refuses_one=False,
    ),
    "mlcd, all negatives": Case(
        partial(MLCD, dim=D, classes=7, groups=["patient"], negatives=1.0, scale=8.0),
        plain_mlcd,
        ONE,
        zero_without_pairs=False,
        refuses_one=False,
    ),
    "unfused": Case(
        partial(Unfused, group="patient", dim=D, facts={m: {"layer_widths": LAYERS} for m in MODALITIES}),
        plain_unfused,
        (*ONE, *MANY),
        zero_without_pairs=False,
        refuses_one=False,
    ),
    "unfused, heads": Case(
        partial(Unfused, group="patient", exits=["a", "b", "common"]),
        plain_unfused,
        (*ONE, *MANY),
        zero_without_pairs=False,
        refuses_one=False,
    ),
    "unfused, detached": Case(
        partial(Unfused, group="patient", exits=["a"], gamma=0.5, detach_targets=True),
        plain_unfused,
        ONE,
        zero_without_pairs=False,
        refuses_one=False,
    ),
    "interclr": Case(partial(InterCLR, **INTER), plain_intra, ONE, refuses_one=False),
    "interclr with a memory": Case(
        partial(Filled, **INTER, pool=20, negatives=5, least=2), plain_interclr, ONE, refuses_one=False
    ),
    "interclr, few near": Case(
        partial(Filled, **INTER, pool=3, negatives=9, margin=0.1, inter_weight=0.6),
        plain_interclr,
        ONE,
        refuses_one=False,
    ),
}
