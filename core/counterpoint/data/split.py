"""The one way a table of samples is cut into train and test: by a column, or by holding out whole identities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from counterpoint.errors import DataError, suggest
from counterpoint.randomness import key

HELD_OUT = ("train", "test")


def hold_out(identities: Sequence, fraction: float) -> np.ndarray:
    """bool (N,), true = test: about `fraction` of the different identities, chosen by a hash of each.

    An identity is in one split whatever the order of the rows, and stays in it when rows are added. Neither split is
    empty when there are two identities or more and `fraction` is in (0, 1); a single one is never held out.
    """
    places = {identity: key("holdout", str(identity)) / 2**63 for identity in set(identities)}
    ranked = sorted(places, key=lambda identity: (places[identity], str(identity)))
    test = {identity for identity in ranked if places[identity] < fraction}
    if len(ranked) < 2:
        test = set()  # the only identity is trained on
    elif 0.0 < fraction < 1.0:
        test = (test or {ranked[0]}) - (set() if len(test) < len(ranked) else {ranked[-1]})
    return np.array([identity in test for identity in identities], dtype=bool)


def select(
    split: str, column: Sequence[str] | None, identities: Sequence, fraction: float, where: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Positions int64 of the samples in `split`, and the names of the splits there are.

    column      each sample's split, or None: then `identities` are held out by hash
    identities  what must not be in both splits, one a sample
    where       the data, as an error should name it

    Raises DataError when `split` is not one of them or has no sample.
    """
    if not 0.0 <= fraction < 1.0:
        raise DataError(f"{where}: holdout is a fraction in [0, 1); got {fraction}")
    if column is None:
        column = np.array(HELD_OUT)[hold_out(identities, fraction).astype(int)].tolist()
    splits = tuple(sorted(set(column), key=lambda name: (name != "train", name)))
    chosen = np.flatnonzero(np.array([name == split for name in column], dtype=bool))
    if not len(chosen):
        reason = " (nothing is held out)" if split == "test" and splits == ("train",) else ""
        raise DataError(f"{where}: no sample is in split {split!r}{reason}{suggest(split, splits)}")
    return chosen, splits
