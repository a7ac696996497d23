"""Objectives that write the input again from its representation, and the one that follows a teacher's."""

from functools import partial
from math import log, pi

import torch

from counterpoint.objectives.cmim import CMIM
from counterpoint.objectives.coca import CoCa
from counterpoint.objectives.matching import Matching
from counterpoint.objectives.self_distillation import SelfDistillation
from counterpoint.randomness import Draw, key
from objectives.foundation import plain_clip
from objectives.scenes import Case, D, aligned, average, dot, lse, total, unit

KNOWN = {
    "image": {"channels": 2, "token_width": D},
    "ecg": {"channels": 2, "token_width": D},
    "text": {"vocabulary": 7, "token_width": D},
}


def facts(*names):
    return {name: KNOWN[name] for name in names}


def surprises(decoder, ids, memory):
    """-log p of each token after the first, one text without padding at a time."""
    logits = decoder(ids[None, :-1], memory[None])[0]
    return [logits[t].exp().sum().log() - logits[t, ids[t + 1]] for t in range(len(ids) - 1)]


def plain_coca(o, m, caption_weight=2.0):
    terms = []
    for other in [e for e in o.student if e.modality != "text"]:
        for text in [e for e in o.student if e.modality == "text" and e.role != "negative"]:
            words = []
            for i, j in aligned(text, other):
                ids, memory = text.input[i][text.input_mask[i]], other.tokens[j][other.mask[j]]
                words += surprises(m.decoders[other.modality], ids, memory)
            terms += [average(words)] if words else []
    return plain_clip(o, m) + caption_weight * average(terms)


def plain_cmim(o, m, negatives="mean", weight=1.0, least=1e-2):
    seed, found = int(torch.randint(1 << 62, (1,))), []
    for e in [e for e in o.student if e.role != "negative"]:
        ids = o.batch.index[e.row]
        noise = Draw(key(seed, e.view), ids).normal(D).double()
        spread = torch.maximum(e.heads["a"], torch.tensor(2 * log(least)))
        codes = [e.z[i] + (spread[i] / 2).exp() * noise[i] for i in range(len(ids))]
        terms = []
        for i, code in enumerate(codes):
            certain = [
                -((code[d] - e.z[i, d]) ** 2) / (2 * spread[i, d].exp()) - spread[i, d] / 2 - log(2 * pi) / 2
                for d in range(D)
            ]
            prior = [-(code[d] ** 2) / 2 - log(2 * pi) / 2 for d in range(D)]
            others = [dot(code, codes[j]) / 0.1 for j in range(len(ids)) if ids[j] != ids[i]]
            shift = log(len(others)) if negatives == "mean" and others else 0.0
            repulsion = lse([code.new_tensor(10.0), lse(others) - shift]) - 10.0 if others else 0.0
            terms.append(
                likelihood(m.decoders[e.modality], e, i, code)
                - (total(certain) + total(prior)) / 2
                + weight * repulsion
            )
        found.append(average(terms))
    return average(found)


def likelihood(decoder, e, i, code):
    """-log p(x | c)."""
    if e.modality == "text":
        return total(surprises(decoder, e.input[i][e.input_mask[i]], code[None]))
    made = decoder(code[None], e.input[i : i + 1])[0]
    return total((made[c, t] - e.input[i, c, t]) ** 2 / 2 + log(2 * pi) / 2 for c in range(2) for t in range(6))


def plain_self_distillation(o, m, role=None):
    views = [e for e in o.student if (e.role == role if role else e.role != "negative") and len(e.row)]
    teachers = {e.view: e for e in o.teacher}
    far = lambda e: average(((e.h[i] - teachers[e.view].h[i].detach()) ** 2).sum() for i in range(len(e.row)))  # noqa: E731
    return average(far(e) for e in views)


SMALL = {"width": 8, "heads": 2}
coca = partial(CoCa, facts=facts("image", "text"), alone=1, crossing=1, **SMALL)
cmim = partial(CMIM, dim=D, variance="a", depth=2, **SMALL)
MANY = ("two modalities", "captions, some missing", "views and modalities")


def plain_matching(o, m, temperature=0.5):
    seed, found = int(torch.randint(1 << 62, ())), []
    views = [e for e in o.student if e.role != "negative"]
    for a, b in [(a, b) for n, a in enumerate(views) for b in views[n + 1 :] if a.modality != b.modality]:
        terms, rows = [], list(aligned(a, b))
        for i, j in rows:
            terms.append(-judged(m, a, i, b, j)[1])
        for mine, theirs, swap in ((a, b, False), (b, a, True)):
            for pair in rows:
                i = pair[swap]
                others = [other for other in rows if a.row[other[0]] != a.row[pair[0]]]
                if not others:
                    continue
                others.sort(key=lambda other: int(o.batch.index[a.row[other[0]]]))
                weights = [
                    (dot(unit(mine.z[i]), unit(theirs.z[other[1 - swap]])) / temperature).exp() for other in others
                ]
                u = Draw(key(seed, mine.view, theirs.view), o.batch.index[a.row[pair[0]]][None]).uniform(1).item()
                reached = [total(weights[: n + 1]) / total(weights) for n in range(len(weights))]
                j = next(other[1 - swap] for other, share in zip(others, reached) if share > u)
                terms.append(-(judged(m, a, j, b, i) if swap else judged(m, a, i, b, j))[0])
        found += [average(terms)] if terms else []
    return average(found)


def judged(m, a, i, b, j):
    """log p(two samples), log p(one sample) of two rows' tokens, without padding."""
    name = f"{a.modality}, {b.modality}"
    if name not in m.fusions:
        return judged(m, b, j, a, i)
    asks, looked_at = a.tokens[i][a.mask[i]][None], b.tokens[j][b.mask[j]][None]
    whole = lambda t: torch.ones(t.shape[:2], dtype=torch.bool)  # noqa: E731
    return m.fusions[name](asks, whole(asks), looked_at, whole(looked_at))[0].log_softmax(0)


matching = partial(Matching, facts=facts("image", "text"), temperature=0.5, width=8, layers=2, heads=2)


CASES = {
    "matching": Case(matching, plain_matching, MANY),
    "matching, three modalities": Case(
        partial(matching, facts=facts("image", "text", "ecg")),
        plain_matching,
        ("three modalities", "three modalities, some missing"),
    ),
    "coca": Case(coca, plain_coca, MANY),
    "coca, three modalities": Case(
        partial(coca, facts=facts("image", "text", "ecg"), caption_weight=0.5),
        partial(plain_coca, caption_weight=0.5),
        ("three modalities", "three modalities, some missing"),
    ),
    "cmim": Case(
        partial(cmim, facts=facts("ecg")), plain_cmim, ("two views", "rows missing"), zero_without_pairs=False
    ),
    "cmim, text": Case(
        partial(cmim, facts=facts("image", "text")),
        plain_cmim,
        ("two modalities", "captions, some missing"),
        zero_without_pairs=False,
    ),
    "cmim, sum": Case(
        partial(cmim, facts=facts("ecg"), negatives="sum", contrast_weight=0.5, least=0.5),
        partial(plain_cmim, negatives="sum", weight=0.5, least=0.5),
        ("two views",),
        zero_without_pairs=False,
    ),
    "selfdistill_fpt": Case(
        SelfDistillation,
        plain_self_distillation,
        ("two views", "rows missing", "two modalities"),
        zero_without_pairs=False,
        refuses_one=False,
    ),
    "selfdistill_fpt, role": Case(
        partial(SelfDistillation, role="local"),
        partial(plain_self_distillation, role="local"),
        ("multi-crop",),
        zero_without_pairs=False,
        refuses_one=False,
    ),
}
