"""Dense objectives as plain loops over places, whose positions are those of each row's corner and edges."""

from functools import partial
from itertools import product
from math import ceil, floor

import torch

from counterpoint.objectives.dense import PixPro
from counterpoint.objectives.slotcon import SlotCon
from objectives.scenes import ONE, Case, D, aligned, average, lse, total, unit, who

PARTLY = "views of two modalities, some missing"


def directions(o):
    """(student view, momentum view, aligned rows) of one modality, in both directions."""
    for a in o.student:
        for b in o.momentum:
            if a.view != b.view and a.modality == b.modality and "negative" not in (a.role, b.role) and aligned(a, b):
                yield a, b, aligned(a, b)


def grid(sizes):
    return [torch.tensor([(i + 0.5) / n for i, n in zip(cell, sizes)], dtype=torch.float64) for cell in places(sizes)]


def places(sizes):
    return list(product(*(range(n) for n in sizes)))


def shown_at(place, u):
    return place[0] + sum(x * edge for x, edge in zip(u, place[1:]))


def plain_pixpro(o, m):
    losses = []
    for a, b, rows in directions(o):
        terms = []
        for i, j in rows:
            cells, sizes = places(a.map.shape[2:]), a.map.shape[2:]
            x = [a.map[i][(slice(None), *c)] for c in cells]
            values = [unit(m.value.weight @ v + m.value.bias) for v in x]
            alike = lambda p, q: (unit(p) * unit(q)).sum().clamp(min=0) ** m.sharpness  # noqa: E731
            y = [unit(sum(alike(p, q) * v for q, v in zip(x, values))) for p in x]
            k = [unit(b.map[j].detach()[(slice(None), *c)]) for c in cells]
            first, second = a.meta["place"][i], b.meta["place"][j]
            wide = [sum((edge / n).square().sum() for edge, n in zip(p[1:], sizes)).sqrt() for p in (first, second)]
            agreed, count = [0 * y[0].sum()], 0
            for p, u in zip(y, grid(sizes)):
                for q, v in zip(k, grid(sizes)):
                    if (shown_at(first, u) - shown_at(second, v)).norm() < m.threshold * max(wide):
                        agreed.append((p * q).sum())
                        count += 1
            terms.append(total(agreed) / (count + 1e-6))
        losses.append(-2 * average(terms))
    return 2 * average(losses)


def fractions(place, point):
    """By Cramer's rule."""
    (a, b), (c, d) = place[1].tolist(), place[2].tolist()
    y, x = (point - place[0]).tolist()
    return (y * d - x * c) / (a * d - b * c), (x * a - y * b) / (a * d - b * c)


def read(table, u):
    """The value of a map (C, H, W) at two fractions, between the centres of its places."""
    spots = []
    for share, n in zip(u, table.shape[1:]):
        p = min(max(share * n - 0.5, 0.0), n - 1.0)
        low, high = floor(p), min(ceil(p), n - 1)
        spots.append([(low, 1 - (p - low)), (high, p - low)])
    return sum(s * t * table[:, h, w] for h, s in spots[0] for w, t in spots[1])


def bounds(place):
    ends = torch.stack([shown_at(place, u) for u in product((0, 1), repeat=2)])
    return ends.amin(0), ends.amax(0)


def plain_group(m, a, b, rows):
    terms = []
    for i, j in rows:
        p, q = a.meta["place"][i], b.meta["place"][j]
        low = torch.maximum(bounds(p)[0], bounds(q)[0])
        high = torch.minimum(bounds(p)[1], bounds(q)[1])
        for u in grid(a.map.shape[2:]) if (high > low).all() else ():
            point = low + u * (high - low)
            at = [fractions(place, point) for place in (p, q)]
            if all(0 <= x <= 1 for us in at for x in us):
                s, t = read(a.heads["scores"][i], at[0]), read(b.heads["scores"][j].detach(), at[1])
                target = ((t - m.centre) / m.teacher_temperature).softmax(0)
                logits = s / m.student_temperature
                terms.append(-(target * (logits - lse(logits))).sum())
    return average(terms) if terms else 0 * a.map.sum()


def plain_slots(m, e, i):
    """The slots of a row, and the prototypes that are the first choice of one of its places."""
    cells = places(e.map.shape[2:])
    scores, x = ([table[(slice(None), *c)] for c in cells] for table in (e.heads["scores"][i], e.map[i]))
    share = [(s / m.teacher_temperature).softmax(0) + 1e-6 for s in scores]
    slots = [sum(a[k] * v for a, v in zip(share, x)) / sum(a[k] for a in share) for k in range(len(m.centre))]
    return slots, {int(s.argmax()) for s in scores}


def plain_normed(x, norm):
    if len(x) == 1:
        x, spread = x - norm.running_mean, norm.running_var
    else:
        x, spread = x - x.mean(0), ((x - x.mean(0)) ** 2).mean(0)
    return norm.weight * x / torch.sqrt(spread + norm.eps) + norm.bias


def plain_predicted(m, x):
    one, norm, _, two, other, _, three = m.predictor
    for linear, batch_norm in ((one, norm), (two, other)):
        x = plain_normed(x @ linear.weight.T + linear.bias, batch_norm)
        x = x * 0.5 * (1 + torch.erf(x / 2**0.5))
    return x @ three.weight.T + three.bias


def plain_contrast(o, m, a, b, rows):
    queries, names, keys = [], [], []
    for i, j in rows:
        (mine, first), (theirs, second) = plain_slots(m, a, i), plain_slots(m, b, j)
        keys += [((who(o, a, i), k), len(keys), unit(theirs[k].detach()), (i, j, k)) for k in sorted(second)]
        queries += [mine[k] for k in sorted(first & second)]
        names += [((who(o, a, i), k), (i, j, k)) for k in sorted(first & second)]
    if not queries:
        return 0 * a.map.sum()
    terms = []
    for p, (name, exactly) in zip(plain_predicted(m, torch.stack(queries)), names):
        logits = [
            (own, unit(p) @ key / m.temperature) for other, _, key, own in keys if own == exactly or other != name
        ]
        terms.append(lse(x for _, x in logits) - next(x for own, x in logits if own == exactly))
    return 2 * m.temperature * average(terms)


def plain_slotcon(o, m):
    pairs = list(directions(o))
    group = average(plain_group(m, *pair) for pair in pairs)
    slots = average(plain_contrast(o, m, *pair) for pair in pairs)
    return 2 * (m.group_weight * group + (1 - m.group_weight) * slots)


free = partial(Case, refuses_one=False)
small = partial(SlotCon, dim=D, prototypes=5, hidden=6)


class Moved(SlotCon):
    """A SlotCon whose centre has moved."""

    def __init__(self, *, dim: int = D, prototypes: int = 5, hidden: int = 6, temperature: float = 0.2):
        super().__init__(dim=dim, prototypes=prototypes, hidden=hidden, temperature=temperature)
        self.centre.copy_(torch.linspace(-0.3, 0.2, prototypes))


CASES = {
    "pixpro": free(partial(PixPro, dim=D), plain_pixpro, (*ONE, "multi-crop", PARTLY)),
    "pixpro wider": free(partial(PixPro, dim=D, sharpness=1.0, threshold=1.5), plain_pixpro, ("two views",)),
    "slotcon": free(small, plain_slotcon, (*ONE, "multi-crop", PARTLY)),
    "slotcon centred": free(Moved, plain_slotcon, ("rows missing",)),
    "slotcon grouping alone": free(partial(small, group_weight=1.0), plain_slotcon, ("two views",)),
}
