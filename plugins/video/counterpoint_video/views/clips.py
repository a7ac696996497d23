"""Two clips of one video.

Dimensions: n rows, C channels, T frames of the span, t frames of a clip, H and W pixels.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from counterpoint.batch import View
from counterpoint.errors import ComponentError
from counterpoint.randomness import Draw
from counterpoint.views.generator import ViewGenerator
from counterpoint_video.views.pixels import pixels


class Clips(ViewGenerator):
    """Two clips (n, C, t, H, W) of every span (n, C, T, H, W), more often near each other than far apart; floats in [0, 1].

    With P places where a clip may start, the interval between the two starts is floor(x), x in [0, P) of the density
    (2 / P) (1 - x / P); the earlier one is uniform over what is left, and which of the two comes first is a coin's.
    A span shorter than a clip begins again at its end. `meta["start"]`: int64 (n,), the clip's first frame.

    frames, stride: of a clip. evaluate: center, the middle clip is what an evaluation sees; whole, all of the span's frames, `stride`
    apart, for encoders of any length. Raises ComponentError for a number below 1.
    Source: Qian et al., "Spatiotemporal contrastive video representation learning", CVPR 2021, section 3.2 (linearly
    decreasing density; 16 frames, stride 2).
    """

    def __init__(self, *, frames: int = 16, stride: int = 2, evaluate: Literal["center", "whole"] = "center"):
        super().__init__()
        if min(frames, stride) < 1:
            raise ComponentError(f"view 'video.clips': frames and stride are at least 1; got {frames}, {stride}")
        self.frames, self.stride, self.evaluate = frames, stride, evaluate

    def layout(self, roles: list[str]) -> list[str]:
        return ["global"] * (2 * len(roles))

    def forward(self, view: View, draw: Draw) -> list[View]:
        length = _lengths(view)
        starts = clip_starts(self._places(length), draw)
        return [self._clip(view, length, start) for start in starts]

    def prepare(self, view: View) -> View:
        length = _lengths(view)
        if self.evaluate == "center":
            return self._clip(view, length, (self._places(length) - 1) // 2)
        mask = None if view.mask is None else view.mask[:, :: self.stride]
        return view.replace(data=pixels(view.data[:, :, :: self.stride], "video.clips"), mask=mask)

    def _places(self, length: Tensor) -> Tensor:
        """int64 (n,): where a clip may start; all of the span when it is shorter than a clip."""
        places = length - (self.frames - 1) * self.stride
        return torch.where(places > 0, places, length)

    def _clip(self, view: View, length: Tensor, start: Tensor) -> View:
        index = start[:, None] + torch.arange(self.frames, device=start.device) * self.stride
        index = index % length[:, None]  # (n, t)
        rows = torch.arange(len(index), device=index.device)[:, None]
        data = view.data.transpose(1, 2)[rows, index].transpose(1, 2)  # (n, C, t, H, W)
        clip = pixels(data.contiguous(), "video.clips")
        return view.replace(data=clip, mask=None, role="global", meta={**view.meta, "start": start})


def clip_starts(places: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
    """int64 (n,), twice: first frames of the two clips, each below `places` (n,)."""
    interval = intervals(places, draw.uniform())
    early = (draw.uniform() * (places - interval)).long().minimum(places - interval - 1)
    late = early + interval
    swap = draw.chance(0.5)
    return torch.where(swap, late, early), torch.where(swap, early, late)


def intervals(places: Tensor, u: Tensor) -> Tensor:
    """int64 (n,): the inverse of F(x) = 2 x / P - (x / P)^2 at `u` in [0, 1), rounded down, for P = `places`."""
    x = places * (1.0 - (1.0 - u).sqrt())
    return x.long().clamp(min=0).minimum(places - 1)


def _lengths(view: View) -> Tensor:
    """int64 (n,): real frames of every row."""
    if view.mask is not None:
        return view.mask.sum(1)
    pixels(view.data[:0], "video.clips")
    return torch.full((len(view),), view.data.shape[2], device=view.data.device)
