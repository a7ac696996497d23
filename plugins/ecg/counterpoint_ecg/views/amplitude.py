"""View generators that change the values of a series and leave its time as it is.

Dimensions: n rows, C channels (leads), L samples in time, K knots.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from counterpoint.errors import ComponentError
from counterpoint.markers import MaybeRate
from counterpoint.randomness import Draw, key
from counterpoint.views.generator import Augmentation
from counterpoint_ecg.views.series import clock, deviation, lengths, phases, real, smooth


class Noise(Augmentation):
    """Gaussian white noise at a signal-to-noise ratio, of every sample and lead by itself; (n, C, L) -> (n, C, L).

    snr_db (20 when neither is given): decibels, 10 log10 of the lead's variance (its level does not count) over the noise's; a pair is the range
    of a uniform draw. A flat lead gets none. sigma: the noise's standard deviation in the data's unit instead, or its
    range. bank: None draws fresh noise; a number of values (1 << 20) makes that
    many once and gives each lead a stretch of them from a random start: faster, and almost independent, because
    stretches overlap by chance. Raises ComponentError for a range out of order, or a bank shorter than the series.
    Source: Um et al., ICMI 2017, section 3 (jittering).
    """

    def __init__(
        self,
        *,
        snr_db: float | tuple[float, float] | None = None,
        sigma: float | tuple[float, float] | None = None,
        bank: int | None = None,
        p: float = 1.0,
    ):
        super().__init__(p=p)
        if snr_db is not None and sigma is not None:
            raise ComponentError("view 'ecg.noise': give snr_db or sigma, not both")
        self.absolute, given = sigma is not None, sigma if sigma is not None else 20.0 if snr_db is None else snr_db
        self.low, self.high = given if isinstance(given, tuple | list) else (given, given)
        if self.low > self.high:
            unit = "sigma" if self.absolute else "snr_db"
            raise ComponentError(f"view 'ecg.noise': {unit} must be low before high; got {self.low}, {self.high}")
        self.register_buffer("bank", None if bank is None else _white(bank), persistent=False)

    def augment(self, data: Tensor, mask: Tensor | None, draw: Draw) -> Tensor:
        drawn = draw.uniform(data.shape[1], 1, low=self.low, high=self.high).to(data.dtype)  # (n, C, 1)
        sigma = drawn if self.absolute else deviation(data, mask) * 10.0 ** (-drawn / 20.0)
        noise = self._fresh(data, draw) if self.bank is None else self._from_bank(data, draw)
        return real(torch.addcmul(data, sigma, noise.to(data.dtype)), mask)

    @staticmethod
    def _fresh(data: Tensor, draw: Draw) -> Tensor:
        """(n, C, L). Time comes first in the draw, in sixteens, so that padding does not change the noise before it."""
        _, channels, length = data.shape
        return draw.normal(-(-length // 16) * 16, channels)[:, :length].transpose(1, 2)

    def _from_bank(self, data: Tensor, draw: Draw) -> Tensor:
        _, channels, length = data.shape
        count = len(self.bank) // 2
        if length > count:
            raise ComponentError(f"view 'ecg.noise': bank must be at least the {length} samples; got {count}")
        start = (draw.uniform(channels) * count).long().clamp(max=count - 1)  # padding changes no start
        return self.bank.unfold(0, length, 1)[start]  # (n, C, L)


def _white(count: int) -> Tensor:
    """Normal numbers, twice in a row: a stretch that starts near their end goes on with the first."""
    return torch.randn(count, generator=torch.Generator().manual_seed(key("ecg.noise"))).repeat(2)


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
