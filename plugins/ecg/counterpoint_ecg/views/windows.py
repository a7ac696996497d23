"""A view generator that keeps a stretch of time and fills the series with it.

Dimensions: n rows, C channels (leads), L samples in time.
"""

from __future__ import annotations

from torch import Tensor

from counterpoint.randomness import Draw
from counterpoint.views.extent import Extent
from counterpoint.views.generator import Augmentation
from counterpoint.views.series import clock, interpolate, lengths, real


class CropResize(Augmentation):
    """A random window of every sample, stretched back to the sample's length by linear interpolation: (n, C, L).

    low, high: bounds of the window as a fraction of the series, in (0, 1]. The stretching changes rates: at 0.5 a heart
    seems to beat half as fast. Raises ComponentError for bounds out of order.
    Source: Mehari and Strodthoff, Computers in Biology and Medicine 141 (2022) (time warping by random resized crop).
    """

    def __init__(self, *, low: float = 0.5, high: float = 1.0, p: float = 1.0):
        super().__init__(p=p)
        self.extent = Extent("ecg.crop_resize", None, fraction=(low, high))

    def augment(self, data: Tensor, mask: Tensor | None, draw: Draw) -> Tensor:
        last = (lengths(data, mask) - 1).clamp(
            min=0
        )  # the window runs from sample to sample: `last` steps are the whole
        span = last * draw.uniform(low=self.extent.low, high=self.extent.high)
        start = (last - span) * draw.uniform()
        step = span / last.clamp(min=1)
        position = start[:, None] + step[:, None] * clock(data)  # (n, L)
        return real(interpolate(data, position.minimum(last[:, None])[:, None]), mask)
