"""Where a view lies in the sample it was made of: what steps that cut, turn or stretch leave for dense objectives.

Dimensions: n rows, S spatial axes of data (n, C, ...), P points, L cells of a map.

A view covers a box of the sample, perhaps turned. `meta["place"]`, float32 (n, 1 + S, S), is its corner, then its S edges,
in voxels (pixels) of the sample as it came, whose first voxel covers 0 to 1. What the view shows at the fractions u of its
sides is in the sample at

    corner + u_1 edge_1 + ... + u_S edge_S

so that a flipped axis has an edge that points backwards, and resizing changes nothing. A step that moves what it shows
passes on `moved(...)` as meta and says so: `records = frozenset({PLACE})`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from counterpoint.batch import View

PLACE = "place"


def moved(view: View, linear: Tensor, shift: Tensor) -> dict[str, Any]:
    """The meta of what a step makes of `view`, showing at u what the view shows at linear u + shift.

    u are fractions of the sides, of the new view and of the old. linear (n, S) for axes that stay apart, else (n, S, S);
    shift (n, S). A crop of b voxels from a has linear b / side and shift a / side, a flip -1 and 1, resizing nothing.
    """
    linear = torch.diag_embed(linear) if linear.ndim == 2 else linear
    place = view.meta[PLACE] if PLACE in view.meta else _whole(view)
    corner, edges = place[:, :1], place[:, 1:]
    corner = corner + _times(shift.to(edges)[:, None], edges)
    return {**view.meta, PLACE: torch.cat([corner, _times(linear.to(edges).transpose(1, 2), edges)], 1)}


def _times(rows: Tensor, matrix: Tensor) -> Tensor:
    """rows (n or 1, P, S) @ matrix (n, S, S), in full precision where a GPU's products have less: these are coordinates."""
    return (rows[..., None] * matrix[:, None]).sum(-2)


def _whole(view: View) -> Tensor:
    """The place of a view that nothing has moved."""
    sides = torch.tensor(view.data.shape[2:], dtype=torch.float32, device=view.data.device)
    place = torch.cat([torch.zeros_like(sides)[None], torch.diag(sides)])
    return place.expand(len(view), *place.shape)


def centres(sizes: Sequence[int], like: Tensor) -> Tensor:
    """(L, S): the fractions of the sides at which the cells of a map of these sizes have their centres, last axis fastest."""
    axes = [(torch.arange(size, device=like.device, dtype=like.dtype) + 0.5) / size for size in sizes]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)


def cells(place: Tensor, sizes: Sequence[int]) -> Tensor:
    """(n, L, S): where the centres of a map's cells are in the sample."""
    return place[:, :1] + _times(centres(sizes, place)[None], place[:, 1:])


def diagonals(place: Tensor, sizes: Sequence[int]) -> Tensor:
    """(n,): the diagonal of a cell of a map, in voxels of the sample."""
    steps = place[:, 1:] / place.new_tensor(list(sizes))[:, None]
    return steps.square().sum((1, 2)).sqrt()


def fractions(place: Tensor, points: Tensor) -> Tensor:
    """(n, P, S): at which fractions of a view's sides it shows points (n, P, S) of the sample; beyond [0, 1] it does not."""
    inverse, _ = torch.linalg.inv_ex(place[:, 1:])  # a view of no extent shows nothing, and is no error
    return _times(points - place[:, :1], inverse)


def overlap(a: Tensor, b: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Points (n, L, S) over the box in which two places lie both, as a map of these sizes; bool (n, L): both views show it.

    The box has the sample's axes: of turned views it is that of their bounding boxes, and holds points that one lacks.
    """
    (low_a, high_a), (low_b, high_b) = _bounds(a), _bounds(b)
    low, high = torch.maximum(low_a, low_b), torch.minimum(high_a, high_b)
    points = low[:, None] + centres(sizes, low) * (high - low)[:, None]
    there = (high > low).all(1)[:, None]
    for place in (a, b):
        u = fractions(place, points)
        there = there & ((u >= 0) & (u <= 1)).all(2)
    return points, there


def _bounds(place: Tensor) -> tuple[Tensor, Tensor]:
    """(n, S) twice: the least and the greatest coordinates of a view."""
    corner, edges = place[:, 0], place[:, 1:]
    return corner + edges.clamp(max=0).sum(1), corner + edges.clamp(min=0).sum(1)


def interpolation(place: Tensor, points: Tensor, sizes: Sequence[int]) -> Tensor:
    """(n, P, L): the share of each cell of a map in its value at points (n, P, S) of the sample, linear between centres.

    The nearest cells beyond the centres at the border. As a matrix and not by `grid_sample`: its gradient is then the same
    to the bit each time, also on a GPU, and any number of axes will do.
    """
    u = fractions(place, points).nan_to_num(0.0, 0.0, 0.0)
    shares = u.new_ones(*u.shape[:2], 1)
    for axis, size in enumerate(sizes):
        position = (u[..., axis, None] * size - 0.5).clamp(0, size - 1)
        near = (1 - (position - torch.arange(size, device=u.device)).abs()).clamp(min=0)  # (n, P, size)
        shares = (shares[..., None] * near[:, :, None]).flatten(2)
    return shares
