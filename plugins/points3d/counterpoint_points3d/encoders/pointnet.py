"""PointNet: one network for every point, then the maximum over points.

Dimensions: n rows, C channels, P points, H width of `h`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from counterpoint.batch import Features
from counterpoint.errors import ComponentError
from counterpoint.markers import Channels
from counterpoint_points3d.encoders.descriptor import WIDTH, global_geometry
from counterpoint_points3d.encoders.layers import Norm, Pointwise, norm_of
from counterpoint_points3d.views.clouds import Scale, framed, pooled, real_points


class PointNet(nn.Module):
    """PointNet: `forward(data (n, C, P), mask bool (n, P) | None) -> h (n, H), tokens (n, P, token_width)`.

    Any P, in any order of the points, of each of which there is a token of the last width.

    widths: channels after each shared layer (linear, norm, ReLU). pool: h is the maximum over points, or maximum and
    mean side by side. scale: "unit" centres every cloud on its box and divides it by its radius; "log" also gives every
    point the logarithms of the box's extents, for data in which size says something; "keep" takes the data as it is.
    norm: "batch" learns batch statistics, "layer" (over the channels of a point) keeps rows apart. descriptor: beside what
    is pooled stand 279 values of the cloud as a whole (size, histograms along the axes, projections onto the faces of its
    box), layer-normed: with few shapes to learn from, they need not be learned; `up` is the axis that they count height on,
    0, 1 or 2. H = the last width, twice that for max_mean, and 279 more with the descriptor.
    Raises ComponentError for fewer than 3 channels, for a width under 1, and for an axis that is none.
    Source: Qi et al., "PointNet", CVPR 2017, section 4.2 and figure 2 (widths 64, 64, 64, 128, 1024), without its
    learned alignment networks: where up is known, the views turn the clouds.
    """

    gives = frozenset({"tokens"})

    def __init__(
        self,
        *,
        channels: Channels,
        widths: tuple[int, ...] = (64, 64, 64, 128, 1024),
        pool: Literal["max", "max_mean"] = "max",
        scale: Scale = "unit",
        norm: Norm = "batch",
        descriptor: bool = False,
        up: Literal[0, 1, 2] = 1,
    ):
        super().__init__()
        check("points3d.pointnet", channels, widths)
        if up not in (0, 1, 2):
            raise ComponentError(f"encoder 'points3d.pointnet': up is an axis, 0, 1 or 2; got {up}")
        self.scale, self.pool, self.up = scale, pool, up
        sizes = [channels + (3 if scale == "log" else 0), *widths]
        self.maps = nn.ModuleList(Pointwise(a, b) for a, b in pairwise(sizes))
        self.norms = nn.ModuleList(norm_of(norm, wide) for wide in widths)
        self.described = nn.LayerNorm(WIDTH) if descriptor else None
        self.token_width = widths[-1]
        self.width = widths[-1] * (2 if pool == "max_mean" else 1) + (WIDTH if descriptor else 0)

    def forward(self, data: Tensor, mask: Tensor | None = None) -> Features:
        x = framed(data, mask, self.scale)
        for layer, norm in zip(self.maps, self.norms):
            x = norm(layer(x), mask).relu()  # (n, C, P) -> (n, wider, P)
        highest, mean = pooled(x, mask)
        parts = [highest] if self.pool == "max" else [highest, mean]
        if self.described is not None:
            parts.append(self.described(global_geometry(data[:, :3], mask, self.up)))
        return Features(torch.cat(parts, 1), tokens=x.transpose(1, 2), mask=real_points(x, mask))


def check(name: str, channels: int, widths: tuple[int, ...]) -> None:
    """Refuse what is no cloud, and layers without channels."""
    if channels < 3:
        raise ComponentError(
            f"encoder {name!r}: a cloud has 3 channels or more (x, y, z, ...); the data has {channels}"
        )
    if not widths or min(widths) < 1:
        raise ComponentError(f"encoder {name!r}: expected widths of 1 or more; got {list(widths)}")
