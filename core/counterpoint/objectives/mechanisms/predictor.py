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
    """(n, D) -> (n, D): linear, batch norm, ReLU, linear; `biased`: whether the first and the last linear have a bias."""

    def __init__(self, dim: int, hidden: int, biased: tuple[bool, bool]):
        first, last = nn.Linear(dim, hidden, bias=biased[0]), nn.Linear(hidden, dim, bias=biased[1])
        super().__init__(first, TolerantNorm(hidden), nn.ReLU(), last)
