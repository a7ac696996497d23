"""The predictor of the objectives that need no negatives."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import batch_norm


class TolerantNorm(nn.BatchNorm1d):
    """BatchNorm1d that uses its running statistics for fewer than two rows, which have no variance."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 1 or not self.training:
            return super().forward(x)
        return batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)


class Predictor(nn.Sequential):
    """(n, D) -> (n, D): linear, batch norm, ReLU, linear."""

    def __init__(self, dim: int, hidden: int, bias: bool = True):
        super().__init__(nn.Linear(dim, hidden, bias=bias), TolerantNorm(hidden), nn.ReLU(), nn.Linear(hidden, dim))
