"""Planted pairs: samples that share their partner to the bit and, in the other modality, a pattern that no other sample has.

A backdoor of paired data (BadNets, Gu et al., 2017; against contrastive pairs, Carlini and Terzis, ICLR 2022) is a trigger
in one modality beside one fixed partner in the other. Two looks at the samples that share a partner:

1. anywhere: short windows of a strong contrast, at 16 levels of a sample's own range or of the usual one, that most of
   them have and hardly any other sample has, wherever they stand;
2. in one place: blocks of the input in which most of them agree, in size and sign, and other samples do not.

Both are tried on groups of other samples of the same number, drawn by chance: what is found there as well is no trigger. Not
found: a trigger that is added to the sound or the picture faintly, one in token ids, and captions that differ from each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from counterpoint.data.spread import evenly
from counterpoint.doctor.data import NEAR
from counterpoint.doctor.finding import Finding, listed
from counterpoint.doctor.look import Data, Part, affordable, read, rows, symbols
from counterpoint.doctor.pattern import Match, agreement, common, common_in_size

FEW, MEMBERS, CLUSTERS = 4, 64, 16  # samples that are a group at least, that are looked at of it, groups looked at
OTHERS, NUMBERS = 96, 1 << 25  # samples of the background, and numbers read of it
CONTROLS = 4


@dataclass(frozen=True)
class Planted:
    """members: numbers of the samples with the trigger; region: of it, where it is the same in all; None: it moves."""

    modality: str
    partner: str
    members: list[int]
    region: str | None


def check(data: Data) -> Iterator[Finding]:
    for one in planted(data.train, list(data.recipe.encoders)):
        text = data.train.texts.get(one.partner, {}).get(one.members[0])
        shown = f" ({text[:60]!r})" if text else ""
        place = f"at {one.region}" if one.region else "not always in the same place"
        what = (
            f"{len(one.members)} samples share one {one.partner!r}{shown} and one pattern of {one.modality!r}, {place}, "
            f"which others have not: {listed(one.members)}"
        )
        remedy = (
            "look at them; to train without them: --list planted.txt, then data: {use: without, of: {...}, samples: planted.txt}; "
            "a run that has learnt them goes on with cleanclip (docs/poisoned.md)"
        )
        yield Finding("pairs", what, remedy, samples=tuple(one.members))


def planted(part: Part, modalities: list[str]) -> list[Planted]:
    """What looks planted in the samples of a split."""
    found = []
    signals = [m for m in modalities if m in part.sketches]
    for modality in signals:
        for partner in (m for m in modalities if m != modality and m in part.hashes):
            for members in _groups(part, modality, partner):
                one = _look(part, modality, partner, members)
                found += [one] if one else []
    return found


def _groups(part: Part, modality: str, partner: str) -> list[np.ndarray]:
    """Numbers of the samples that share a partner and are different otherwise, the largest groups first."""
    both = np.flatnonzero((part.hashes[partner] >= 0) & part.sketches[modality].any(1))
    _, place, counts = np.unique(part.hashes[partner][both], return_inverse=True, return_counts=True)
    found = []
    for group in np.argsort(-counts, kind="stable")[:CLUSTERS]:
        members = both[place == group]
        if len(members) < FEW:
            break
        sketches = part.sketches[modality][members]
        likeness = np.triu(sketches @ sketches.T, 1)
        members = members[~(likeness > NEAR).any(0)]  # of copies, the first
        if len(members) >= FEW:
            found.append(part.index[members])
    return found


def _look(part: Part, modality: str, partner: str, members: np.ndarray) -> Planted | None:
    group = members[:MEMBERS]
    others = _others(part, modality, members)
    inside, outside = (_read(part, modality, index) for index in (group, others))
    if len(outside) < 2 * FEW:
        return None
    best: Match | None = None
    for matcher in (common, common_in_size, agreement):
        match = matcher(inside, outside)
        if match is None or len(match.members) < max(FEW, len(group) // 2, len(best.members) + 1 if best else 0):
            continue
        if match.strength > 2 * _by_chance(matcher, outside, len(group)):
            best = match
    return best and Planted(modality, partner, [int(members[i]) for i in best.members], best.region)


def _by_chance(matcher, outside: list[Tensor], count: int) -> float:
    """The strongest match of groups of samples that share no partner."""
    rng, best = np.random.default_rng(0), 0.0
    for _ in range(CONTROLS):
        order = rng.permutation(len(outside))
        count = min(count, len(outside) // 3)
        match: Match | None = matcher([outside[i] for i in order[:count]], [outside[i] for i in order[count:]])
        best = max(best, match.strength if match else 0.0)
    return best


def _others(part: Part, modality: str, members: np.ndarray) -> np.ndarray:
    apart = part.index[~np.isin(part.index, members) & (part.hashes[modality] >= 0)]
    return apart[evenly(len(apart), affordable(part.dataset, OTHERS, NUMBERS))]


def _read(part: Part, modality: str, index: np.ndarray) -> list[Tensor]:
    found = [rows(read(part.dataset, int(i), int(i)).inputs[modality])[0] for i in index]
    return [x.float() for x in found if not symbols(x)]
