"""Objectives over more than two views, several heads or groups, as plain loops.

CASES: name in a recipe, and what is special about the case -> Case.
"""

from functools import partial

import torch

from counterpoint.objectives.amcl import AMCL
from counterpoint.objectives.cacr import CACR
from counterpoint.objectives.multi_positive import SigmoidMultiPositive, XEgoCECL
from counterpoint.objectives.multi_view import MVDHEL, MVInfoNCE
from counterpoint.objectives.sepclr import SepCLR
from objectives.scenes import (  # fmt: skip
    ALL,
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

MISSING = "three modalities, some missing"


def rows_of(o):
    return [(e, i) for e in o.student if e.role != "negative" for i in range(len(e.row))]


def per_sample(o):
    """The rows of every sample, and its pairs of rows in different views, each in both orders."""
    for s in range(len(o.batch)):
        mine = [(e, i) for e, i in rows_of(o) if e.row[i] == s]
        pairs = [(x, y) for x in mine for y in mine if x[0] is not y[0]]
        if pairs:
            yield mine, pairs


def other(o, x, y):
    return who(o, *x) != who(o, *y)


def cosine(x, y):
    return dot(x[0].z[x[1]], y[0].z[y[1]])


def plain_mv_infonce(o, m):
    terms = []
    for mine, pairs in per_sample(o):
        positive = [cosine(x, y) / m.temperature for x, y in pairs]
        negative = [cosine(x, y) / m.temperature for x in mine for y in rows_of(o) if other(o, x, y)]
        terms.append(lse(positive + negative) - lse(positive))
    return average(terms)


def plain_mv_dhel(o, m):
    terms = []
    for mine, pairs in per_sample(o):
        place = {id(x): n for n, x in enumerate(mine)}
        positive = [cosine(x, y) / m.temperature for x, y in pairs if place[id(x)] < place[id(y)]]
        logs = []
        for x in mine:
            negative = [cosine(x, y) / m.temperature for y in rows_of(o) if y[0] is x[0] and other(o, x, y)]
            logs.append(lse(negative))
        terms.append(total(logs) - lse(positive))
    return average(terms)


def weighted(logits, costs, detach):
    weights = torch.stack(logits).softmax(0)
    return ((weights.detach() if detach else weights) * torch.stack(costs)).sum()


def plain_cacr(o, m):
    squared = lambda a, b: ((unit(a) - unit(b)) ** 2).sum()  # noqa: E731
    attraction, repulsion = [], []
    for mine, pairs in per_sample(o):
        for x in mine:
            far = [squared(x[0].z[x[1]], y[0].z[y[1]]) for w, y in pairs if w is x]
            attraction.append(weighted([m.tau_pos * d for d in far], [m.alpha * d for d in far], m.detach_weights))
    for a, b in view_pairs(o):
        terms, pairs = [], aligned(a, b)
        for i, j in pairs:
            near = [squared(a.z[i], b.z[q]) for _, q in pairs if who(o, b, q) != who(o, a, i)]
            term = weighted([-m.tau_neg * d for d in near], [-m.beta * d for d in near], m.detach_weights)
            terms.append((term + m.debias * m.beta * squared(a.z[i], b.z[j])) / (1 - m.debias))
        repulsion.append(average(terms))
    return average(attraction) + average(repulsion)


def plain_amcl(o, m):
    loss = 0.0
    for name, mlp in m.adaptive.items():

        def tau(x, y, name=name, mlp=mlp):
            both = torch.cat([unit(e.heads[name][i]) for e, i in (x, y)])
            hidden = (mlp.first.weight @ both + mlp.first.bias).clamp(min=0)
            return 1e-5 + (2 - 1e-5) / (1 + torch.exp(-(mlp.last.weight @ hidden + mlp.last.bias)[0]))

        def logit(x, y, tau=tau, name=name):
            return dot(x[0].heads[name][x[1]], y[0].heads[name][y[1]]) / tau(x, y)

        terms, regs, everyone = [], [], rows_of(o)
        for _, pairs in per_sample(o):
            for x, y in pairs:
                rest = [logit(x, w) for w in everyone if other(o, x, w)]
                terms.append(lse([logit(x, y), *rest]) - logit(x, y))
                regs.append(tau(x, y))
        regs += [tau(x, y) for x in everyone for y in everyone if other(o, x, y)]
        loss = loss + average(terms) + m.beta * average(D / 2 * t.log() + 1 / t for t in regs)
    return loss


def plain_sepclr(o, m):
    width, views = 2 * m.tau, [e for e in o.student if e.role != "negative"]
    squared = lambda a, b: ((a - b) ** 2).sum()  # noqa: E731
    label = lambda e, i: int(o.batch.labels["class"][e.row[i]])  # noqa: E731
    common = lambda e, i: unit(e.heads["common"][i])  # noqa: E731
    salient = lambda e, i: e.heads["salient"][i]  # noqa: E731
    zeroed = lambda e, i: salient(e, i) * (label(e, i) != m.background)  # noqa: E731
    anyone, known = lambda e, i: True, lambda e, i: label(e, i) >= 0
    target, background = lambda e, i: known(e, i) and not background(e, i), lambda e, i: label(e, i) == m.background

    def those(e, which):
        return [i for i in range(len(e.row)) if which(e, i)]

    def align(of, which):
        pairs = [(a, b, [(i, j) for i, j in aligned(a, b) if which(a, i)]) for a, b in view_pairs(o)]
        return average(average(squared(of(a, i), of(b, j)) for i, j in found) / width for a, b, found in pairs if found)

    def spread(of, which):
        terms = []
        for e in views:
            pairs = [(i, j) for i in those(e, which) for j in those(e, which) if i < j and who(o, e, i) != who(o, e, j)]
            if pairs:
                terms.append(average((-squared(of(e, i), of(e, j)) / width).exp() for i, j in pairs).log())
        return m.uniformity * average(terms)

    def joint(e):
        distance = lambda i, j: squared(common(e, i), common(e, j)) + squared(zeroed(e, i), zeroed(e, j))  # noqa: E731
        rows = those(e, known)
        return average(average((-distance(i, j) / width).exp() for j in rows).log() for i in rows)

    absent = [
        average((salient(e, i) ** 2).sum() / width for i in those(e, background)) for e in views if those(e, background)
    ]
    return (
        align(common, anyone)
        + spread(common, anyone)
        + m.weights["salient"] * (align(salient, target) + spread(zeroed, known))
        + m.weights["background"] * average(absent)
        + m.weights["joint"] * average(joint(e) for e in views)
    )


def sigmoid_term(positive, logit):
    return torch.log(1 + torch.exp(-logit if positive else logit))


def plain_sigmoid(o, m):
    scale, losses = m.log_scale.exp(), []
    for a, b in view_pairs(o, across(o)):
        pairs, terms = aligned(a, b), []
        for i, _ in pairs:
            for _, j in pairs:
                same = who(o, a, i, m.group) == who(o, b, j, m.group)
                terms.append(sigmoid_term(same, scale * dot(a.z[i], b.z[j]) + m.bias))
        losses.append(total(terms) / len(pairs))
    return average(losses)


def plain_x_ego(o, m):
    scale, everyone = m.log_scale.exp(), rows_of(o)
    terms = []
    for n, x in enumerate(everyone):
        for k, y in enumerate(everyone):
            if n != k:
                same = who(o, *x, m.group) == who(o, *y, m.group)
                terms.append(sigmoid_term(same, scale * cosine(x, y) + m.bias))
    return total(terms) / len(everyone)


_SEPCLR = partial(SepCLR, label="class", background=3)
CASES = {
    "mv_infonce": Case(MVInfoNCE, plain_mv_infonce, (*ALL, "three modalities", MISSING)),
    "mv_dhel": Case(MVDHEL, plain_mv_dhel, (*ALL, "three modalities", MISSING)),
    "cacr": Case(CACR, plain_cacr, (*ALL, MISSING)),
    "cacr weighted": Case(
        partial(CACR, tau_pos=1.5, tau_neg=2.0, alpha=0.7, beta=1.3, debias=0.1),
        plain_cacr,
        (*ONE, MISSING),
    ),
    "cacr, weights detached": Case(partial(CACR, detach_weights=True), plain_cacr, ("three views", *MANY)),
    "amcl": Case(partial(AMCL, heads=["a", "b"], dim=D, hidden=6), plain_amcl, ALL),
    "sepclr": Case(_SEPCLR, plain_sepclr, (*ONE, "two modalities"), zero_without_pairs=False),
    "sepclr weighted": Case(
        partial(_SEPCLR, tau=0.8, uniformity=1.0, salient_weight=0.5, background_weight=2.0, joint_weight=0.3),
        plain_sepclr,
        ("three views",),
        zero_without_pairs=False,
    ),
    "sigmoid_multi_positive": Case(partial(SigmoidMultiPositive, group="patient"), plain_sigmoid, ALL),
    "sigmoid_multi_positive, index": Case(partial(SigmoidMultiPositive, group="index"), plain_sigmoid, MANY),
    "x_ego_cecl": Case(partial(XEgoCECL, group="patient"), plain_x_ego, ALL, zero_without_pairs=False),
}
