"""What a cloud looks like from far away: its size, how its points spread along each axis, and what they cover.

Dimensions: n rows, P points, F values of the descriptor.
"""

from __future__ import annotations

import torch
from torch import Tensor

from counterpoint_points3d.views.clouds import SMALLEST, box, counts, log_extents, real

ALONG = 16  # bins along each axis
RADIAL = 6  # bins of height, and of the distance from the up axis
SIDE = 8  # cells along each side of a projection
FACES = ((0, 1), (2, 1), (0, 2))  # the axes of the three projections
WIDTH = 3 + 3 * ALONG + RADIAL**2 + len(FACES) * SIDE**2


def global_geometry(points: Tensor, mask: Tensor | None, up: int) -> Tensor:
    """(n, F): the cloud (n, 3, P) seen as a whole, no parameters, in whatever order its points come.

    The logarithms of the box's extents; for each axis a histogram of the coordinates within the box; one of the height
    against the distance from the `up` axis; three projections of the box onto its faces, as shares of the points in each
    cell. Shares are given as square roots of their ratio to an even spread (Hellinger), near 1 whatever the bins.
    """
    points = points.float()
    middle, extent = box(points, mask)
    centred = real(points - middle, mask)
    within = centred / extent.clamp(min=SMALLEST) + 0.5  # (n, 3, P) in [0, 1]
    flat = [axis for axis in range(3) if axis != up]
    away = centred[:, flat].square().sum(1).sqrt()  # (n, P) from the up axis
    away = away / away.amax(-1, keepdim=True).clamp(min=SMALLEST)
    weight = _weight(points, mask)
    parts = [log_extents(extent)[..., 0]]
    parts += [_shares(_cell(within[:, axis], ALONG), weight, ALONG) for axis in range(3)]
    parts.append(_shares(_cell(within[:, up], RADIAL) * RADIAL + _cell(away, RADIAL), weight, RADIAL**2))
    for a, b in FACES:
        parts.append(_shares(_cell(within[:, a], SIDE) * SIDE + _cell(within[:, b], SIDE), weight, SIDE**2))
    return torch.cat(parts, 1)


def _weight(points: Tensor, mask: Tensor | None) -> Tensor:
    """(n, P): the share of its cloud that every point is; 0 for padding."""
    there = points.new_ones(len(points), points.shape[-1]) if mask is None else mask.to(points.dtype)
    return there / counts(points, mask)[:, None].clamp(min=1)


def _cell(value: Tensor, bins: int) -> Tensor:
    """int64: the bin of a value in [0, 1]; whatever stands in the padding falls into one, too."""
    return (value * bins).long().clamp(0, bins - 1)


def _shares(cell: Tensor, weight: Tensor, cells: int) -> Tensor:
    """(n, cells): the share of the points in every cell, against an even spread, its square root."""
    share = weight.new_zeros(len(cell), cells).scatter_add_(1, cell, weight)
    return (share * cells).sqrt()
