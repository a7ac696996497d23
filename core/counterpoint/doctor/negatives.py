"""Negatives that are no negatives, and positives that never meet."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from counterpoint.data.plan import Order
from counterpoint.doctor.data import by_design, category, shares
from counterpoint.doctor.finding import Finding, percent
from counterpoint.doctor.look import Data
from counterpoint.fit.assembly import Assembly

BATCHES = 32  # of the first epoch that are looked at
FALSE, GRAVE = 0.02, 0.1  # shares of the negatives that are worth a word, that are serious
CLASS = 0.34  # of labels of three classes or more; half of the pairs share one of two, which says nothing
MEETS = 0.2  # anchors that meet a positive of their group in a batch, at least


def check(data: Data, assembly: Assembly) -> Iterator[Finding]:
    yield from false_negatives(data, assembly)
    yield from equal_contents(data)
    yield from lonely_positives(data, assembly)


def false_negatives(data: Data, assembly: Assembly) -> Iterator[Finding]:
    """Samples of one identity, or one class, that stand in a batch as each other's negatives."""
    drawn = batches(data, assembly)
    for kind, name, least in _identities(data, assembly):
        share = _within(data.train.column(name), drawn)
        if share >= least:
            what = f"{percent(share)} of the negatives in a batch share the anchor's {kind} {name!r}"
            yield Finding("objective", what, _apart(kind, name), serious=kind == "group" and share >= GRAVE)


def _identities(data: Data, assembly: Assembly) -> Iterator[tuple[str, str, float]]:
    """Kind, name and least share of the columns that tell who is a negative, those left out that the recipe knows of."""
    spec, taught = data.train.dataset.spec, {n for o in assembly.objectives.values() for n in o.needs().labels}
    for name in sorted(spec.groups.keys() - by_design(data.recipe) - _positives(assembly)):
        column = data.train.column(name)
        if column is not None and not category(column):
            yield "group", name, FALSE
    for name, count in spec.labels.items():
        if (count or 0) > 2 and name not in taught and data.train.column(name) is not None:
            yield "label", name, CLASS


def _apart(kind: str, name: str) -> str:
    if kind == "label":
        return f"if they should agree, say so: objective=supcon objective.label={name}; if they may differ, leave it"
    return (
        f"make them positives (objective=info_nce objective.positives={name}), or keep them out of one batch "
        f"(loader.sampler={{use: distinct, by: {name}}})"
    )


def equal_contents(data: Data) -> Iterator[Finding]:
    """Different samples with the same text, or the same input: each is a negative of the other."""
    train = data.train
    columns = {m: hashes for m, hashes in train.hashes.items() if m in data.recipe.encoders}
    for modality, share in shares(columns).items():
        if share >= FALSE:
            what = f"{percent(share)} of the pairs of training samples have the same {modality!r}, and are each other's negatives"
            remedy = f"give what says the same an identity (data.groups) and make it positive: objective.positives=..., or drop copies of {modality!r}"
            yield Finding("objective", what, remedy, serious=share >= GRAVE)


def lonely_positives(data: Data, assembly: Assembly) -> Iterator[Finding]:
    """Anchors whose positives are of their group, and who meet none in their batch; a partner in another modality is one."""
    if len(assembly.towers) > 1:
        return
    for name in sorted(_positives(assembly) & set(data.train.dataset.spec.groups)):
        column, drawn = data.train.column(name), batches(data, assembly)
        counts = np.unique(column[column >= 0], return_counts=True)[1]
        alone = int((counts == 1).sum() + (column < 0).sum())
        met = _met(column, drawn)
        if met >= MEETS:
            continue
        what = f"{percent(met)} of the anchors meet another sample of their {name!r} in a batch, and {alone} of {len(column)} samples have none"
        if alone == len(column):
            remedy = f"check the column {name!r}: no two samples share it"
        else:
            remedy = f"fill batches with several of each: loader.sampler={{use: by_group, by: {name}, per_group: 2}}"
        yield Finding("objective", what, remedy)


def _positives(assembly: Assembly) -> set[str]:
    return {name for objective in assembly.objectives.values() for name in objective.needs().groups}


def batches(data: Data, assembly: Assembly) -> list[np.ndarray]:
    """Batches as the recipe's sampler draws them in the first epoch."""
    dataset, loader = data.train.dataset, data.recipe.loader
    order = Order.of(dataset, loader.batch)
    try:
        drawn = loader.sampler.build()(order, np.random.default_rng(data.recipe.seed))
    except Exception:  # of a column that is made in training; then as chance has it
        drawn = np.split(
            np.random.default_rng(0).permutation(len(dataset)), range(order.batch, len(dataset), order.batch)
        )
    return drawn[:BATCHES]


def _within(column: np.ndarray, drawn: list[np.ndarray]) -> float:
    """The mean share of pairs in a batch that have the same known value."""
    found = [shares({"it": column[batch]})["it"] for batch in drawn if len(batch) > 1]
    return float(np.mean(found)) if found else 0.0


def _met(column: np.ndarray, drawn: list[np.ndarray]) -> float:
    """The share of samples of known value that have another of it in their batch."""
    met = total = 0
    for batch in drawn:
        _, place, counts = np.unique(column[batch], return_inverse=True, return_counts=True)
        known = column[batch] >= 0
        met, total = met + int((counts[place][known] > 1).sum()), total + len(batch)
    return met / max(1, total)
