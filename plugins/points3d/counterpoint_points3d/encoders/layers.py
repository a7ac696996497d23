"""Layers that treat every point alike, exact for padded clouds.

Dimensions: n rows, C channels, P points.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

Norm = Literal["batch", "layer"]


class Pointwise(nn.Module):
    """One linear map of the channels of every point, without bias: (n, C, P) -> (n, wider, P)."""

    def __init__(self, channels: int, wider: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(wider, channels))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.matmul(self.weight, x)  # a product of matrices is faster on a CPU than a convolution of kernel 1


class BatchNorm(nn.BatchNorm1d):
    """BatchNorm over the real points of all rows; padded points become zero."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None:
            return super().forward(x)
        turned = x.transpose(1, 2)  # (n, P, C)
        normal = super().forward(turned[mask])
        return torch.zeros_like(turned, dtype=normal.dtype).masked_scatter(mask[..., None], normal).transpose(1, 2)


class PointNorm(nn.LayerNorm):
    """LayerNorm over the channels of every point by itself: neither rows nor points know of each other."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


def norm_of(norm: Norm, channels: int) -> nn.Module:
    return BatchNorm(channels) if norm == "batch" else PointNorm(channels)
