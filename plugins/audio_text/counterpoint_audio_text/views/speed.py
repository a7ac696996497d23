"""How fast a recording is played.

Dimensions: n rows, C channels, L samples, W samples that the slowest rate needs.
"""

from __future__ import annotations

import math

import torch

from counterpoint.batch import View
from counterpoint.errors import ComponentError
from counterpoint.randomness import Draw
from counterpoint.views.generator import ViewGenerator
from counterpoint.views.series import interpolate, lengths, real


class Speed(ViewGenerator):
    """Every sample played faster or slower, pitch and tempo together: (n, C, L) -> (n, C, W), W = L / low.

    low, high: bounds of the uniform factor; at 1.1 a second lasts 0.91 s and 440 Hz becomes 484 Hz. Linear interpolation; a mask says
    where each row now ends. An evaluation sees the recording as it is. Raises ComponentError for bounds that are not
    positive or out of order. Source: Ko et al., "Audio augmentation for speech recognition", Interspeech 2015 (0.9 to 1.1).
    """

    def __init__(self, *, low: float = 0.9, high: float = 1.1):
        super().__init__()
        if not 0.0 < low <= high:
            raise ComponentError(f"view 'audio_text.speed': expected 0 < low <= high; got {low}, {high}")
        self.low, self.high = low, high

    def forward(self, view: View, draw: Draw) -> View:
        factor = draw.uniform(1, low=self.low, high=self.high).to(view.data.dtype)  # (n, 1)
        last = (lengths(view.data, view.mask) - 1).clamp(min=0)[:, None]
        widest = 1 + math.floor((view.data.shape[-1] - 1) / self.low)
        position = factor * torch.arange(widest, device=view.data.device)  # (n, W)
        inside = position <= last
        made = interpolate(view.data, position.minimum(last.to(position.dtype))[:, None])
        return view.replace(data=real(made, inside), mask=inside)
