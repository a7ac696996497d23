"""The pixels themselves, averaged: the score that a trained encoder has to beat.

Dimensions: n rows, C channels, T frames, H and W pixels.
"""

from __future__ import annotations

from torch import Tensor, nn

from counterpoint.markers import Channels


class Pixels(nn.Module):
    """The clip itself, averaged down to `frames` pictures of `size` x `size`, without parameters: a baseline.

    h (n, channels frames size size). After `video.difference` it is the raw motion.
    """

    def __init__(self, *, channels: Channels, frames: int = 8, size: int = 16):
        super().__init__()
        self.shape, self.width = (frames, size, size), channels * frames * size * size

    def forward(self, data: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool3d(data.float(), self.shape).flatten(1)
