"""Patterns that some arrays share and others lack: windows wherever they stand, and blocks in one place.

Dimensions: k arrays inside, m outside, of shape (C, L) or (C, ..., H, W); P windows or blocks of an array.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, avg_pool2d

LEVELS, CONTRAST = 16, 8  # levels between least and greatest value; range of a window that is a pattern
LENGTH, SIDE = 24, 5  # of a window of a signal, and of a picture
MOST, RARE = 0.6, 0.02  # shares of the arrays inside that must have it, and of those outside that may
CLOSE = 0.03  # of the range of a sample: values nearer than this agree


@dataclass(frozen=True)
class Match:
    """members: places of the arrays that have the pattern; strength: how much of an array it covers; region: where."""

    members: list[int]
    strength: float
    region: str | None


Range = tuple[float, float]


def common(inside: list[Tensor], outside: list[Tensor]) -> Match | None:
    """Windows of strong contrast, equal at 16 levels of each array's own range, that most inside have and hardly any outside."""
    return _common(inside, outside, None)


def common_in_size(inside: list[Tensor], outside: list[Tensor]) -> Match | None:
    """The same at 16 levels of one range, the usual one."""
    ends = np.array([(float(x.amin()), float(x.amax())) for x in outside])
    return _common(inside, outside, tuple(np.median(ends, 0).tolist()))


def _common(inside: list[Tensor], outside: list[Tensor], ends: Range | None) -> Match | None:
    found = [_windows(x, ends) for x in inside]
    each = [np.unique(hashes[strong]) for hashes, strong, _ in found]
    names, counts = np.unique(np.concatenate(each), return_counts=True)
    names = names[counts >= max(3, MOST * len(inside))]
    if not len(names):
        return None
    names = names[_shares(names, outside, ends) <= RARE]
    covered = [np.flatnonzero(strong & np.isin(hashes, names)) for hashes, strong, _ in found]
    members = [i for i, places in enumerate(covered) if len(places)]
    if not len(names) or not members:
        return None
    regions = {_region(covered[i], found[i][2]) for i in members}
    strength = float(np.median([len(covered[i]) for i in members]))
    return Match(members, strength, regions.pop() if len(regions) == 1 else None)


def _shares(names: np.ndarray, outside: list[Tensor], ends: Range | None) -> np.ndarray:
    """The share of the arrays outside that have each window, sorted by name."""
    counts = np.zeros(len(names))
    for x in outside:
        hashes, strong, _ = _windows(x, ends)
        counts += np.isin(names, hashes[strong])
    return counts / len(outside)


def _windows(x: Tensor, ends: Range | None) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """int64 (P,): a hash of every window; bool (P,): of strong contrast; the shape that P was."""
    least, most = ends or (float(x.amin()), float(x.amax()))
    levels = ((x - least) * ((LEVELS - 1) / max(most - least, 1e-30))).round().numpy().astype(np.int64)
    levels = levels.reshape(-1, *levels.shape[-min(2, levels.ndim - 1) :])  # (C..., L) or (C..., H, W)
    sides = [min(side, LENGTH if levels.ndim == 2 else SIDE) for side in levels.shape[1:]]
    hashes, low, high = levels, levels, levels
    for axis, side in enumerate(sides, 1):
        hashes = _slid(hashes, axis, side, axis)
        low, high = (_extreme(v, axis, side, f) for v, f in ((low, np.minimum), (high, np.maximum)))
    return hashes.ravel(), (high - low >= CONTRAST).ravel(), hashes.shape


def _slid(x: np.ndarray, axis: int, side: int, salt: int) -> np.ndarray:
    """The sum of each window along an axis, every place in it times an odd number of its own; it wraps around."""
    places = x.shape[axis] - side + 1
    total = np.zeros_like(np.take(x, range(places), axis))
    for offset, weight in enumerate(_weights(salt)[:side]):
        total += x.take(range(offset, offset + places), axis) * weight
    return total


def _extreme(x: np.ndarray, axis: int, side: int, pick: np.ufunc) -> np.ndarray:
    places = x.shape[axis] - side + 1
    best = x.take(range(places), axis)
    for offset in range(1, side):
        best = pick(best, x.take(range(offset, offset + places), axis))
    return best


@lru_cache
def _weights(salt: int) -> np.ndarray:
    return np.random.default_rng(salt).integers(-(1 << 62), 1 << 62, LENGTH) | 1


def _region(places: np.ndarray, shape: tuple[int, ...]) -> str:
    """The box around windows as slices of the last axes."""
    where = np.unravel_index(places, shape)[1:]
    wide = LENGTH if len(shape) == 2 else SIDE
    return _box([(int(w.min()), int(w.max()) + wide) for w in where])


def _box(bounds: list[tuple[int, int]]) -> str:
    return f"[..., {', '.join(f'{first}:{end}' for first, end in bounds)}]"


def agreement(inside: list[Tensor], outside: list[Tensor]) -> Match | None:
    """Blocks in one place in which most arrays inside agree with their median, and hardly any outside does."""
    shape = inside[0].shape
    outside = [x for x in outside if x.shape == shape]
    if any(x.shape != shape for x in inside) or len(outside) < len(inside):
        return None
    ours, theirs = torch.stack(inside), torch.stack(outside)
    centre = ours.median(0).values
    width = CLOSE * float((theirs.flatten(1).amax(1) - theirs.flatten(1).amin(1)).median())
    if width <= 0:
        return None
    close = [blocks(((x - centre).abs() <= width).float(), shape) >= 0.999 for x in (ours, theirs)]  # (k, P), (m, P)
    kept = (close[0].float().mean(0) >= MOST) & (close[1].float().mean(0) <= RARE)
    if not kept.any():
        return None
    members = torch.nonzero(close[0][:, kept].float().mean(1) >= 0.5).flatten().tolist()
    return Match(members, float(kept.sum()), _box(_bounds(kept, shape))) if members else None


def block_sides(shape: torch.Size) -> list[int]:
    """Sides of a block: a thirty-second of the input, four places at least; steps are half of that."""
    return [min(side, max(4, side // 32)) for side in shape[1:][-2:]]


def blocks(close: Tensor, shape: torch.Size) -> Tensor:
    """(n, P): the mean over every block of the last axes, and over all before them."""
    sides = block_sides(shape)
    flat = close.flatten(1, -1 - len(sides)).amin(1, keepdim=True)  # (n, 1, L) or (n, 1, H, W): all channels agree
    pool, steps = (avg_pool1d if len(sides) == 1 else avg_pool2d), [max(1, side // 2) for side in sides]
    return pool(flat, sides, steps).flatten(1)


def _bounds(kept: Tensor, shape: torch.Size) -> list[tuple[int, int]]:
    sides = block_sides(shape)
    steps = [max(1, side // 2) for side in sides]
    counts = [(size - side) // step + 1 for size, side, step in zip(shape[1:][-2:], sides, steps)]
    where = np.unravel_index(torch.nonzero(kept).flatten().numpy(), counts)
    return [(int(w.min()) * step, int(w.max()) * step + side) for w, step, side in zip(where, steps, sides)]
