"""What the views of video share: pixels as floats, and errors for what is no clip.

Dimensions: n rows, C channels, T frames, H and W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from counterpoint.errors import CounterpointError


def pixels(data: Tensor, who: str) -> Tensor:
    """Integers 0..255 as float32 in [0, 1]; floats as they are. CounterpointError unless (n, C, T, H, W)."""
    if data.ndim != 5:
        raise CounterpointError(
            f"view {who!r}: expected clips (n, channels, frames, height, width); got {tuple(data.shape)}"
        )
    return data if data.is_floating_point() else data.to(torch.float32) / 255.0


def check_float(data: Tensor, who: str) -> None:
    """CounterpointError unless `data` is clips of floats."""
    pixels(data, who)
    if not data.is_floating_point():
        raise CounterpointError(
            f"view {who!r}: expected floats, got {data.dtype}; put video.clips or video.normalise before it"
        )


def column(values: Tensor) -> Tensor:
    """(n, 1, 1, 1, 1) of (n,)."""
    return values.view(-1, 1, 1, 1, 1)
