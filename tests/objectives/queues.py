"""Objectives with a queue of past embeddings, as plain loops; random numbers are drawn as the objective draws them."""

from functools import partial

import torch

from counterpoint.objectives.hard import HardContrastive
from counterpoint.objectives.mixing import FeatureTransform, Hallucinator, MoCHi
from counterpoint.objectives.moco import Contriever, MoCo
from counterpoint.objectives.neighbours import NNCLR
from counterpoint.objectives.simcse import ESimCSE
from counterpoint.randomness import Draw, beta_quantile
from objectives.denominators import plain_hard_term, plain_simcse
from objectives.foundation import plain_predictor
from objectives.scenes import MANY, ONE, Case, D, aligned, average, dot, lse, unit, view_pairs, who


def momentum_pairs(o, m):
    """(student view, momentum view, queue, aligned rows) for every pair a MoCo compares."""
    for a in o.student:
        for b in o.momentum:
            order = b.view > a.view or (m.symmetric and b.view < a.view)
            across = m.modalities is not None
            if "negative" in (a.role, b.role) or not order or across == (a.modality == b.modality):
                continue
            yield a, b, o.queues[f"keys_{b.modality}" if across else "keys"], aligned(a, b)


def seen_by(o, m, a, i, queue):
    return [z for z, n in zip(queue.z, queue.index) if not (m.drop_own and n == who(o, a, i))]


def draws(o, a, rows, widths):
    """The random numbers of rows of a view, as the objective draws them: one (N, width) for each width."""
    ids = torch.tensor([who(o, a, i) for i, _ in rows])
    draw = Draw(int(torch.randint(2**62, ())), ids)
    return [draw.positions(width).double() for width in widths]


def plain_moco_options(o, m):
    losses = []
    for a, b, queue, rows in momentum_pairs(o, m):
        terms = []
        for i, j in rows:
            q, k = (unit(a.z[i]), unit(b.z[j].detach())) if m.unit else (a.z[i], b.z[j].detach())
            logits = [(q * v).sum() / m.temperature for v in [k, *seen_by(o, m, a, i, queue)]]
            logps = [x - lse(logits) for x in logits]
            terms.append(-(1 - m.label_smoothing) * logps[0] - m.label_smoothing * average(logps))
        losses.append(average(terms))
    return average(losses)


def plain_mochi(o, m):
    losses = []
    for a, b, queue, rows in momentum_pairs(o, m):
        pairs, own = m.synthetic
        numbers, terms = draws(o, a, rows, (pairs, pairs, pairs, own, own)), []
        for n, (i, j) in enumerate(rows):
            q, k = unit(a.z[i]), unit(b.z[j].detach())
            seen = seen_by(o, m, a, i, queue)
            hard = sorted(seen, key=lambda z: float((q * z).sum().detach()), reverse=True)[: m.hard]
            first, second, share, third, part = (u[n] for u in numbers)
            first, second, third = ([hard[int(u * len(hard))] for u in chosen] for chosen in (first, second, third))
            made = [unit(share[s] * first[s] + (1 - share[s]) * second[s]) for s in range(pairs)]
            made += [unit(part[s] / 2 * q.detach() + (1 - part[s] / 2) * third[s]) for s in range(own)]
            logits = [(q * v).sum() / m.temperature for v in [k, *seen, *made]]
            terms.append(lse(logits) - logits[0])
        losses.append(average(terms))
    return average(losses)


def plain_feat_transform(o, m):
    losses = []
    for a, b, queue, rows in momentum_pairs(o, m):
        shares = 1 + beta_quantile(draws(o, a, rows, (D,))[0], m.betas[0], m.betas[0])
        order = torch.randperm(len(queue.z))
        part = beta_quantile(torch.rand_like(queue.z), m.betas[1], m.betas[1])
        mixed = [part[n] * queue.z[n] + (1 - part[n]) * queue.z[order[n]] for n in range(len(queue.z))]
        terms = []
        for share, (i, j) in zip(shares, rows):
            q, k = unit(a.z[i]), unit(b.z[j].detach())
            pushed, key = share * q + (1 - share) * k, share * k + (1 - share) * q
            pushed, key, *rest = (unit(v) if m.renormalize else v for v in (pushed, key, *mixed))
            rest = [v for v, n in zip(rest, queue.index) if not (m.drop_own and n == who(o, a, i))]
            logits = [(pushed * v).sum() / m.temperature for v in [key, *rest]]
            terms.append(lse(logits) - logits[0])
        losses.append(average(terms))
    return average(losses)


def plain_mlp(m, x):
    first, _, second, _, third = m.mlp
    for layer in (first, second):
        x = (layer.weight @ x + layer.bias).clamp(min=0)
    return third.weight @ x + third.bias


def plain_hallucinator(o, m):
    losses = []
    for a, b, queue, rows in momentum_pairs(o, m):
        r, terms = m.extrapolate * torch.rand((), dtype=torch.float64), []
        for i, j in rows:
            k, seen = unit(b.z[j].detach()), seen_by(o, m, a, i, queue)
            h = plain_mlp(m, torch.cat([a.z[i], (1 + r) * a.z[i] - r * k]))
            for p in (unit(a.z[i]), unit(h)):
                logits = [(p * v).sum() / m.temperature for v in [k, *seen]]
                terms.append(lse(logits) - logits[0])
        losses.append(average(terms))
    return average(losses)


def plain_hard_queue(o, m):
    losses = []
    for a, b, queue, rows in momentum_pairs(o, m):
        terms = []
        for i, j in rows:
            rest = [dot(a.z[i], z) for z in seen_by(o, m, a, i, queue)]
            terms.append(plain_hard_term(m, dot(a.z[i], b.z[j].detach()), rest))
        losses.append(average(terms))
    return average(losses)


def plain_esimcse(o, m):
    return plain_simcse(o, m, extra=lambda z: list(o.queues["keys"].z))


def plain_nnclr(o, m):
    losses, queue = [], o.queues["support"].z
    predict = (lambda z: z) if m.predictor is None else partial(plain_predictor, m)
    nearest = lambda z: max(queue, key=lambda n: float(dot(z, n).detach()))  # noqa: E731

    def way(neighbours, predictions, names):
        terms = []
        for i, name in enumerate(names):
            logits = [dot(neighbours[i], p) / m.temperature for p in predictions]
            rest = [x for x, other in zip(logits, names) if other != name]
            terms.append(lse([logits[i], *rest]) - logits[i])
        return average(terms)

    for x, y in view_pairs(o, "within"):
        for a, b, rows in ((x, y, aligned(x, y)), (y, x, [(j, i) for i, j in aligned(x, y)])):
            names, predicted = [who(o, a, i) for i, _ in rows], predict(b.z)
            found, predictions = [nearest(a.z[i]) for i, _ in rows], [predicted[j] for _, j in rows]
            forward, backward = way(found, predictions, names), way(predictions, found, names)
            losses.append(m.direction * forward + (1 - m.direction) * backward)
    return average(losses)


BOTH = {"modalities": ["image", "text"], "symmetric": True}
free = partial(Case, refuses_one=False)
CASES = {
    "moco smoothed": free(partial(MoCo, label_smoothing=0.1), plain_moco_options, ONE),
    "moco smoothed, own rows out": free(partial(MoCo, label_smoothing=0.1, drop_own=True), plain_moco_options, ONE),
    "contriever": free(Contriever, plain_moco_options, (*ONE, "hard negatives")),
    "contriever normalised": free(partial(Contriever, normalize=True), plain_moco_options, ONE),
    "hard_contrastive": free(partial(HardContrastive, share=0.5), plain_hard_queue, ONE),
    "hard_contrastive across, simple": free(
        partial(HardContrastive, share=0.4, simple=0.5, **BOTH), plain_hard_queue, MANY
    ),
    "mochi": free(partial(MoCHi, hard=3, pairs=4, own=3), plain_mochi, (*ONE, "hard negatives")),
    "mochi across, own rows out": free(
        partial(MoCHi, hard=8, pairs=4, own=3, drop_own=True, **BOTH), plain_mochi, MANY
    ),
    "feat_transform": free(FeatureTransform, plain_feat_transform, (*ONE, "hard negatives")),
    "feat_transform, unit length": free(
        partial(FeatureTransform, renormalize=True, drop_own=True, **BOTH), plain_feat_transform, MANY
    ),
    "hallucinator": free(partial(Hallucinator, dim=D), plain_hallucinator, (*ONE, "hard negatives")),
    "hallucinator across": free(
        partial(Hallucinator, dim=D, drop_own=True, extrapolate=0.5, **BOTH), plain_hallucinator, MANY
    ),
    "esimcse": Case(ESimCSE, plain_esimcse, (*ONE, "hard negatives")),
    "nnclr": Case(partial(NNCLR, dim=D, hidden=8), plain_nnclr, (*ONE, "hard negatives")),
    "nnclr both ways": Case(partial(NNCLR, dim=D, predictor=False, direction="both"), plain_nnclr, ONE),
}
