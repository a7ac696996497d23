"""Colour and scale of the pixels: one draw for all frames of a clip.

Dimensions: n rows, C channels, T frames, H and W pixels. Pixels are floats, 0 black and 1 white before `video.normalise`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from counterpoint.batch import View
from counterpoint.errors import ComponentError
from counterpoint.randomness import Draw
from counterpoint.views.generator import Augmentation, ViewGenerator
from counterpoint_video.views.pixels import check_float, column, pixels

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def _grey(data: Tensor) -> Tensor:
    """(n, 1, T, H, W): luma of red, green and blue; the mean of other channels."""
    if data.shape[1] != 3:
        return data.mean(1, keepdim=True)
    red, green, blue = data.unbind(1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue)[:, None]


class ColourJitter(Augmentation):
    """Brightness, contrast, saturation and hue changed alike in all frames of a clip; (n, C, T, H, W) -> the same.

    brightness, contrast, saturation: a factor uniform in 1 minus and plus this; contrast is about the clip's mean grey. hue: the
    turn of the colours about the grey axis, uniform in minus and plus this part of a circle. The result is clamped to [0, 1].
    The four come in this order, and hue and saturation leave pictures without colour as they are. Raises ComponentError for a strength
    outside [0, 1]. Source: Qian et al., CVPR 2021, section 3.3, with SimCLR's strengths (0.8, 0.8, 0.8, 0.2 of ICML 2020, p 0.8).
    """

    def __init__(
        self,
        *,
        brightness: float = 0.8,
        contrast: float = 0.8,
        saturation: float = 0.8,
        hue: float = 0.2,
        p: float = 0.8,
    ):
        super().__init__(p=p)
        for name, value in (
            ("brightness", brightness),
            ("contrast", contrast),
            ("saturation", saturation),
            ("hue", hue),
        ):
            if not 0.0 <= value <= 1.0:
                raise ComponentError(f"view 'video.colour_jitter': {name} is in [0, 1]; got {value}")
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue

    def augment(self, data: Tensor, mask: Tensor | None, draw: Draw) -> Tensor:
        check_float(data, "video.colour_jitter")
        factor = lambda strength: column(draw.uniform(low=1 - strength, high=1 + strength)).to(data.dtype)  # noqa: E731
        bright, contrast, saturation = factor(self.brightness), factor(self.contrast), factor(self.saturation)
        turn = draw.uniform(low=-self.hue, high=self.hue).to(data.dtype) * (2 * math.pi)
        level = bright * _grey(data.mean((2, 3, 4), keepdim=True))  # (n, 1, 1, 1, 1)
        if data.shape[1] != 3:
            # not addcmul: with two small operands it is three times as slow
            return (data * (bright * contrast)).add_((1 - contrast) * level).clamp_(0, 1)
        colours = _colours(
            saturation.view(-1), turn
        )  # (n, 3, 3); its rows sum to 1, so it keeps the level, which is grey
        shift = ((1 - contrast) * level).view(-1, 1, 1)
        mixed = torch.baddbmm(
            shift, colours * (bright * contrast).view(-1, 1, 1), data.flatten(2)
        )  # one pass for all four
        return mixed.view_as(data).clamp_(0, 1)


def _colours(saturation: Tensor, turn: Tensor) -> Tensor:
    """(n, 3, 3): colours drawn to their luma, then turned about the grey axis (Rodrigues' formula)."""
    eye = torch.eye(3, device=turn.device, dtype=turn.dtype)
    luma = turn.new_tensor(LUMA).expand(3, 3)  # every row gives the luma
    fade = luma + saturation[:, None, None] * (eye - luma)
    cross = turn.new_tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3.0)
    cosine, sine = turn.cos()[:, None, None], turn.sin()[:, None, None]
    return (cosine * eye + sine * cross + (1 - cosine) / 3.0) @ fade


class Grey(Augmentation):
    """All frames of a clip without colour; (n, C, T, H, W) -> the same. Source: Chen et al., "SimCLR", ICML 2020, appendix A."""

    def __init__(self, *, p: float = 0.2):
        super().__init__(p=p)

    def augment(self, data: Tensor, mask: Tensor | None, draw: Draw) -> Tensor:
        check_float(data, "video.grey")
        return _grey(data).expand_as(data).to(data.dtype)


class Gain(Augmentation):
    """Every clip times a factor that is uniform in its logarithm between 1 / `most` and `most`; for differences, which have no range.

    Raises ComponentError for `most` under 1. Source: as brightness in `video.colour_jitter`.
    """

    def __init__(self, *, most: float = 2.0, p: float = 1.0):
        super().__init__(p=p)
        if most < 1.0:
            raise ComponentError(f"view 'video.gain': most is at least 1; got {most}")
        self.most = most

    def augment(self, data: Tensor, mask: Tensor | None, draw: Draw) -> Tensor:
        check_float(data, "video.gain")
        return data * column(torch.exp(draw.uniform(low=-math.log(self.most), high=math.log(self.most)))).to(data.dtype)


class Normalise(ViewGenerator):
    """Pixels as floats, minus `mean`, over `std`, each a number or one a channel; an evaluation sees it, too.

    Raises ComponentError for a `std` that is not positive. The defaults are those of Kinetics-400 in torchvision's video models, rounded
    to one number for all channels.
    """

    def __init__(self, *, mean: float | list[float] = 0.4, std: float | list[float] = 0.22):
        super().__init__()
        if min(std if isinstance(std, list) else [std]) <= 0:
            raise ComponentError(f"view 'video.normalise': std is above 0; got {std}")
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32).view(-1, 1, 1, 1), persistent=False)
        self.register_buffer("std", torch.as_tensor(std, dtype=torch.float32).view(-1, 1, 1, 1), persistent=False)

    def forward(self, view: View, draw: Draw) -> View:
        return self.prepare(view)

    def prepare(self, view: View) -> View:
        data = pixels(view.data, "video.normalise")
        return view.replace(data=(data - self.mean.to(data)) / self.std.to(data))


class Difference(ViewGenerator):
    """Each frame minus the one before it, times `gain`: motion without the background; (n, C, T, H, W) -> (n, C, T - 1, H, W).

    An evaluation sees it, too. gain: differences are small; 4 brings those of moving figures to the size of normalised pixels. Raises
    CounterpointError for a clip of one frame. Source: Wang et al., "Temporal segment networks", ECCV 2016, section 3.2.
    """

    def __init__(self, *, gain: float = 4.0):
        super().__init__()
        self.gain = gain

    def forward(self, view: View, draw: Draw) -> View:
        return self.prepare(view)

    def prepare(self, view: View) -> View:
        data = pixels(view.data, "video.difference")
        if data.shape[2] < 2:
            raise ComponentError("view 'video.difference': a clip of one frame has no motion; give frames: 2 or more")
        mask = None if view.mask is None else view.mask[:, 1:]
        return view.replace(data=(data[:, :, 1:] - data[:, :, :-1]).mul_(self.gain), mask=mask)
