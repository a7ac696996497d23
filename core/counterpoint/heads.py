"""Projection heads: from the representation h (n, H) to the contrasted embedding z (n, D)."""

import itertools

from torch import Tensor, nn

from counterpoint.markers import Width


class Identity(nn.Module):
    """No head: z is h."""

    def __init__(self, *, width: Width):
        super().__init__()
        self.dim = width

    def forward(self, h: Tensor) -> Tensor:
        return h


class Linear(nn.Module):
    """One linear map without bias, as in CLIP (Radford et al., 2021, section 2.3)."""

    def __init__(self, *, width: Width, dim: int = 128):
        super().__init__()
        if dim < 1:
            raise ValueError(f"dim is at least 1; got {dim}")
        self.dim = dim
        self.map = nn.Linear(width, dim, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        return self.map(h)


class MLP(nn.Module):
    """The projection head of SimCLR (Chen et al., 2020, section 2.1): `layers` linear maps with ReLU between.

    hidden: width of the layers between, by default that of h. batch_norm: normalise after every hidden map, as BYOL,
    SimSiam, Barlow Twins and VICReg do.
    """

    def __init__(
        self, *, width: Width, dim: int = 128, hidden: int | None = None, layers: int = 2, batch_norm: bool = False
    ):
        super().__init__()
        if min(layers, dim, hidden or 1) < 1:
            raise ValueError(f"layers, dim and hidden are at least 1; got {layers}, {dim}, {hidden}")
        self.dim = dim
        sizes = [width, *[hidden or width] * (layers - 1), dim]
        self.stack = nn.Sequential()
        for i, (before, after) in enumerate(itertools.pairwise(sizes)):
            last = i == layers - 1
            self.stack.append(nn.Linear(before, after, bias=last or not batch_norm))
            if not last:
                if batch_norm:
                    self.stack.append(nn.BatchNorm1d(after))
                self.stack.append(nn.ReLU())

    def forward(self, h: Tensor) -> Tensor:
        return self.stack(h)
