"""View generators that move samples along time.

Dimensions: n rows, C channels (leads), L samples in time, K knots, S segments.
"""

from __future__ import annotations

import torch
from torch import Tensor

from counterpoint.errors import ComponentError
from counterpoint.randomness import Draw
from counterpoint.views.generator import Augmentation
from counterpoint.views.series import clock, interpolate, lengths, phases, real, smooth, take


class TimeWarp(Augmentation):
    """Time run faster here and slower there, smoothly, first and last sample in place; (n, C, L) -> (n, C, L).

    The speed is a cubic curve through N(1, sigma) at evenly spaced knots (at least 2), never below 0.1; its running sum,
    brought to the length of the series, says where to read, by linear interpolation. per_lead: a warp for each lead,
    which takes simultaneous leads apart. Raises ComponentError for fewer than 2 knots.
    Source: Um et al., ICMI 2017, section 3 (time warping); sigma 0.1 and 7 knots, per lead, in Abbaspourazad et al.,
    ICLR 2024. The cubic is a Catmull-Rom spline.
    """

    def __init__(self, *, sigma: float = 0.1, knots: int = 7, per_lead: bool = False, p: float = 1.0):
        super().__init__(p=p)
        if knots < 2:
            raise ComponentError(f"view 'ecg.time_warp': knots must be at least 2; got {knots}")
        self.sigma, self.knots, self.per_lead = sigma, knots, per_lead

    def augment(self, data: Tensor, mask: Tensor | None, draw: Draw) -> Tensor:
        knots = draw.normal(data.shape[1] if self.per_lead else 1, self.knots)  # (n, 1 or C, K)
        speed = (1.0 + self.sigma * smooth(knots, phases(data, mask))).clamp(min=0.1)  # (n, 1 or C, L)
        elapsed = speed.cumsum(-1) - speed[..., :1]
        last = (lengths(data, mask) - 1).clamp(min=0)[:, None, None]
        whole = elapsed.gather(2, last.expand(-1, elapsed.shape[1], -1))  # what has elapsed at the last real sample
        position = (elapsed / whole.clamp(min=1e-6) * last).minimum(last)
        return real(interpolate(data, position), mask)


class TimeReverse(Augmentation):
    """The series read backwards with probability p; (n, C, L) -> (n, C, L).

    Source: Sarkar and Etemad, IEEE Transactions on Affective Computing 13 (2022), section 3 (temporal inversion).
    """

    def __init__(self, *, p: float = 0.5):
        super().__init__(p=p)

    def augment(self, data: Tensor, mask: Tensor | None, draw: Draw) -> Tensor:
        time, length = clock(data), lengths(data, mask)[:, None]
        return take(data, torch.where(time < length, length - 1 - time, time))


class Permutation(Augmentation):
    """The series cut into equal segments, put together in random order; (n, C, L) -> (n, C, L).

    segments: at least 2; their lengths differ by one sample at most. Raises ComponentError for fewer than 2.
    Source: Um et al., ICMI 2017, section 3 (permutation).
    """

    def __init__(self, *, segments: int = 5, p: float = 1.0):
        super().__init__(p=p)
        if segments < 2:
            raise ComponentError(f"view 'ecg.permutation': segments must be at least 2; got {segments}")
        self.segments = segments

    def augment(self, data: Tensor, mask: Tensor | None, draw: Draw) -> Tensor:
        length = lengths(data, mask)[:, None]
        edges = torch.arange(self.segments + 1, device=data.device) * length // self.segments  # (n, S + 1)
        order = draw.permutation(self.segments)  # (n, S): which segment stands in each place
        sizes = edges.diff(dim=1).gather(1, order)
        ends = sizes.cumsum(1)
        time = clock(data).expand(len(data), -1).contiguous()
        place = torch.searchsorted(ends, time, right=True).clamp(max=self.segments - 1)  # (n, L)
        moved = edges.gather(1, order.gather(1, place)) + time - (ends - sizes).gather(1, place)
        return take(data, torch.where(time < length, moved, time))
