"""Loudness.

Dimensions: n rows, C channels, L samples.
"""

from __future__ import annotations

from torch import Tensor

from counterpoint.errors import ComponentError
from counterpoint.randomness import Draw
from counterpoint.views.generator import Augmentation


class Gain(Augmentation):
    """Every sample louder or quieter by a uniform number of decibels of amplitude; (n, C, L) -> (n, C, L).

    low, high: bounds in dB. Nothing is clipped at full scale. A log-mel that standardises its rows takes the gain out
    again. Raises ComponentError for bounds out of order. Source: Niizumi et al., "BYOL for audio", IJCNN 2021 (random gain).
    """

    def __init__(self, *, low: float = -6.0, high: float = 6.0, p: float = 1.0):
        super().__init__(p=p)
        if low > high:
            raise ComponentError(f"view 'audio_text.gain': low must be at most high; got {low}, {high} dB")
        self.low, self.high = low, high

    def augment(self, data: Tensor, mask: Tensor | None, draw: Draw) -> Tensor:
        factor = 10.0 ** (draw.uniform(1, 1, low=self.low, high=self.high) / 20.0)  # (n, 1, 1)
        return data * factor.to(data.dtype)
