"""How long a sample is, as an embedding: the trivial baseline of retrieval between modalities.

Dimensions: n rows, L tokens or samples.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Length(nn.Module):
    """The logarithm of each row's real length on a half circle, so that cosine ranks by closeness; h (n, 2).

    Mean and deviation of the logarithm are those of the training split, of each modality by itself: a long recording is
    found by a long text. No parameters; for `baselines`.
    """

    width = 2

    def __init__(self):
        super().__init__()
        self.register_buffer("moments", torch.zeros(3, dtype=torch.float64))  # count, sum, sum of squares

    def observe(self, data: Tensor, mask: Tensor | None) -> None:
        """Take the lengths of some training rows into account."""
        x = self._log(data, mask)
        self.moments += torch.stack([x.new_tensor(len(x)), x.sum(), x.square().sum()])

    def forward(self, data: Tensor, mask: Tensor | None = None) -> Tensor:
        count, total, squares = self.moments.tolist()
        mean = total / max(count, 1.0)
        deviation = math.sqrt(max(squares / max(count, 1.0) - mean * mean, 0.0)) or 1.0
        angle = torch.atan((self._log(data, mask) - mean) / deviation)  # in (-pi/2, pi/2), monotone
        return torch.stack([angle.cos(), angle.sin()], 1).float()

    @staticmethod
    def _log(data: Tensor, mask: Tensor | None) -> Tensor:
        length = torch.full((len(data),), data.shape[-1], device=data.device) if mask is None else mask.sum(1)
        return length.double().clamp(min=1).log()
