"""Objectives whose similarity is not a cosine, as plain loops.

CASES: name in a recipe, and what is special about the case -> Case.
"""

from functools import partial
from itertools import product
from math import prod

import torch

from counterpoint.objectives.cico import CiCo
from counterpoint.objectives.filip import FILIP
from counterpoint.objectives.gram import GRAM
from counterpoint.objectives.symile import Symile
from counterpoint.randomness import key, splitmix64
from objectives.scenes import ALL, MANY, ONE, Case, across, aligned, average, dot, lse, unit, view_pairs, who

THREE, MISSING = "three modalities", "three modalities, some missing"


def tuples_of(o, views):
    """Every combination of the rows of a sample, None for a view in which it has none; with its sample."""
    found = []
    for s in range(len(o.batch)):
        rows = [[i for i, r in enumerate(e.row) if r == s] or [None] for e in views]
        found += [(s, places) for places in product(*rows) if set(places) != {None}]
    return found


# --- symile -----------------------------------------------------------------------------------------------------------


def multilinear(views, places):
    return prod(unit(e.z[i]) for e, i in zip(views, places)).sum()


def shuffled(ids, seed):
    count = range(len(ids))
    by_id = sorted(count, key=lambda t: ids[t])
    by_hash = sorted(count, key=lambda t: int(splitmix64(torch.tensor(ids[t]) ^ seed)))
    order = dict(zip(by_id, by_hash))
    return [order[t] for t in count]


def plain_symile(o, m):
    views, seed = [e for e in o.student if e.role != "negative"], int(torch.randint(1 << 62, ()))
    whole = [(s, places) for s, places in tuples_of(o, views) if None not in places]
    ids, scale, losses = [int(o.batch.index[s]) for s, _ in whole], 1 / m.temperature(), []
    count = range(len(whole))
    for a in range(len(views)):
        others = [v for v in range(len(views)) if v != a]
        if m.negatives == "n":
            orders = [shuffled(ids, key(key(seed, a), n)) for n in range(len(others))]
            tuples = [tuple(order[k] for order in orders) for k in count]
        else:
            tuples = list(product(count, repeat=len(others)))
        terms = []
        for i in count:
            negative = []
            for k, members in enumerate(tuples):
                of_one = len({ids[t] for t in members}) == 1
                true = ids[members[0]] == ids[i] if of_one else m.negatives == "n" and ids[k] == ids[i]
                if not true:
                    places = {v: whole[t][1][v] for v, t in zip(others, members)} | {a: whole[i][1][a]}
                    negative.append(scale * multilinear(views, [places[v] for v in range(len(views))]))
            positive = scale * multilinear(views, whole[i][1])
            terms.append(lse([positive, *negative]) - positive)
        losses.append(average(terms))
    return average(losses)


# --- gram -------------------------------------------------------------------------------------------------------------


def volume(vectors):
    x = torch.stack([unit(v) for v in vectors])
    return torch.linalg.det(x @ x.T).sqrt()


def cross_entropy(positive, negative, smoothing):
    logps = [x - lse([positive, *negative]) for x in [positive, *negative]]
    return -(1 - smoothing) * logps[0] - smoothing * average(logps)


def plain_gram(o, m):
    present = [e for e in o.student if e.role != "negative"]
    first = next(e for e in present if m.anchor in (None, e.modality))
    views = [first] + [e for e in present if e is not first]
    whole = [(s, places) for s, places in tuples_of(o, views) if places[0] is not None and set(places[1:]) != {None}]
    has = [{v for v, i in enumerate(places) if v and i is not None} for _, places in whole]

    def logit(i, j, those):
        tuple_ = [views[v].z[whole[j][1][v]] for v in sorted(those)]
        return -volume([first.z[whole[i][1][0]], *tuple_]) / m.temperature()

    ways = [[], []]
    for i, (s, _) in enumerate(whole):
        different = [j for j, (r, _) in enumerate(whole) if r != s]
        positive = logit(i, i, has[i])
        to_tuples = [logit(i, j, has[i]) for j in different if has[i] <= has[j]]
        to_anchors = [logit(j, i, has[i]) for j in different]
        for way, negative in zip(ways, (to_tuples, to_anchors)):
            way.append(cross_entropy(positive, negative, m.label_smoothing))
    return (average(ways[0]) + average(ways[1])) / 2


# --- filip and cico ---------------------------------------------------------------------------------------------------


def real(e, i):
    return [e.tokens[i, t] for t in range(e.tokens.shape[1]) if e.mask[i, t]]


def one_way(mine, theirs, soft=None):
    """How the tokens of one row find those of the other."""
    found = []
    for a in mine:
        e = torch.stack([dot(a, b) for b in theirs])
        found.append(e.max() if soft is None else (e * (e / soft).softmax(0)).sum())
    return average(found)


def most_alike(mine, partner, top):
    score = [float(sum(dot(a, b) for b in partner).detach()) for a in mine]
    best = sorted(range(len(mine)), key=lambda t: -score[t])[:top]
    return [mine[t] for t in best]


def plain_filip(o, m):
    losses = []
    for a, b in view_pairs(o, across(o)):
        pairs, top = aligned(a, b), m.top or 99
        fewer_a = [most_alike(real(a, i), real(b, j), top) for i, j in pairs]
        fewer_b = [most_alike(real(b, j), real(a, i), top) for i, j in pairs]
        forward, backward = [], []
        for n, (i, j) in enumerate(pairs):
            f = [one_way(real(a, i), tokens) / m.temperature() for tokens in fewer_b]
            g = [one_way(real(b, j), tokens) / m.temperature() for tokens in fewer_a]
            different = [k for k, (_, q) in enumerate(pairs) if who(o, b, q) != who(o, a, i)]
            for way, logits in ((forward, f), (backward, g)):
                way.append(cross_entropy(logits[n], [logits[k] for k in different], 0.0))
        losses.append((average(forward) + average(backward)) / 2)
    return average(losses)


def plain_cico(o, m):
    views = [e for e in o.student if e.role != "negative"]
    names = list(dict.fromkeys(e.modality for e in views))
    of = {name: [e for e in views if e.modality == name] for name in names}
    if len(names) == 1:
        triples = [(views[0], views[1], views[1])]
    else:
        triples = [(of[x][0], of[y][0], of[y][-1]) for n, x in enumerate(names) for y in names[n + 1 :]]
    losses = []
    for video, text, augmented in triples:
        for second, to_text, share in ((text, True, m.mix), (augmented, False, 1 - m.mix)):
            pairs = aligned(video, second)

            def logit(p, q, video=video, second=second, pairs=pairs, to_text=to_text):
                v, t = real(video, pairs[p][0]), real(second, pairs[q][1])
                e = one_way(v, t, m.similarity.soft) if to_text else one_way(t, v, m.similarity.soft)
                return e / m.temperature()

            rows, columns = [], []
            for p, (i, _) in enumerate(pairs):
                different = [q for q, (k, _) in enumerate(pairs) if who(o, video, k) != who(o, video, i)]
                rows.append(cross_entropy(logit(p, p), [logit(p, q) for q in different], 0.0))
                columns.append(cross_entropy(logit(p, p), [logit(q, p) for q in different], 0.0))
            losses.append(share * average(rows) + (1 - share) * average(columns))
    return average(losses)


CASES = {
    "symile": Case(Symile, plain_symile, (THREE, MISSING, "two modalities", "three views", "rows missing")),
    "symile, all": Case(
        partial(Symile, negatives="n_squared"), plain_symile, (THREE, MISSING, "captions, some missing", "three views")
    ),
    "gram": Case(GRAM, plain_gram, (*MANY, THREE, MISSING, "three views", "hard negatives")),
    "gram smoothed": Case(
        partial(GRAM, anchor="text", label_smoothing=0.1, temperature=0.2), plain_gram, (THREE, MISSING, *MANY)
    ),
    "filip": Case(FILIP, plain_filip, ALL),
    "filip top": Case(partial(FILIP, top=2, temperature=0.5), plain_filip, (*ONE, *MANY)),
    "cico": Case(CiCo, plain_cico, (*ALL, "views of two modalities")),
    "cico mixed": Case(
        partial(CiCo, mix=0.8, soft=0.3, temperature=0.4), plain_cico, ("views of two modalities", *MANY)
    ),
}
