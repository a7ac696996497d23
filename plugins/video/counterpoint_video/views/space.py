"""Where in the picture a clip looks: one draw for all its frames.

Dimensions: n rows, C channels, T frames, H and W pixels, S pixels a side.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import conv1d, pad

from counterpoint.batch import View
from counterpoint.errors import ComponentError
from counterpoint.randomness import Draw
from counterpoint.views.generator import Augmentation, ViewGenerator
from counterpoint_video.views.pixels import check_float


class CropResize(ViewGenerator):
    """A random box, the same in all frames of a clip, stretched to S x S; (n, C, T, H, W) -> (n, C, T, S, S).

    The box has between `low` and `high` of the picture's area and a ratio of width to height between `ratio` and
    1 / `ratio`, uniform in its logarithm; a side longer than the picture's is cut to it. Pictures that shrink are
    averaged (bilinear with antialiasing). An evaluation sees the whole picture at S x S. `meta["box"]`: float32 (n, 4), top,
    left, height and width in pixels. Raises ComponentError for areas outside (0, 1], or out of order.
    Source: Qian et al., CVPR 2021, section 3.3 (area 0.3 to 1, ratio 0.5).
    """

    def __init__(self, *, size: int = 112, low: float = 0.3, high: float = 1.0, ratio: float = 0.5):
        super().__init__()
        if not 0.0 < low <= high <= 1.0 or not 0.0 < ratio <= 1.0 or size < 1:
            raise ComponentError(
                "view 'video.crop_resize': expected size of 1 or more, 0 < low <= high <= 1 and ratio in (0, 1]; "
                f"got {size}, {low}, {high}, {ratio}"
            )
        self.size, self.low, self.high, self.ratio = size, low, high, ratio

    def forward(self, view: View, draw: Draw) -> View:
        check_float(view.data, "video.crop_resize")
        height, width = view.data.shape[3:]
        area = draw.uniform(low=self.low, high=self.high) * (height * width)
        ratio = torch.exp(draw.uniform(low=math.log(self.ratio), high=-math.log(self.ratio)))
        high, wide = (area / ratio).sqrt().clamp(max=height), (area * ratio).sqrt().clamp(max=width)
        box = torch.stack([draw.uniform() * (height - high), draw.uniform() * (width - wide), high, wide], 1)  # (n, 4)
        return view.replace(data=resized(view.data, box, self.size), meta={**view.meta, "box": box})

    def prepare(self, view: View) -> View:
        check_float(view.data, "video.crop_resize")
        height, width = view.data.shape[3:]
        if height == width == self.size:
            return view
        box = torch.tensor([[0.0, 0.0, height, width]], device=view.data.device).expand(len(view), 4)
        return view.replace(data=resized(view.data, box, self.size))


class Flip(Augmentation):
    """All frames of a clip mirrored left to right; (n, C, T, H, W) -> the same. Source: Qian et al., CVPR 2021, section 3.3."""

    def __init__(self, *, p: float = 0.5):
        super().__init__(p=p)

    def augment(self, data: Tensor, mask: Tensor | None, draw: Draw) -> Tensor:
        return data.flip(-1)


class Blur(Augmentation):
    """Gaussian blur of one width for all frames of a clip; (n, C, T, H, W) -> the same.

    low, high: bounds of the uniform standard deviation, pixels. Raises ComponentError for bounds out of order. Source: Chen et
    al., "SimCLR", ICML 2020, appendix A (0.1 to 2, half of the samples).
    """

    def __init__(self, *, low: float = 0.1, high: float = 2.0, p: float = 0.5):
        super().__init__(p=p)
        if not 0.0 < low <= high:
            raise ComponentError(f"view 'video.blur': expected 0 < low <= high pixels; got {low}, {high}")
        self.low, self.high, self.reach = low, high, math.ceil(2.5 * high)

    def augment(self, data: Tensor, mask: Tensor | None, draw: Draw) -> Tensor:
        check_float(data, "video.blur")
        sigma = draw.uniform(low=self.low, high=self.high)[:, None]
        kernel = torch.exp(-0.5 * (torch.arange(-self.reach, self.reach + 1, device=data.device) / sigma) ** 2)
        kernel = (kernel / kernel.sum(1, keepdim=True)).to(data.dtype)[:, None]  # (n, 1, K)
        return _along(_along(data, kernel).transpose(3, 4), kernel).transpose(3, 4)


def _along(data: Tensor, kernel: Tensor) -> Tensor:
    """`data` (n, C, T, H, W) filtered along its last dimension, every row by its own kernel (n, 1, K); edges repeated."""
    if not len(data):  # padding no row is an error
        return data
    reach = kernel.shape[-1] // 2
    lines = data.flatten(1, 3).transpose(0, 1)  # (C * T * H, n, W)
    lines = pad(lines, (reach, reach), mode="replicate")
    return conv1d(lines, kernel, groups=len(data)).transpose(0, 1).reshape(data.shape)


def resized(data: Tensor, box: Tensor, size: int) -> Tensor:
    """(n, C, T, S, S): the box (n, 4) of top, left, height, width of every row of `data` (n, C, T, H, W)."""
    n, channels, frames, height, width = data.shape
    vertical = weights(box[:, 0], box[:, 2], height, size).to(data.dtype)  # (n, S, H)
    horizontal = weights(box[:, 1], box[:, 3], width, size).to(data.dtype)  # (n, S, W)
    wide = torch.bmm(data.reshape(n, channels * frames * height, width), horizontal.transpose(1, 2))
    wide = wide.view(n, channels * frames, height, size)
    return torch.matmul(vertical[:, None], wide).view(n, channels, frames, size, size)


def weights(start: Tensor, extent: Tensor, length: int, size: int) -> Tensor:
    """(n, size, length): how much of each pixel of a line goes into each of `size` pixels between start and start + extent."""
    step = (extent / size)[:, None]
    centre = start[:, None] + (torch.arange(size, device=start.device) + 0.5) * step - 0.5  # (n, size)
    distance = (torch.arange(length, device=start.device) - centre.clamp(0, length - 1)[..., None]).abs()
    triangle = (1.0 - distance / step.clamp(min=1.0)[..., None]).clamp(min=0.0)
    return triangle / triangle.sum(-1, keepdim=True)
