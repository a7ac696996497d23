"""CLIP's relatives with further terms, edited texts and teachers, as plain loops."""

from functools import partial

from counterpoint.objectives.albef import ALBEF, MSD
from counterpoint.objectives.composite import CleanCLIP, ContrastiveGap
from counterpoint.objectives.convirt import ConVIRT
from counterpoint.objectives.distillation import DCD, ModX
from counterpoint.objectives.edited_text import TSVLC
from objectives.scenes import MANY, Case, across, aligned, average, dot, lse, total, unit, view_pairs, who

SEVERAL = (*MANY, "three modalities, some missing")
TWO_EACH = ("views of two modalities",)


def nce(o, a, b, scale, pairs=None, more=()):
    """mean_i -log softmax of the aligned rows' own key; other rows of the own sample are left out, `more` rows are in."""
    pairs, terms = aligned(a, b) if pairs is None else pairs, []
    for i, j in pairs:
        rest = [scale * dot(a.z[i], b.z[q]) for _, q in pairs if who(o, b, q) != who(o, a, i)]
        pos = scale * dot(a.z[i], b.z[j])
        terms.append(lse([pos, *rest, *(scale * dot(a.z[i], v) for v in more)]) - pos)
    return average(terms)


def flipped(pairs):
    return [(j, i) for i, j in pairs]


def clip(o, a, b, scale):
    return (nce(o, a, b, scale) + nce(o, b, a, scale)) / 2


def plain_convirt(o, m):
    losses = []
    for a, b in view_pairs(o, "across"):
        if m.query is not None and m.query not in (a.modality, b.modality):
            continue
        v, u = (b, a) if b.modality == m.query else (a, b)
        losses.append(m.direction * nce(o, v, u, 1 / m.temperature()) + (1 - m.direction) * nce(o, u, v, 10.0))
    return average(losses)


def plain_cleanclip(o, m):
    scale, first, cross, within = 1 / m.temperature(), {}, [], []
    for e in o.student:
        if e.modality in first:
            within.append(nce(o, first[e.modality], e, scale))
        first.setdefault(e.modality, e)
    originals = list(first.values())
    for n, a in enumerate(originals):
        cross += [clip(o, a, b, scale) for b in originals[n + 1 :] if aligned(a, b)]
    return m.cross_weight * average(cross) + m.within_weight * average(within)


def plain_contrastive_gap(o, m):
    near = lambda a, b: (-2 * ((unit(a) - unit(b)) ** 2).sum()).exp()  # noqa: E731
    clips, aligns, crosses, spreads = [], [], [], []
    for a, b in view_pairs(o, "across"):
        pairs = aligned(a, b)
        clips.append(clip(o, a, b, 1 / m.temperature))
        aligns.append(average(((unit(a.z[i]) - unit(b.z[j])) ** 2).sum() for i, j in pairs))
        others = [(i, j) for i, _ in pairs for _, j in pairs if a.row[i] != b.row[j]]
        crosses.append(average(near(a.z[i], b.z[j]) for i, j in others).log())
    for e in o.student:
        n = range(len(e.row))
        spreads.append(average(near(e.z[i], e.z[j]) for i in n for j in range(i) if e.row[i] != e.row[j]).log())
    weights = (1.0, m.align_weight, m.uniform_weight, m.cross_weight)
    return total(w * average(terms) for w, terms in zip(weights, (clips, aligns, spreads, crosses)))


def plain_tsvlc(o, m):
    scale, clips, own, positive = 1 / m.temperature(), [], [], []
    image, text = (next(e for e in o.student if (e.modality, e.role) == (x, "global")) for x in ("image", "text"))
    kept, edited = (next(e for e in o.student if e.role == role) for role in ("positive", "negative"))
    clips = (nce(o, image, text, scale, more=list(edited.z)) + nce(o, text, image, scale)) / 2
    for i, j in aligned(image, text):
        edits = [edited.z[n] for n in range(len(edited.row)) if edited.row[n] == image.row[i]]
        if edits:
            pos = scale * dot(image.z[i], text.z[j])
            own.append(lse([pos, *(scale * dot(image.z[i], v) for v in edits)]) - pos)
    for e in (image, text):
        positive.append(m.share * nce(o, e, kept, scale) + (1 - m.share) * nce(o, kept, e, scale))
    none = clips * 0
    negative = average(own) if own else none
    return clips + m.negative_weight * negative + m.positive_weight * average(positive)


def side(o, e, of):
    return next(x for x in getattr(o, of) if x.view == e.view)


def softmax(logits):
    return [(x - lse(logits)).exp() for x in logits]


def plain_mod_x(o, m):
    scale, losses = 1 / m.temperature(), []
    for a, b in view_pairs(o, across(o)):
        keep = []
        for x, y in ((a, b), (b, a)):
            old_x, old_y, pairs = side(o, x, "teacher").z.detach(), side(o, y, "teacher").z.detach(), aligned(x, y)
            for i, j in pairs:
                others = [q for _, q in pairs if x.row[i] != y.row[q]]
                if any(dot(old_x[i], old_y[q]) > dot(old_x[i], old_y[j]) for q in others):
                    continue
                seen = [q for _, q in pairs] if m.diagonal else others
                old = softmax([dot(old_x[i], old_y[q]) for q in seen])
                new = softmax([dot(x.z[i], y.z[q]) for q in seen])
                keep += [p * (p.log() - n.log()) for p, n in zip(old, new)]
        extra = total(keep) / 2 if keep else a.z.sum() * 0
        losses.append(clip(o, a, b, scale) + m.alpha * extra)
    return average(losses)


def plain_dcd(o, m):
    losses, scale = [], 1 / m.temperature()
    for a, b in view_pairs(o, across(o)):
        for x, y in ((a, b), (b, a)):
            old_x, old_y, pairs, terms = (
                side(o, x, "teacher").z.detach(),
                side(o, y, "teacher").z.detach(),
                aligned(x, y),
                [],
            )
            for i, j in pairs:
                others = [q for _, q in pairs if x.row[i] != y.row[q]]
                hard = sorted(others, key=lambda q: -dot(old_x[i], old_y[q]))[: m.negatives]
                s = softmax([scale * dot(x.z[i], y.z[q]) for q in (j, *hard)])
                t = softmax([scale.detach() * dot(old_x[i], old_y[q]) for q in (j, *hard)])
                distil = total(p * (p.log() - n.log()) for p, n in zip(t, s))
                terms.append((1 - s[0].detach()) ** m.focus * (-s[0].log() + m.distil_weight * distil))
            losses.append(average(terms))
    return average(losses)


def plain_albef(o, m, alpha=0.4, queues=True, entropy=False):
    tau, losses = m.temperature(), []
    for a in o.student:
        for b in o.momentum:
            if a.modality == b.modality or not aligned(a, b):
                continue
            queue, pairs, terms = o.queues[f"keys_{b.modality}"], aligned(a, b), []
            keys = [b.z[j].detach() for _, j in pairs] + (list(queue.z) if queues else [])
            names = [who(o, b, j) for _, j in pairs] + (queue.index.tolist() if queues else [])
            for place, (i, _) in enumerate(pairs):
                logits = [dot(a.z[i], k) / tau for k in keys]
                soft = softmax([dot(side(o, a, "momentum").z[i].detach(), k) / tau.detach() for k in keys])
                hard = [float(n == place) for n in range(len(keys))]
                if m.positives == "index":
                    same = [float(name == who(o, a, i)) for name in names]
                    hard = [x / sum(same) for x in same]
                goal = [alpha * p + (1 - alpha) * y for p, y in zip(soft, hard)]
                terms.append(total(y * (lse(logits) - x) for y, x in zip(goal, logits)))
                if entropy:
                    terms[-1] = terms[-1] + alpha * total(p * p.log() for p in soft)
            losses.append(average(terms))
    return average(losses)


PAIR = partial(ALBEF, modalities=["image", "text"], size=50)

CASES = {
    "convirt": Case(ConVIRT, plain_convirt, SEVERAL),
    "convirt, from text": Case(partial(ConVIRT, query="text", weight=0.6), plain_convirt, SEVERAL),
    "cleanclip": Case(
        CleanCLIP, plain_cleanclip, (*TWO_EACH, "views of two modalities, some missing"), zero_without_pairs=False
    ),
    "cleanclip, weighted": Case(
        partial(CleanCLIP, cross_weight=0.5, within_weight=2.0), plain_cleanclip, TWO_EACH, zero_without_pairs=False
    ),
    "contrastive_gap": Case(ContrastiveGap, plain_contrastive_gap, SEVERAL, zero_without_pairs=False),
    "contrastive_gap, across": Case(
        partial(ContrastiveGap, cross_weight=1.0, temperature=0.1, align_weight=0.5),
        plain_contrastive_gap,
        SEVERAL,
        zero_without_pairs=False,
    ),
    "tsvlc": Case(TSVLC, plain_tsvlc, ("edited text", "edited text, some missing"), zero_without_pairs=False),
    "tsvlc, both ways": Case(
        partial(TSVLC, symmetric_positives=True, negative_weight=0.5, positive_weight=2.0),
        plain_tsvlc,
        ("edited text",),
        zero_without_pairs=False,
    ),
    "mod_x": Case(ModX, plain_mod_x, (*MANY, "three modalities, some missing")),
    "mod_x released": Case(partial(ModX, diagonal=True), plain_mod_x, MANY),
    "dcd": Case(partial(DCD, negatives=2), plain_dcd, SEVERAL),
    "dcd, all negatives": Case(partial(DCD, focus=2.0, distil_weight=0.5), plain_dcd, MANY),
    "albef": Case(PAIR, partial(plain_albef, alpha=0.0), ("two modalities", "views and modalities"), refuses_one=False),
    "albef, no ramp": Case(partial(PAIR, ramp=False), plain_albef, MANY, refuses_one=False),
    "albef index": Case(
        partial(PAIR, ramp=False, positives="index", alpha=0.3),
        partial(plain_albef, alpha=0.3),
        MANY,
        refuses_one=False,
    ),
    "msd_medical_vlp": Case(
        partial(MSD, modalities=["image", "text"]), partial(plain_albef, queues=False, entropy=True), MANY
    ),
}
