"""View generators that keep some points of every cloud.

Dimensions: n rows, C channels, P points, W points kept. A cloud keeps its number of points: the places of those that
are gone are taken by copies of those that stay, which the maximum over points does not see, so no encoder needs a mask.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from counterpoint.batch import View
from counterpoint.errors import ComponentError
from counterpoint.randomness import Draw
from counterpoint.views.generator import Augmentation, ViewGenerator
from counterpoint_points3d.views.clouds import box, counts, radius, real
from counterpoint_points3d.views.numbers import check_range


class Dropout(Augmentation):
    """Points left out at random; (n, C, P) -> (n, C, P).

    low, high: bounds, in [0, 1], of the probability with which every point of a cloud goes, drawn once a cloud; at least
    one point stays.
    Raises ComponentError for bounds out of order. Source: Qi et al., "PointNet++", NeurIPS 2017, section 3.3 (random
    input dropout, up to 0.95).
    """

    def __init__(self, *, low: float = 0.0, high: float = 0.875, p: float = 1.0):
        super().__init__(p=p)
        check_range("dropout", "low and high", (low, high), 0.0, 1.0)
        self.low, self.high = low, high

    def augment(self, data: Tensor, mask: Tensor | None, draw: Draw) -> Tensor:
        share = draw.uniform(1, low=self.low, high=self.high)
        return keep(data, mask, draw.positions(data.shape[-1]) >= share)


class Crop(Augmentation):
    """One side of every cloud hidden, as by an occlusion; (n, C, P) -> (n, C, P).

    low, high: bounds of the share of the points that goes, in [0, 1); one stays at least. how: "plane" takes those on one
    side of a plane of random direction, "viewpoint" those nearest to a random place on the sphere around the cloud.
    Raises ComponentError for bounds out of order.
    Source: Zhang et al., "DepthContrast", ICCV 2021, section 3 (crops); Wang et al., "Unsupervised point cloud
    pre-training via occlusion completion", ICCV 2021, section 3.1 (viewpoints).
    """

    def __init__(
        self, *, low: float = 0.1, high: float = 0.4, how: Literal["plane", "viewpoint"] = "plane", p: float = 1.0
    ):
        super().__init__(p=p)
        check_range("crop", "low and high", (low, high), 0.0, 1.0)
        self.low, self.high, self.how = low, high, how

    def augment(self, data: Tensor, mask: Tensor | None, draw: Draw) -> Tensor:
        direction = draw.normal(3, 1)
        direction = direction / direction.square().sum(1, keepdim=True).sqrt().clamp(min=1e-12)
        share = draw.uniform(low=self.low, high=self.high)
        points = data[:, :3].float() - box(data[:, :3].float(), mask)[0]
        if self.how == "viewpoint":
            nearness = -(points - direction * radius(points, mask)).square().sum(1)
        else:
            nearness = (points * direction).sum(1)  # (n, P)
        nearness = nearness if mask is None else nearness.masked_fill(~mask, torch.inf)
        length = counts(data, mask)
        last = (length - (share * length).floor().long() - 1).clamp(min=0)[:, None]
        return keep(data, mask, nearness <= nearness.sort(1).values.gather(1, last))


class Subsample(ViewGenerator):
    """Some points of every cloud, drawn without replacement: (n, C, P) -> (n, C, W), other ones in every copy.

    points: W; clouds of fewer are kept as they are. An evaluation sees all points.
    Raises ComponentError for fewer than 4 points.
    """

    def __init__(self, *, points: int):
        super().__init__()
        if points < 4:
            raise ComponentError(f"view 'points3d.subsample': points is 4 or more; got {points}")
        self.points = points

    def forward(self, view: View, draw: Draw) -> View:
        data, mask = view.data, view.mask
        if data.shape[-1] <= self.points:
            return view
        chance = draw.positions(data.shape[-1])
        chance = chance if mask is None else chance.masked_fill(~mask, torch.inf)
        order = chance.argsort(dim=1, stable=True)[:, : self.points].sort(1).values  # padded points come last
        kept = data.gather(2, order[:, None].expand(-1, data.shape[1], -1))
        return view.replace(data=kept, mask=None if mask is None else mask.gather(1, order))


def keep(data: Tensor, mask: Tensor | None, stays: Tensor) -> Tensor:
    """`data` (n, C, P) with the points that do not stay, bool (n, P), replaced by those that do, in turn; one stays at least."""
    stays = stays if mask is None else stays & mask
    place = torch.arange(data.shape[-1], device=data.device)[None]
    count = stays.sum(1, keepdim=True)
    order = (stays.cumsum(1) - 1).where(
        stays, data.shape[-1]
    )  # where each point that stays goes, the others to the end
    first = place.new_zeros(len(data), data.shape[-1] + 1).scatter_(1, order, place.expand(len(data), -1))
    index = first.gather(1, place % count.clamp(min=1))  # (n, P): the first point where none stays
    return real(data.gather(2, index[:, None].expand(-1, data.shape[1], -1)), mask)
