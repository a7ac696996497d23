"""DGCNN: every layer looks at the nearest neighbours of each point, in the space of the layer before.

Dimensions: n rows, C channels, P points, K neighbours, H width of `h`.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from counterpoint.batch import Features
from counterpoint.errors import ComponentError
from counterpoint.markers import Channels
from counterpoint_points3d.encoders.layers import Norm, Pointwise, norm_of
from counterpoint_points3d.encoders.pointnet import check
from counterpoint_points3d.views.clouds import Scale, framed, pooled, real_points

HELD = 1 << 24  # distances held at a time


class DGCNN(nn.Module):
    """DGCNN: `forward(data (n, C, P), mask bool (n, P) | None) -> h (n, H), tokens (n, P, wide)`.

    Any P, in any order of the points, of each of which there is a token.

    widths: channels after each edge convolution; their outputs side by side go through one shared layer of `wide`
    channels, and h is its maximum and mean over points: H = 2 * wide. k: neighbours of a point, itself included; a cloud
    of fewer points takes all. dynamic: neighbours are found anew in the features before every layer; False: once, among
    x, y, z. scale, norm: as in `points3d.pointnet`.
    Raises ComponentError for fewer than 3 channels, and for k, wide or a width under 1.
    Source: Wang et al., "Dynamic graph CNN", ACM TOG 38 (2019), section 3 and figure 3 (k 20; widths 64, 64, 128, 256;
    1024). An edge convolution is max_j act(norm(U (x_j - x_i) + V x_i)). Here the norm stands after the maximum, which
    is the same function where its factors are positive; so no tensor (n, C, P, K) is ever held.
    """

    gives = frozenset({"tokens"})

    def __init__(
        self,
        *,
        channels: Channels,
        widths: tuple[int, ...] = (64, 64, 128, 256),
        wide: int = 1024,
        k: int = 20,
        dynamic: bool = True,
        scale: Scale = "unit",
        norm: Norm = "batch",
    ):
        super().__init__()
        check("points3d.dgcnn", channels, (*widths, wide))
        if k < 1:
            raise ComponentError(f"encoder 'points3d.dgcnn': k is 1 or more; got {k}")
        self.k, self.dynamic, self.scale = k, dynamic, scale
        sizes = [channels + (3 if scale == "log" else 0), *widths]
        self.edges = nn.ModuleList(EdgeConv(a, b, norm) for a, b in pairwise(sizes))
        self.map, self.norm = Pointwise(sum(widths), wide), norm_of(norm, wide)
        self.token_width, self.width = wide, 2 * wide

    def forward(self, data: Tensor, mask: Tensor | None = None) -> Features:
        x = framed(data, mask, self.scale)
        near = neighbours(x[:, :3], self.k, mask)  # (n, P, K)
        found = []
        for number, edge in enumerate(self.edges):
            if number and self.dynamic:
                near = neighbours(x, self.k, mask)
            x = edge(x, near, mask)  # (n, wider, P)
            found.append(x)
        x = leaky_relu(self.norm(self.map(torch.cat(found, 1)), mask), 0.2)
        return Features(torch.cat(pooled(x, mask), 1), tokens=x.transpose(1, 2), mask=real_points(x, mask))


class EdgeConv(nn.Module):
    """An edge convolution; U (x_j - x_i) + V x_i is split into what j and what i gives, so the maximum is over j's part."""

    def __init__(self, channels: int, wider: int, norm: Norm):
        super().__init__()
        self.difference, self.own, self.norm = (
            Pointwise(channels, wider),
            Pointwise(channels, wider),
            norm_of(norm, wider),
        )

    def forward(self, x: Tensor, near: Tensor, mask: Tensor | None) -> Tensor:
        other = self.difference(x)  # (n, wider, P)
        highest = max_over(other, near)
        return leaky_relu(self.norm(highest - other + self.own(x), mask), 0.2)


@torch.no_grad()
def neighbours(x: Tensor, k: int, mask: Tensor | None = None) -> Tensor:
    """int64 (n, P, K): the K = min(k, P) real points nearest to every point of `x` (n, C, P).

    Where a row has fewer real points, the nearest one stands in the places left over. At most HELD distances are held
    at a time, in float32 also under autocast.
    """
    n, _, count = x.shape
    with torch.autocast(x.device.type, enabled=False):
        x = x if x.dtype == torch.float64 else x.float()
        square = x.square().sum(1)  # (n, P)
        found = []
        for block in torch.arange(count, device=x.device).split(max(1, HELD // max(n * count, 1))):
            distance = torch.baddbmm(square[:, None], x[:, :, block].transpose(1, 2), x, alpha=-2)  # (n, block, P)
            if mask is not None:
                distance = distance.masked_fill(~mask[:, None], torch.inf)
            near = distance.topk(min(k, count), largest=False)
            found.append(near.indices.where(near.values < torch.inf, near.indices[..., :1]))
    return torch.cat(found, 1)


def max_over(x: Tensor, near: Tensor) -> Tensor:
    """(n, C, P): the maximum of `x` (n, C, P) over the points `near` (n, P, K) of every point.

    Which neighbour is highest is found without gradient, one neighbour at a time; then it is read once, so the memory
    does not grow with K and the gradient is that of the maximum.
    """
    with torch.no_grad():
        where = near[:, None, :, 0].expand(-1, x.shape[1], -1)
        highest = x.gather(2, where)
        for place in range(1, near.shape[2]):
            other = near[:, None, :, place].expand(-1, x.shape[1], -1)
            value = x.gather(2, other)
            higher = value > highest
            highest, where = highest.where(~higher, value), where.where(~higher, other)
    return x.gather(2, where)
