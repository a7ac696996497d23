"""What encoders and views of point clouds share: real points, boxes, and clouds brought to one frame.

Dimensions: n rows, C channels, P points. The first three channels are x, y, z; a cloud of fewer points is padded at its
end, and the mask bool (n, P) says what is real.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Scale = Literal["unit", "log", "keep"]

SMALLEST = 1e-6  # what a radius of zero counts as
FLAT = (
    1e-3  # what an extent counts as, at least, in the largest one: the logarithm of a flat side stays near the others
)


def real(data: Tensor, mask: Tensor | None) -> Tensor:
    """`data` (n, C, P) with padded points set to zero."""
    return data if mask is None else data.masked_fill(~mask[:, None], 0)


def with_points(data: Tensor, points: Tensor) -> Tensor:
    """`data` (n, C, P) with `points` (n, 3, P) in the place of its own; nothing is copied where there are no other channels."""
    return points if data.shape[1] == 3 else torch.cat([points, data[:, 3:]], 1)


def real_points(data: Tensor, mask: Tensor | None) -> Tensor:
    """bool (n, P): which points are real, all where no mask says otherwise."""
    return torch.ones(len(data), data.shape[-1], dtype=torch.bool, device=data.device) if mask is None else mask


def counts(data: Tensor, mask: Tensor | None) -> Tensor:
    """int64 (n,): real points of every row."""
    if mask is None:
        return torch.full((len(data),), data.shape[-1], device=data.device)
    return mask.sum(1)


def box(points: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Middle and extent (n, 3, 1) of the axis-aligned box around the real points (n, 3, P)."""
    low = points if mask is None else points.masked_fill(~mask[:, None], torch.inf)
    high = points if mask is None else points.masked_fill(~mask[:, None], -torch.inf)
    low, high = low.amin(-1, keepdim=True), high.amax(-1, keepdim=True)
    return (low + high) / 2, high - low


def radius(points: Tensor, mask: Tensor | None) -> Tensor:
    """(n, 1, 1): distance of the farthest real point from the origin."""
    return real(points, mask).square().sum(1, keepdim=True).amax(-1, keepdim=True).sqrt()


def log_extents(extent: Tensor) -> Tensor:
    """Logarithms of extents (n, 3, 1) of boxes."""
    return extent.maximum(FLAT * extent.amax(1, keepdim=True)).clamp(min=SMALLEST).log()


def framed(data: Tensor, mask: Tensor | None, scale: Scale) -> Tensor:
    """Clouds in the frame of their box: (n, C, P) -> (n, C, P), or (n, C + 3, P) for "log".

    unit: the middle of the box is the origin and the farthest point lies at 1; log: the same, and the logarithms of the
    box's three extents, in the unit of the data, follow as channels; keep: as they are. Padded points become zero.
    """
    if scale == "keep":
        return real(data, mask)
    points, others = data[:, :3], data[:, 3:]
    middle, extent = box(points, mask)
    centred = points - middle
    parts = [centred / radius(centred, mask).clamp(min=SMALLEST), others]
    if scale == "log":
        parts.append(log_extents(extent).expand(-1, -1, data.shape[-1]))
    return real(torch.cat(parts, 1), mask)


def pooled(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Maximum and mean (n, C) over the real points of (n, C, P)."""
    if mask is None:
        return x.amax(-1), x.mean(-1)
    highest = x.masked_fill(~mask[:, None], -torch.inf).amax(-1)
    return highest, real(x, mask).sum(-1) / counts(x, mask)[:, None].clamp(min=1)
