"""Objectives with a margin, as plain loops."""

from functools import partial

from counterpoint.objectives.triplet import Triplet
from objectives.scenes import ALL, ONE, Case, average, unit, who


def plain_triplet(o, m):
    by = m.label or m.group or "index"
    rows = [(e, i) for e in o.student if e.role != "negative" for i in range(len(e.row))]
    squared = lambda x, y: ((unit(x[0].z[x[1]]) - unit(y[0].z[y[1]])) ** 2).sum()  # noqa: E731
    terms = []
    for number, a in enumerate(rows):
        alike = [n for n, b in enumerate(rows) if n != number and who(o, *b, by) == who(o, *a, by)]
        far = [squared(a, b) for b in rows if who(o, *b, by) != who(o, *a, by)]
        near = [squared(a, rows[n]) for n in alike]
        if not near or not far:
            continue
        if m.negatives == "hard":
            terms.append((max(near) - min(far) + m.margin).clamp(min=0))
        for p in near if m.negatives != "hard" else []:
            beyond = [n for n in far if n > p]
            chosen = far if m.negatives == "all" else [min(beyond)] if beyond else []
            terms += [(p - n + m.margin).clamp(min=0) for n in chosen] or [0 * p]
    return average(terms)


CASES = {
    "triplet": Case(Triplet, plain_triplet, ALL),
    "triplet hard": Case(partial(Triplet, negatives="hard", margin=0.5), plain_triplet, ALL),
    "triplet all": Case(partial(Triplet, negatives="all", margin=1.0), plain_triplet, ALL),
    "triplet by class": Case(partial(Triplet, label="class"), plain_triplet, ONE, zero_without_pairs=False),
    "triplet by group": Case(
        partial(Triplet, group="patient", negatives="all"), plain_triplet, ONE, zero_without_pairs=False
    ),
}
