"""SpecAugment's masks of spectrograms, drawn for every sample.

Dimensions: n rows, M bands, T frames, K masks. What is masked becomes the row's mean over its real frames: 0 after
`audio_text.log_mel` with `standardise`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from counterpoint.errors import ComponentError
from counterpoint.randomness import Draw
from counterpoint.views.generator import Augmentation
from counterpoint.views.series import lengths, real


class TimeMask(Augmentation):
    """`count` random stretches of every spectrogram masked in all bands; (n, M, T) -> (n, M, T).

    The width of each is uniform between 0 and `width` frames, and at most `most` of the row's length. Raises ComponentError for a
    count or width under 1, or `most` outside (0, 1]. Source: Park et al., "SpecAugment", Interspeech 2019, section 2
    (T frames, p of the length, m masks).
    """

    def __init__(self, *, width: int = 20, count: int = 2, most: float = 0.2, p: float = 1.0):
        super().__init__(p=p)
        _check("audio_text.time_mask", width, count)
        if not 0.0 < most <= 1.0:
            raise ComponentError(f"view 'audio_text.time_mask': most is a fraction in (0, 1]; got {most}")
        self.width, self.count, self.most = width, count, most

    def augment(self, data: Tensor, mask: Tensor | None, draw: Draw) -> Tensor:
        length = lengths(data, mask)
        hidden = _stretches(data.shape[2], length, (self.most * length).clamp(max=self.width), self.count, draw)
        return _masked(data, mask, hidden[:, None])


class FrequencyMask(Augmentation):
    """`count` random runs of bands of every spectrogram masked in all frames; (n, M, T) -> (n, M, T).

    The width of each is uniform between 0 and `width` bands. Raises ComponentError for a count or width under 1. Source:
    Park et al., "SpecAugment", Interspeech 2019, section 2 (F bands, m masks).
    """

    def __init__(self, *, width: int = 8, count: int = 2, p: float = 1.0):
        super().__init__(p=p)
        _check("audio_text.frequency_mask", width, count)
        self.width, self.count = width, count

    def augment(self, data: Tensor, mask: Tensor | None, draw: Draw) -> Tensor:
        bands = torch.full((len(data),), data.shape[1], device=data.device)
        hidden = _stretches(data.shape[1], bands, bands.clamp(max=self.width), self.count, draw)
        return _masked(data, mask, hidden[:, :, None])


def _check(who: str, width: int, count: int) -> None:
    if min(width, count) < 1:
        raise ComponentError(f"view {who!r}: width and count are at least 1; got {width}, {count}")


def _stretches(size: int, length: Tensor, widest: Tensor, count: int, draw: Draw) -> Tensor:
    """bool (n, size): the places in `count` stretches of 0 to `widest` (n,), anywhere within `length` (n,)."""
    width = (draw.uniform(count) * (widest[:, None] + 1)).long().minimum(widest[:, None].long())  # (n, K)
    room = length[:, None] - width
    start = (draw.uniform(count) * (room + 1)).long().minimum(room)
    place = torch.arange(size, device=length.device)
    inside = (place >= start[..., None]) & (place < (start + width)[..., None])  # (n, K, size)
    return inside.any(1)


def _masked(data: Tensor, mask: Tensor | None, hidden: Tensor) -> Tensor:
    count = (lengths(data, mask) * data.shape[1]).clamp(min=1)[:, None, None]
    mean = real(data, mask).sum((1, 2), keepdim=True) / count
    return real(torch.where(hidden, mean.to(data.dtype), data), mask)
