"""Projection heads: from the representation h (n, H) to the contrasted embedding z (n, D)."""

import itertools

from torch import Tensor, nn

from counterpoint.batch import Features
from counterpoint.errors import ComponentError, suggest
from counterpoint.markers import Head, TokenWidth, Width
from counterpoint.modules import NamedModules


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


class Tokens(nn.Module):
    """One linear map of h to z and one of every token into a shared space (n, L, D), as in FILIP (Yao et al., 2022,
    section 3.1), whose tokens have 256 numbers.
    """

    takes_features = True
    gives = ("tokens",)

    def __init__(self, *, width: Width, token_width: TokenWidth, dim: int = 256):
        super().__init__()
        if dim < 1:
            raise ComponentError(f"head 'tokens': dim is at least 1; got {dim}")
        self.dim = dim
        self.map = nn.Linear(width, dim, bias=False)
        self.token_map = nn.Linear(token_width, dim, bias=False)

    def forward(self, features: Features) -> dict[str, Tensor]:
        if features.tokens is None:
            raise ComponentError(
                "head 'tokens': the encoder returns h alone; choose one that returns tokens, or another head"
            )
        return {"z": self.map(features.h), "tokens": self.token_map(features.tokens)}


class Several(nn.Module):
    """Several heads side by side on one h: their outputs are kept by name, and the one named by `z` is contrasted, too."""

    def __init__(self, *, heads: dict[str, Head], z: str):
        super().__init__()
        if z not in heads:
            raise ComponentError(f"head 'several': z names one of the heads; got {z!r}{suggest(z, heads)}")
        if taken := sorted({"z", "tokens", "mask", "map"} & heads.keys()):
            raise ComponentError(f"head 'several': {', '.join(taken)} cannot be the name of a head")
        for name, head in heads.items():
            if getattr(head, "takes_features", False) or getattr(head, "gives", ()):
                raise ComponentError(
                    f"head 'several': {name!r} returns more than one output; here each head returns one"
                )
        self.heads, self.contrasted, self.gives = NamedModules(heads), z, tuple(heads)
        self.dim = heads[z].dim

    def forward(self, h: Tensor) -> dict[str, Tensor]:
        found = {name: head(h) for name, head in self.heads.items()}
        return {"z": found[self.contrasted], **found}
