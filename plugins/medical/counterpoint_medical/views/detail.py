"""View generators that take detail away: all over, or in one place.

Dimensions: n rows, C channels, S spatial axes, as in `axes`; K taps of a filter.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from counterpoint.errors import ComponentError
from counterpoint.randomness import Draw
from counterpoint.views.generator import Augmentation
from counterpoint_medical.views.axes import along, ordered, per_row, spatial


class Blur(Augmentation):
    """Gaussian blur with a width of its own for every sample; shape kept, the nearest voxel beyond the edge.

    sigma: voxels, or the range of a uniform draw. One filter an axis, cut at 3 of the greatest sigma.
    Raises ComponentError for a range that is negative or out of order.
    Source: Isensee et al., "nnU-Net", Nature Methods 18 (2021), supplementary note 2 (Gaussian blur, 0.5 to 1).
    """

    def __init__(self, *, sigma: float | tuple[float, float] = (0.5, 1.0), p: float = 1.0):
        super().__init__(p=p)
        self.low, self.high = ordered("medical.blur", "sigma", sigma, 0.0)

    def augment(self, data: Tensor, mask: Tensor | None, draw: Draw) -> Tensor:
        count, reach = len(spatial(data, "medical.blur")), max(1, math.ceil(3 * self.high))
        sigma = draw.uniform(low=self.low, high=self.high).clamp(min=1e-3)
        taps = torch.exp(-0.5 * (torch.arange(reach + 1, device=data.device) / sigma[:, None]) ** 2)  # (n, reach + 1)
        taps = taps / (2 * taps.sum(1, keepdim=True) - taps[:, :1])
        for axis in range(count):
            data = _filter(data, taps, 2 + axis)
        return data


def _filter(data: Tensor, taps: Tensor, dim: int) -> Tensor:
    """`data` filtered along one axis by each row's symmetric taps (n, reach + 1), the centre first."""
    reach, length = taps.shape[1] - 1, data.shape[dim]
    before, after = data.narrow(dim, 0, 1), data.narrow(dim, length - 1, 1)
    wide = torch.cat([*[before] * reach, data, *[after] * reach], dim)
    out = data * per_row(taps[:, 0], data)
    for k in range(1, reach + 1):
        both = wide.narrow(dim, reach - k, length) + wide.narrow(dim, reach + k, length)
        out.addcmul_(both, per_row(taps[:, k], data))
    return out


class CutOut(Augmentation):
    """One random box of every sample filled with the mean of each channel; shape kept.

    fraction: each side of the box over that of the sample, or the range of a uniform draw of its own for every axis.
    Raises ComponentError for fractions outside [0, 1] or out of order.
    Source: DeVries and Taylor, "Cutout", arXiv 1708.04552 (2017), section 3.
    """

    def __init__(self, *, fraction: float | tuple[float, float] = (0.2, 0.4), p: float = 1.0):
        super().__init__(p=p)
        self.low, self.high = ordered("medical.cut_out", "fraction", fraction, 0.0)
        if self.high > 1:
            raise ComponentError(f"view 'medical.cut_out': fraction must be 1 or less; got {self.high}")

    def augment(self, data: Tensor, mask: Tensor | None, draw: Draw) -> Tensor:
        sizes = spatial(data, "medical.cut_out")
        fraction, place = draw.uniform(len(sizes), low=self.low, high=self.high), draw.uniform(len(sizes))
        inside = None
        for axis, size in enumerate(sizes):
            width = torch.round(fraction[:, axis] * size)
            start = torch.floor(place[:, axis] * (size - width + 1))
            at = torch.arange(size, device=data.device)
            hit = along((at >= start[:, None]) & (at < (start + width)[:, None]), axis, data.ndim)
            inside = hit if inside is None else inside & hit
        return torch.where(inside, per_row(data.flatten(2).mean(-1), data), data)
