"""Objectives whose positives are shared out, as plain loops."""

from functools import partial

import torch

from counterpoint.objectives.cwcl import CWCL
from counterpoint.objectives.dialog2flow import Dialog2Flow
from counterpoint.objectives.m3col import M3CoL
from counterpoint.objectives.supremix import SupReMix
from counterpoint.randomness import Draw, key, splitmix64
from objectives.cross_modal import softmax
from objectives.scenes import ALL, MANY, ONE, Case, aligned, average, dot, lse, total, unit, view_pairs, who

VALUED = (*ONE, "captions, some missing")


def cross_entropy(targets, logits):
    return total(y * (lse(logits) - x) for y, x in zip(targets, logits))


def both(logits, forward, backward):
    """Halves of the row and the column cross-entropy of a table of logits."""
    n = range(len(logits))
    rows = average(cross_entropy(forward[i], logits[i]) for i in n)
    return (rows + average(cross_entropy(backward[j], [logits[i][j] for i in n]) for j in n)) / 2


def table(a, b, temperature):
    pairs = aligned(a, b)
    return [[dot(a.z[i], b.z[j]) / temperature for _, j in pairs] for i, _ in pairs]


def plain_cwcl(o, m):
    losses = []
    for a, b in view_pairs(o, "across"):
        if m.source not in (a.modality, b.modality):
            continue
        p, q = (a, b) if a.modality == m.source else (b, a)
        pairs, kept = aligned(p, q), getattr(p, m.weights).detach()
        logits = table(p, q, m.temperature())
        there, back = [], []
        for n, (i, j) in enumerate(pairs):
            w = [dot(kept[i], kept[k]) / 2 + 0.5 for k, _ in pairs]
            there.append(cross_entropy([x / total(w) for x in w], logits[n]))
            rest = [logits[k][n] for k, (r, _) in enumerate(pairs) if p.row[r] != q.row[j]]
            back.append(lse([logits[n][n], *rest]) - logits[n][n])
        losses.append(average(there) + average(back))
    return average(losses)


def label_text(o, m, sample):
    """The mean of what the text modality keeps of a sample's labels; None when it has none."""
    e = next(e for e in o.student if e.modality == m.source)
    found = [e.h[j].detach() for j, r in enumerate(e.row) if r == sample]
    return torch.stack(found).mean(0) if found else None


def plain_dialog2flow(o, m):
    losses = []
    for a, b in view_pairs(o):
        if m.source in (a.modality, b.modality):
            continue
        pairs = aligned(a, b)
        if m.source is None:
            names = [who(o, a, i, m.label) for i, _ in pairs]
            targets = [[float(x == y) / names.count(x) for y in names] for x in names]
        else:
            pairs = [(i, j) for i, j in pairs if label_text(o, m, a.row[i]) is not None]
            texts = [label_text(o, m, a.row[i]) for i, _ in pairs]
            targets = [softmax([dot(x, y) / m.label_temperature for y in texts]) for x in texts]
        logits = [[dot(a.z[i], b.z[j]) / m.temperature for _, j in pairs] for i, _ in pairs]
        losses.append(both(logits, targets, targets))
    return average(losses)


def plain_mixtures(o, m):
    losses = []
    for a in o.student:
        for b in o.student:
            if a.role != "mixed" or b.role == "mixed" or a.modality == b.modality:
                continue
            pairs, rows = aligned(a, b), []
            for n, (i, _) in enumerate(pairs):
                partner, share = a.meta["partner"][i], a.meta["share"][i]
                of_partner = [int(o.batch.index[b.row[j]]) == partner for _, j in pairs]
                row = [(1 - share) * hit / max(1, sum(of_partner)) for hit in of_partner]
                row[n] = row[n] + share
                rows.append(row)
            losses.append(both(table(a, b, m.temperature), rows, list(zip(*rows))))
    return total(losses)


def plain_soft_clip(o, m):
    losses, plain = [], [e for e in o.student if e.role != "mixed"]
    for a in plain:
        for b in plain:
            if a.modality != b.modality:
                own = [b.z[j].detach() if m.detach_targets else b.z[j] for _, j in aligned(a, b)]
                targets = [softmax([dot(x, y) / m.soft_temperature for y in own]) for x in own]
                losses.append(both(table(a, b, m.soft_temperature), targets, targets))
    return total(losses)


def plain_supremix(o, m):
    seed = int(torch.randint(2**62, ()))
    rows = [(e, i) for e in o.student if e.role != "negative" for i in range(len(e.row))]
    rows = [(e, i, o.batch.labels[m.label][e.row[i]].double()) for e, i in rows]
    rows = [row for row in rows if not row[2].isnan()]
    ids = [splitmix64(o.batch.index[e.row[i]]) + e.view for e, i, _ in rows]
    push = lambda d: (1 + d.abs()).log() if m.magnify else 0.0  # noqa: E731
    terms = []
    for n, (a, i, y) in enumerate(rows):
        z, candidates, positives = unit(a.z[i]), [], []
        for k, (b, j, other) in enumerate(rows):
            if k == n:
                continue
            v = unit(b.z[j])
            s = (z * v).sum() / m.temperature
            candidates.append(s + push(other - y))
            if other == y:
                positives.append(s)
                continue
            pair = splitmix64(splitmix64(ids[n])[None] + ids[k])
            share = Draw(key("supremix", seed), pair).beta(*m.shape)[0].double()
            mixture = (share * z + (1 - share) * v).detach()
            candidates.append((z * mixture).sum() / m.temperature + push((1 - share) * (other - y)))
        for b, j, low in rows:
            for c, k, high in rows:
                if y - m.window < low < y < high < y + m.window:
                    share = (high - y) / (high - low)
                    mixture = (share * unit(b.z[j]) + (1 - share) * unit(c.z[k])).detach()
                    positives.append((z * mixture).sum() / m.temperature)
                    candidates.append(positives[-1])
        terms.append(lse(candidates) - average(positives) if positives else a.z[i].sum() * 0)
    return average(terms)


CASES = {
    "cwcl": Case(partial(CWCL, source="text"), plain_cwcl, (*MANY, "three modalities, some missing")),
    "cwcl, by z": Case(partial(CWCL, source="image", weights="z", learnable=False), plain_cwcl, MANY),
    "dialog2flow": Case(partial(Dialog2Flow, source="label"), plain_dialog2flow, ("labels' texts",)),
    "dialog2flow, texts": Case(partial(Dialog2Flow, source="text"), plain_dialog2flow, ("views and modalities",)),
    "dialog2flow hard": Case(partial(Dialog2Flow, label="class"), plain_dialog2flow, ALL),
    "m3col": Case(M3CoL, plain_mixtures, ("mixtures", "mixtures, some missing")),
    "m3col, second phase": Case(
        partial(M3CoL, mix_until=0.0), plain_soft_clip, (*MANY, "mixtures", "mixtures, some missing")
    ),
    "m3col, second phase, detached": Case(
        partial(M3CoL, mix_until=0.0, detach_targets=True), plain_soft_clip, ("mixtures",)
    ),
    "supremix": Case(partial(SupReMix, label="age"), plain_supremix, VALUED, zero_without_pairs=False),
    "supremix, wide window": Case(
        partial(SupReMix, label="age", window=40.0), plain_supremix, VALUED, zero_without_pairs=False
    ),
    "supremix, no weights": Case(
        partial(SupReMix, label="age", window=40.0, magnify=False, shape=(0.5, 0.5)),
        plain_supremix,
        ("two views",),
        zero_without_pairs=False,
    ),
}
