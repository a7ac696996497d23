"""What of one split is in the other, what lacks its partner, and what there is too much of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from counterpoint.doctor.finding import Finding, listed, percent
from counterpoint.doctor.look import Data, Part
from counterpoint.recipe import Call, Recipe

NEAR = 0.998  # cosine of the centred samples, from which two count as the same but for noise or gain
UNPAIRED = 0.1  # share without a partner that is worth a word
UNEVEN = 20  # times that the largest class may have what the smallest has
CATEGORY = 30  # samples an identity from which a group may be a category, such as a language


def check(data: Data) -> Iterator[Finding]:
    yield from unreadable(data)
    yield from constant(data)
    yield from leaking_groups(data)
    yield from copies_across(data)
    yield from unpaired(data)
    yield from uneven(data)


def unreadable(data: Data) -> Iterator[Finding]:
    for part in _parts(data):
        if part.bad:
            what = f"{len(part.bad)} of {len(part) + len(part.bad)} samples of {part.split!r} cannot be read: {listed(part.bad)}"
            yield Finding("data", what, "mend them, or leave them out: loader.on_bad=skip")


def constant(data: Data) -> Iterator[Finding]:
    for part in _parts(data):
        for modality, found in part.flat.items():
            if found:
                what = f"{len(found)} of {len(part)} samples of {part.split!r} have one value all over in {modality!r}: {listed(found)}"
                yield Finding("data", what, "take them out of the table: nothing can be learnt from them")


def leaking_groups(data: Data) -> Iterator[Finding]:
    """Identities in both splits, of groups that the scores are not about."""
    if data.test is None:
        return
    for name, identities in data.train.dataset.spec.groups.items():
        ours, theirs = data.train.column(name), data.test.column(name)
        if name in by_design(data.recipe) or ours is None or theirs is None or identities < 2:
            continue
        both = np.intersect1d(ours[ours >= 0], theirs[theirs >= 0])
        if len(both):
            count = len(np.unique(theirs[theirs >= 0]))
            what = f"{len(both)} of {count} groups {name!r} of the test split are in the training split, too"
            remedy, coarse = _held_out(data.recipe, name), category(ours)
            yield Finding(
                "data",
                what,
                ("of a category, such as a language, that is fine; else " if coarse else "") + remedy,
                not coarse,
            )


def category(column: np.ndarray) -> bool:
    """Whether identities have so many samples that they may be categories rather than whose a sample is."""
    known = column[column >= 0]
    return len(known) >= CATEGORY * max(1, len(np.unique(known)))


def by_design(recipe: Recipe) -> set[str]:
    """Groups that are asked for, or that batches are made by: they are in both splits on purpose."""
    asked = [call.params.get(name) for call in recipe.evaluate for name in ("label", "within", "by", "pool")]
    return {name for name in [*asked, recipe.loader.sampler.params.get("by")] if isinstance(name, str)}


def _held_out(recipe: Recipe, name: str) -> str:
    for call in [recipe.data, *_nested(recipe.data)]:
        if "holdout_by" in call.component.parameters():
            own = f"{call.path}.split_column=null " if call.params.get("split_column") else ""
            return f"hold out whole groups: {own}{call.path}.holdout_by={name}; or mend the table's column of splits"
    return f"hold out whole groups {name!r}: scores on ones seen in training are too good"


def _nested(call: Call) -> Iterator[Call]:
    for value in call.params.values():
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, Call) and inner.kind == "dataset":
                yield inner
                yield from _nested(inner)


def copies_across(data: Data) -> Iterator[Finding]:
    """Samples of the test split that are in the training split: to the bit, or but for noise and gain."""
    if data.test is None:
        return
    train, test = data.train, data.test
    same = {int(i) for i in test.index[_same(train, test)]}
    numbers = [m for m in test.sketches if m in train.sketches]
    for modality in numbers:
        there = (test.hashes[modality] >= 0) & test.sketches[modality].any(1)
        same |= {int(i) for i in test.index[there & np.isin(test.hashes[modality], train.hashes[modality])]}
    remedy = "take them out of one of the two, or hold out by what they have in common (data.holdout_by)"
    if same:
        what = f"{len(same)} of {len(test)} test samples are in the training split, to the bit: {listed(sorted(same))}"
        yield Finding("data", what, remedy)
    for modality in numbers:
        close = nearest(test.sketches[modality], train.sketches[modality]) > NEAR
        found = sorted({int(i) for i in test.index[close]} - same)
        if found:
            what = f"{len(found)} of {len(test)} test samples are nearly those of the training split in {modality!r}: {listed(found)}"
            yield Finding("data", what, remedy)


def _same(train: Part, test: Part) -> np.ndarray:
    """bool (n,): test samples whose every modality is that of one training sample."""
    names = sorted(train.hashes.keys() & test.hashes.keys())
    table = lambda part: np.stack([part.hashes[m] for m in names], 1)  # noqa: E731
    known = {row.tobytes() for row in table(train)}
    return np.array([row.tobytes() in known for row in table(test)], dtype=bool)


def nearest(queries: np.ndarray, keys: np.ndarray, chunk: int = 512) -> np.ndarray:
    """float32 (n,): the largest product of each query with a key; `chunk` queries at a time."""
    if not len(keys):
        return np.zeros(len(queries), np.float32)
    parts = [(queries[start : start + chunk] @ keys.T).max(1) for start in range(0, len(queries), chunk)]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def unpaired(data: Data) -> Iterator[Finding]:
    """Samples without a second modality, where the recipe has several."""
    train, names = data.train, list(data.recipe.encoders)
    if len(names) < 2 or not len(train):
        return
    there = np.stack([train.hashes[m] >= 0 for m in names if m in train.hashes], 1)  # (n, modalities)
    alone = there.sum(1) < 2
    if alone.mean() < UNPAIRED:
        return
    lacking = ", ".join(f"{m!r} {percent(share)}" for m, share in zip(names, 1 - there.mean(0)) if share)
    batch = data.recipe.loader.batch
    rare = (alone.mean() ** batch) * (1 + batch * (1 - alone.mean()) / max(alone.mean(), 1e-9)) > 0.01
    what = f"{percent(alone.mean())} of the samples have no second modality to agree with (lacking: {lacking})"
    if rare:
        what += f"; some batches of {batch} have no two pairs to contrast"
    remedy = "look for an empty or misspelt column of data.inputs; what is left alone adds nothing to a contrast across modalities"
    yield Finding("data", what, remedy, serious=bool(rare) or alone.mean() > 0.5)


def uneven(data: Data) -> Iterator[Finding]:
    """Classes, and groups of few identities such as languages, of which one has many times what another has."""
    spec = data.train.dataset.spec
    classes = {name: "label" for name, count in spec.labels.items() if count is not None}
    for name, kind in (classes | dict.fromkeys(spec.groups, "group")).items():
        column = data.train.column(name)
        known = column[column >= 0] if column is not None else []
        counts = np.unique(known, return_counts=True)[1] if len(known) else np.zeros(0)
        if len(counts) < 2 or (kind == "group" and not category(column)):
            continue
        if counts.max() > UNEVEN * counts.min():
            what = f"the largest of {len(counts)} of {kind} {name!r} has {counts.max()} samples, the smallest {counts.min()}"
            yield Finding("data", what, _evened(kind, name), serious=False)


def _evened(kind: str, name: str) -> str:
    if kind == "group":
        return f"fill batches from one at a time: loader.sampler={{use: by_group, by: {name}, per_group: ...}}; score within it"
    return "look at balanced_accuracy beside accuracy (linear_probe gives both)"


def _parts(data: Data) -> list[Part]:
    return [part for part in (data.train, data.test) if part is not None]


def shares(table: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The share of ordered pairs of different samples that have the same known value, of each column."""
    found = {}
    for name, column in table.items():
        counts = np.unique(column[column >= 0], return_counts=True)[1].astype(float)
        found[name] = float((counts * (counts - 1)).sum() / max(1, len(column) * (len(column) - 1)))
    return found
