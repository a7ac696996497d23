"""A descriptor without parameters: the score that a trained encoder has to beat.

Dimensions: n rows, C channels, P points, B bins.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from counterpoint.errors import ComponentError
from counterpoint_points3d.views.clouds import SMALLEST, box, counts, log_extents

STRIDES = (
    1,
    2,
    3,
    5,
    7,
    11,
    13,
    17,
)  # a point is paired with those so many places further: points come in random order


class ShapeDistribution(nn.Module):
    """The D2 shape distribution and the size: `forward(data (n, C, P), mask | None) -> h (n, bins + 3)`.

    h is the histogram of the distances between pairs of points, over `bins` from 0 to twice their mean, as shares, then
    the logarithms of the box's extents, the two horizontal ones (not `up`) sorted. Nothing of it changes when the cloud is
    turned by a quarter about the up axis. Raises ComponentError for bins under 2.
    Source: Osada et al., "Shape distributions", ACM TOG 21 (2002), section 3 (D2, mean-normalised).
    """

    def __init__(self, *, bins: int = 32, up: int = 1):
        super().__init__()
        if bins < 2 or up not in (0, 1, 2):
            raise ComponentError(
                f"encoder 'points3d.shape_distribution': expected bins of 2 or more and an up axis of 0, 1, 2; got {bins}, {up}"
            )
        self.bins, self.up, self.width = bins, up, bins + 3

    def forward(self, data: Tensor, mask: Tensor | None = None) -> Tensor:
        points, count = data[:, :3].float(), counts(data, mask)[:, None]
        place = torch.arange(data.shape[-1], device=data.device)[None]
        pairs = [self._distances(points, (place + stride) % count.clamp(min=1)) for stride in STRIDES]
        distance, valid = torch.cat(pairs, 1), (place < count).repeat(1, len(STRIDES))  # (n, strides * P)
        weight = valid / valid.sum(1, keepdim=True).clamp(min=1)
        mean = (distance * weight).sum(1, keepdim=True).clamp(min=SMALLEST)
        into = (distance / mean * (self.bins / 2)).long().clamp(max=self.bins - 1)
        histogram = torch.zeros(len(data), self.bins, device=data.device).scatter_add_(1, into, weight)
        return torch.cat([histogram, self._extents(points, mask)], 1)

    @staticmethod
    def _distances(points: Tensor, other: Tensor) -> Tensor:
        """(n, P): from every point to the one at place `other` (n, P)."""
        moved = points.gather(2, other[:, None].expand(-1, 3, -1))
        return (points - moved).square().sum(1).sqrt()

    def _extents(self, points: Tensor, mask: Tensor | None) -> Tensor:
        extent = log_extents(box(points, mask)[1])[..., 0]  # (n, 3)
        flat = [axis for axis in range(3) if axis != self.up]
        return torch.cat([extent[:, self.up, None], extent[:, flat].sort(1).values], 1)
