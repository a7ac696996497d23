"""The spectrum of a series, without parameters: the score that a trained encoder has to beat.

Dimensions: n rows, C channels (leads), L samples in time, H width of `h`.
"""

import torch
from torch import Tensor, nn

from counterpoint.errors import ComponentError
from counterpoint.markers import Channels, Length


class Rfft(nn.Module):
    """Magnitudes of the real Fourier transform, without parameters: the baseline that a trained encoder has to beat.

    length: samples transformed; a longer series is cut there, a shorter one padded with zeros. H = channels *
    (length // 2 + 1). Raises ComponentError when `length` is unknown.
    """

    def __init__(self, *, channels: Channels, length: Length):
        super().__init__()
        if length is None:
            raise ComponentError("encoder 'ecg.rfft': series of many lengths need one to transform: `length: 1000`")
        self.length, self.width = length, channels * (length // 2 + 1)

    def forward(self, data: Tensor) -> Tensor:
        return torch.fft.rfft(data.float(), n=self.length).abs().flatten(1)  # (n, C, L) -> (n, C * (L // 2 + 1))
