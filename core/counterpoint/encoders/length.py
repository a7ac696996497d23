"""How long a sample is, as an embedding: the trivial baseline of retrieval between modalities.

Dimensions: n rows, L tokens or samples.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Length(nn.Module):
    """The rank of a row's length among those of the training split, as a point on half a circle: (n, ..., L) -> h (n, 2).

    The cosine of two such points falls with the difference of their ranks: the best text for a recording is the one that
    is as long among texts as the recording is among recordings. No parameters; for `baselines`, in each modality.
    """

    width = 2

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(0, dtype=torch.float64), persistent=False)

    @torch.no_grad()
    def observe(self, data: Tensor, mask: Tensor | None = None) -> None:
        """Learn the lengths of some training rows."""
        self.seen = torch.cat([self.seen, _lengths(data, mask).to(self.seen.device)]).sort().values

    def forward(self, data: Tensor, mask: Tensor | None = None) -> Tensor:
        angle = math.pi * self._rank(_lengths(data, mask))  # a half circle: the cosine of a small angle has few digits
        return torch.stack([angle.cos(), angle.sin()], 1)

    def _rank(self, length: Tensor) -> Tensor:
        """float64 (n,) in [0, 1]: the share of observed lengths that are shorter, interpolated between two of them."""
        if not len(self.seen):
            return length / (length + 1)  # nothing observed: at least in order
        values, counts = self.seen.to(length.device).unique(return_counts=True)
        middle = (counts.cumsum(0) - counts / 2.0).double() / counts.sum()
        if len(values) == 1:
            return 0.5 + (length - values).sign() / 2
        right = torch.searchsorted(values, length).clamp(1, len(values) - 1)
        part = (length - values[right - 1]) / (values[right] - values[right - 1])
        return torch.lerp(middle[right - 1], middle[right], part).clamp(0, 1)


def _lengths(data: Tensor, mask: Tensor | None) -> Tensor:
    """float64 (n,): real samples or tokens of every row."""
    if mask is None:
        return torch.full((len(data),), data.shape[-1], device=data.device, dtype=torch.float64)
    return mask.sum(1).double()
