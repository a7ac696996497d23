"""View generators that change the values of a series and leave its time as it is.

Dimensions: n rows, C channels (leads), L samples in time, K knots.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from counterpoint.errors import ComponentError
from counterpoint.markers import MaybeRate
from counterpoint.randomness import Draw
from counterpoint.views.generator import Augmentation
from counterpoint.views.series import clock, deviation, lengths, phases, real, smooth


class Scale(Augmentation):
    """Amplitude times a random factor of normal distribution N(1, sigma), one a sample; (n, C, L) -> (n, C, L).

    per_lead: one factor a lead, so that the leads' proportions change too. Source: Um et al., ICMI 2017, section 3
    (scaling, sigma 0.1).
    """

    def __init__(self, *, sigma: float = 0.1, per_lead: bool = False, p: float = 1.0):
        super().__init__(p=p)
        self.sigma, self.per_lead = sigma, per_lead

    def augment(self, data: Tensor, mask: Tensor | None, draw: Draw) -> Tensor:
        factor = 1.0 + self.sigma * draw.normal(data.shape[1] if self.per_lead else 1, 1)  # (n, 1 or C, 1)
        return data * factor.to(data.dtype)


class MagnitudeWarp(Augmentation):
    """Amplitude times a smooth random curve through N(1, sigma) at evenly spaced knots, one a lead; (n, C, L).

    knots: at least 2, the ends included. Raises ComponentError for fewer. Source: Um et al., ICMI 2017, section 3
    (magnitude warping); sigma 0.2 and 7 knots as in Abbaspourazad et al., ICLR 2024. The cubic is a Catmull-Rom spline.
    """

    def __init__(self, *, sigma: float = 0.2, knots: int = 7, p: float = 1.0):
        super().__init__(p=p)
        if knots < 2:
            raise ComponentError(f"view 'ecg.magnitude_warp': knots must be at least 2; got {knots}")
        self.sigma, self.knots = sigma, knots

    def augment(self, data: Tensor, mask: Tensor | None, draw: Draw) -> Tensor:
        curve = smooth(draw.normal(data.shape[1], self.knots), phases(data, mask))  # (n, C, L)
        return torch.addcmul(data, data, curve.to(data.dtype), value=self.sigma)


class BaselineWander(Augmentation):
    """A slow drift added: sinusoids of random frequency and phase, shared by the leads; (n, C, L) -> (n, C, L).

    amplitude: most that the drift's root mean square may be, relative to the standard deviation of the lead; each lead
    draws its own part of it and its sign. hz: range of the frequencies in Hz (needs `rate`; breathing and movement lie
    between 0.05 and 0.5 Hz); cycles: the same range in periods a series, where the rate is not known. waves: sinusoids.
    Raises ComponentError when neither `rate` nor `cycles` is known, or a range is out of order.
    Source: Mehari and Strodthoff, Computers in Biology and Medicine 141 (2022) (physiological noise).
    """

    def __init__(
        self,
        *,
        amplitude: float = 0.2,
        hz: tuple[float, float] = (0.05, 0.5),
        cycles: tuple[float, float] | None = None,
        waves: int = 3,
        rate: MaybeRate = None,
        p: float = 1.0,
    ):
        super().__init__(p=p)
        if cycles is None and not rate:
            raise ComponentError(
                "view 'ecg.baseline_wander': hz needs the sampling rate, which the data does not know; "
                "add its `rate: <Hz>`, or give cycles: [0.5, 5] (periods a series)"
            )
        self.low, self.high = hz if cycles is None else cycles
        if not 0 <= self.low <= self.high:
            raise ComponentError(
                f"view 'ecg.baseline_wander': frequencies must be 0 or more, low before high; got {self.low}, {self.high}"
            )
        self.rate, self.amplitude, self.waves = (rate if cycles is None else None), amplitude, waves

    def augment(self, data: Tensor, mask: Tensor | None, draw: Draw) -> Tensor:
        frequency = draw.uniform(self.waves, 1, low=self.low, high=self.high)  # Hz, or periods a series
        shift = draw.uniform(self.waves, 1)
        gain = draw.uniform(data.shape[1], 1, low=-self.amplitude, high=self.amplitude)  # (n, C, 1)
        per_series = lengths(data, mask)[:, None].clamp(min=1)
        time = clock(data) / (per_series if self.rate is None else self.rate)  # seconds, or parts of the series
        wander = torch.sin(2 * math.pi * (frequency * time[:, None] + shift)).sum(1, keepdim=True)  # (n, 1, L)
        wander = wander * math.sqrt(2.0 / self.waves)  # root mean square 1 on average
        return real(torch.addcmul(data, deviation(data, mask) * gain.to(data.dtype), wander.to(data.dtype)), mask)


class Invert(Augmentation):
    """The sign turned with probability p, all leads together, as when electrodes are swapped; (n, C, L) -> (n, C, L).

    Source: Sarkar and Etemad, IEEE Transactions on Affective Computing 13 (2022), section 3 (negation).
    """

    def __init__(self, *, p: float = 0.5):
        super().__init__(p=p)

    def augment(self, data: Tensor, mask: Tensor | None, draw: Draw) -> Tensor:
        return -data
