"""The log-mel spectrogram, as a step of the views: what follows it (time and frequency masks) works on frames.

Dimensions: n rows, L samples, T frames, F frequencies, M mel bands.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.nn.functional import pad

from counterpoint.batch import View
from counterpoint.errors import ComponentError, CounterpointError
from counterpoint.markers import Rate
from counterpoint.randomness import Draw
from counterpoint.views.generator import ViewGenerator

LEAST = 1e-10  # power under which librosa's decibels do not go


class LogMel(ViewGenerator):
    """Waveforms (n, 1, L) -> log-mel spectrograms (n, M, T), T = 1 + L // hop; the mask (n, L) becomes one of frames.

    In decibels of power, equal to librosa's `power_to_db(melspectrogram(...))`: periodic Hann window, frames centred on
    every `hop`-th sample with zeros beyond the ends, area-normalised triangles on Slaney's mel scale, floor at `top_db`
    under the row's maximum. A padded row gives the frames it would give alone, then zeros. An evaluation sees it too.

    mels: bands; window, hop: milliseconds; low, high: Hz, None = half the rate; standardise: each row to mean 0 and
    standard deviation 1 over its frames and bands, so that its loudness does not count and 0 is its mean.
    Raises ComponentError for bands that are empty at this rate and window. Source: Davis and Mermelstein, IEEE TASSP 28 (1980); 64
    bands, 25 and 10 ms are usual for speech.
    """

    def __init__(
        self,
        *,
        rate: Rate,
        mels: int = 64,
        window: float = 25.0,
        hop: float = 10.0,
        low: float = 0.0,
        high: float | None = None,
        top_db: float = 80.0,
        standardise: bool = True,
    ):
        super().__init__()
        self.hop, size = round(hop * rate / 1000), round(window * rate / 1000)
        if self.hop < 1 or size < 2:
            raise ComponentError(
                f"view 'audio_text.log_mel': hop and window must span samples at {rate} Hz; got {hop}, {window} ms"
            )
        self.n_fft, self.top_db, self.standardise = 1 << (size - 1).bit_length(), top_db, standardise
        self.register_buffer("window", torch.hann_window(size, periodic=True), persistent=False)
        self.register_buffer("bands", _bands(rate, self.n_fft, mels, low, high), persistent=False)

    def forward(self, view: View, draw: Draw) -> View:
        return self.prepare(view)

    def prepare(self, view: View) -> View:
        if view.data.ndim != 3 or view.data.shape[1] != 1:
            raise CounterpointError(
                f"view 'audio_text.log_mel': expected waveforms (n, 1, samples); got {tuple(view.data.shape)}"
            )
        mask = _frames(view.mask, self.hop)
        power = self._power(view.data[:, 0] if view.mask is None else view.data[:, 0] * view.mask)
        level = self._decibels(power, mask)
        level = _standard(level, mask) if self.standardise else level
        return view.replace(data=_real(level, mask).to(view.data.dtype), mask=mask)

    def _power(self, wave: Tensor) -> Tensor:
        """float32 (n, M, T) of (n, L), whatever the precision of the training: decibels of half floats are steps."""
        half = self.n_fft // 2
        with torch.autocast(wave.device.type, enabled=False):
            wave = pad(wave.float(), (half, half))  # frames stand on their centres
            if not len(wave):  # a Fourier transform of no row is an error
                return wave.new_zeros(0, len(self.bands), 1 + (wave.shape[1] - self.n_fft) // self.hop)
            frames = torch.stft(
                wave, self.n_fft, self.hop, len(self.window), self.window, center=False, return_complex=True
            )  # (n, F, T)
            return self.bands @ (frames.real.square() + frames.imag.square())

    def _decibels(self, power: Tensor, mask: Tensor | None) -> Tensor:
        level = 10.0 * power.clamp(min=LEAST).log10()
        loudest = level if mask is None else level.masked_fill(~mask[:, None], -torch.inf)
        return level.maximum(loudest.amax((1, 2), keepdim=True) - self.top_db) if len(level) else level


def _bands(rate: float, n_fft: int, mels: int, low: float, high: float | None) -> Tensor:
    """float32 (M, F): librosa's filter bank."""
    from librosa.filters import mel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # empty bands: said below, with what to do
        bands = torch.from_numpy(mel(sr=rate, n_fft=n_fft, n_mels=mels, fmin=low, fmax=high))
    if empty := int((bands.sum(1) == 0).sum()):
        raise ComponentError(
            f"view 'audio_text.log_mel': {empty} of {mels} bands hold no frequency at {rate:g} Hz; take fewer `mels`, or a longer `window`"
        )
    return bands


def _frames(mask: Tensor | None, hop: int) -> Tensor | None:
    """bool (n, T): frames whose centre is a real sample, or the first after them, as in a row that stands alone."""
    if mask is None:
        return None
    count = 1 + mask.sum(1, keepdim=True) // hop
    return torch.arange(1 + mask.shape[1] // hop, device=mask.device) < count


def _real(level: Tensor, mask: Tensor | None) -> Tensor:
    return level if mask is None else level.masked_fill(~mask[:, None], 0.0)


def _standard(level: Tensor, mask: Tensor | None) -> Tensor:
    """Each row of (n, M, T) to mean 0 and deviation 1 over its real frames; silence, which is flat, to 0."""
    bands, frames = level.shape[1:]
    count = (level.new_full((len(level),), frames) if mask is None else mask.sum(1)).mul(bands)[:, None, None]
    centred = level - _real(level, mask).sum((1, 2), keepdim=True) / count
    spread = (_real(centred.square(), mask).sum((1, 2), keepdim=True) / count).sqrt()
    return centred / spread.clamp(min=1e-3)
