"""A temperature that is fixed, or learned as the logarithm of its inverse."""

from __future__ import annotations

from math import log

import torch
from torch import Tensor, nn

from counterpoint.errors import ComponentError


class Temperature(nn.Module):
    """Calling it gives the temperature: a float when fixed, a 0-d tensor when learned.

    The parameter is log(1 / temperature), kept from going under `lowest` in place before each training step (CLIP,
    section 2.5: logits are not scaled by more than 100).
    """

    def __init__(self, start: float, learnable: bool, lowest: float = 0.01):
        super().__init__()
        if start <= 0:
            raise ComponentError(f"objective: a temperature is positive; got {start}")
        self.fixed, self.most = None if learnable else start, -log(min(lowest, start))
        self.log_scale = nn.Parameter(torch.tensor(-log(start))) if learnable else None

    def forward(self) -> float | Tensor:
        if self.log_scale is None:
            return self.fixed
        if self.training:
            with torch.no_grad():
                self.log_scale.clamp_(max=self.most)
        return torch.exp(-self.log_scale)

    def parts(self) -> dict[str, Tensor]:
        """What to log: a learned temperature."""
        return {} if self.log_scale is None else {"temperature": torch.exp(-self.log_scale).detach()}
