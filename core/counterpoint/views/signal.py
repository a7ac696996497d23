"""View generators of what is sampled in time, whatever it is: a window, noise, a stretch taken out.

Dimensions: n rows, C channels, L samples in time, W samples of a window. Packs list them under names of their own.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from counterpoint.batch import View
from counterpoint.errors import ComponentError, CounterpointError
from counterpoint.markers import Length, MaybeRate
from counterpoint.randomness import Draw
from counterpoint.views.extent import Extent
from counterpoint.views.generator import Augmentation, ViewGenerator
from counterpoint.views.noise_bank import stretches, white
from counterpoint.views.series import clock, deviation, interpolate, lengths, real, take, uniform_start


class Crop(ViewGenerator):
    """A random window of every sample: (n, C, L) -> (n, C, W), uniform over the starts that keep it inside the series.

    Give its size once: `seconds` (needs `rate`), `samples`, or `fraction` of the series. A series of varying length that
    is shorter than the window is kept whole and padded. stretch: time runs up to this fraction faster or slower in each
    window (linear interpolation), so that it spans W * (1 - stretch) to W * (1 + stretch) samples. meta["window"] int64
    (n, 2): first sample and the one after the last, in the series as it came. evaluate: what an evaluation embeds, the
    whole series, or its central window for an encoder that takes one length only.
    Raises ComponentError for a size that is missing, doubled, not positive, or longer than every series.
    Source: Um et al., ICMI 2017, section 3 (cropping); as a contrastive view, Kiyasseh et al., "CLOCS", ICML 2021.
    """

    def __init__(
        self,
        *,
        seconds: float | None = None,
        samples: int | None = None,
        fraction: float | None = None,
        stretch: float = 0.0,
        evaluate: Literal["whole", "center"] = "whole",
        rate: MaybeRate = None,
        length: Length = None,
    ):
        super().__init__()
        if not 0.0 <= stretch < 1.0:
            raise ComponentError(f"view 'crop': stretch must be in [0, 1); got {stretch}")
        self.extent = Extent("crop", rate, seconds=seconds, samples=samples, fraction=fraction)
        self.length, self.stretch, self.evaluate = length, stretch, evaluate
        if length is not None:
            self._check(self.extent.samples(length), length)

    @staticmethod
    def _check(window: int, length: int) -> None:
        if window > length:
            raise ComponentError(
                f"view 'crop': a window of {window} samples is longer than the series, {length} samples"
            )

    def forward(self, view: View, draw: Draw) -> View:
        data, mask = view.data, view.mask
        window = self._window(view)
        if self.stretch:
            return self._stretched(view, window, draw)
        start = uniform_start((lengths(data, mask) - window).clamp(min=0), draw)
        data, mask = _at_least(data, mask, window)
        index = start[:, None] + torch.arange(window, device=data.device)  # (n, W)
        mask = None if mask is None else mask.gather(1, index)
        meta = {**view.meta, "window": torch.stack([start, start + window], dim=1)}
        return view.replace(data=take(data, index), mask=mask, meta=meta)

    def prepare(self, view: View) -> View:
        if self.evaluate == "whole":
            return view
        window = self._window(view)
        data, mask = _at_least(view.data, view.mask, window)
        start = (lengths(data, mask) - window).clamp(min=0) // 2
        index = start[:, None] + torch.arange(window, device=data.device)
        return view.replace(data=take(data, index), mask=None if mask is None else mask.gather(1, index))

    def _stretched(self, view: View, window: int, draw: Draw) -> View:
        """As `forward`, each window read at a pace of its own."""
        data, mask = view.data, view.mask
        length = lengths(data, mask)
        pace = draw.uniform(low=1 - self.stretch, high=1 + self.stretch)
        room = (length - 1 - pace * (window - 1)).clamp(min=0)
        start = room * draw.uniform()
        position = start[:, None] + pace[:, None] * torch.arange(window, device=data.device)  # (n, W)
        inside = position <= length[:, None] - 1
        ends = torch.stack([start, torch.minimum(position[:, -1] + 1, length)], dim=1).round().long()
        short = mask is not None or not self._always_fits(data.shape[-1], window)
        cropped = interpolate(data, position[:, None])
        return view.replace(
            data=real(cropped, inside) if short else cropped,
            mask=inside if short else None,
            meta={**view.meta, "window": ends},
        )

    def _always_fits(self, length: int, window: int) -> bool:
        return (window - 1) * (1 + self.stretch) <= length - 1

    def _window(self, view: View) -> int:
        length = view.data.shape[-1]
        if self.extent.relative and view.mask is not None:
            raise CounterpointError(
                "view 'crop': a fraction needs series of one length, these are padded; give seconds or samples"
            )
        window = self.extent.samples(length)
        if self.length is not None and view.mask is None:
            self._check(window, length)
        return window


def _at_least(data: Tensor, mask: Tensor | None, window: int) -> tuple[Tensor, Tensor | None]:
    """`data` and `mask` padded at the end to `window` samples where they are shorter."""
    short = window - data.shape[-1]
    if short <= 0:
        return data, mask
    mask = data.new_ones(len(data), data.shape[-1], dtype=torch.bool) if mask is None else mask
    return pad(data, (0, short)), pad(mask, (0, short))


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
            raise ComponentError("view 'noise': give snr_db or sigma, not both")
        self.absolute, given = sigma is not None, sigma if sigma is not None else 20.0 if snr_db is None else snr_db
        self.low, self.high = given if isinstance(given, tuple | list) else (given, given)
        if self.low > self.high:
            unit = "sigma" if self.absolute else "snr_db"
            raise ComponentError(f"view 'noise': {unit} must be low before high; got {self.low}, {self.high}")
        self.register_buffer("bank", white(bank), persistent=False)

    def augment(self, data: Tensor, mask: Tensor | None, draw: Draw) -> Tensor:
        drawn = draw.uniform(data.shape[1], 1, low=self.low, high=self.high).to(data.dtype)  # (n, C, 1)
        sigma = drawn if self.absolute else deviation(data, mask) * 10.0 ** (-drawn / 20.0)
        noise = self._fresh(data, draw) if self.bank is None else stretches(self.bank, draw, *data.shape[1:], "noise")
        return real(torch.addcmul(data, sigma, noise.to(data.dtype)), mask)

    @staticmethod
    def _fresh(data: Tensor, draw: Draw) -> Tensor:
        """(n, C, L). Time comes first in the draw, in sixteens, so that padding does not change the noise before it."""
        _, channels, length = data.shape
        return draw.normal(-(-length // 16) * 16, channels)[:, :length].transpose(1, 2)


class TimeMask(Augmentation):
    """Cut-out: one random stretch of every sample set to each lead's mean; (n, C, L) -> (n, C, L).

    Its length is uniform between two bounds, given once: `seconds` (needs `rate`), `samples`, or `fraction` of the
    series (the default, 0.3 to 0.5). Raises ComponentError for bounds that
    are doubled, not positive, or out of order.
    Source: Abbaspourazad et al., "Large-scale training of foundation models for wearable biosignals", ICLR 2024,
    section 3.1 (bounds: the authors' code).
    """

    def __init__(
        self,
        *,
        seconds: tuple[float, float] | None = None,
        samples: tuple[int, int] | None = None,
        fraction: tuple[float, float] | None = None,
        rate: MaybeRate = None,
        p: float = 1.0,
    ):
        super().__init__(p=p)
        if seconds is None and samples is None and fraction is None:
            fraction = (0.3, 0.5)
        self.extent = Extent("time_mask", rate, seconds=seconds, samples=samples, fraction=fraction)

    def augment(self, data: Tensor, mask: Tensor | None, draw: Draw) -> Tensor:
        length = lengths(data, mask)
        width = self.extent.draw(length, draw)
        start = uniform_start(length - width, draw)[:, None]
        time = clock(data)
        kept = (time < start) | (time >= start + width[:, None])  # (n, L)
        kept = kept[:, None].to(data.dtype)
        level = real(data, mask).sum(-1, keepdim=True) / length[:, None, None]  # (n, C, 1)
        return real(level + (data - level) * kept, mask)  # arithmetic is 6 times faster than masked_fill
