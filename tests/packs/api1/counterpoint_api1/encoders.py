"""Encoders. Dimensions: n rows, C channels, L samples or tokens, H width of `h`."""

from torch import Tensor, nn

from counterpoint.batch import Features
from counterpoint.errors import ComponentError
from counterpoint.markers import Channels, MaybeRate, Vocabulary


class Net(nn.Module):
    """Two convolutions: (n, C, L) -> h (n, H), tokens (n, L', H), map (n, H, L') and the mean of the first layer."""

    gives = frozenset({"tokens", "map", "layers"})

    def __init__(self, *, channels: Channels, width: int = 16, rate: MaybeRate = None):
        super().__init__()
        if width % 4:
            raise ComponentError(f"api1.net: width is a multiple of 4; got {width}")
        kernel = 9 if rate and rate > 1 else 5
        self.first = nn.Sequential(
            nn.Conv1d(channels, width, kernel, 2, kernel // 2), nn.GroupNorm(4, width), nn.GELU()
        )
        self.second = nn.Conv1d(width, width, 5, 2, 2)
        self.width = self.token_width = self.map_width = width
        self.layer_widths = (width,)

    def forward(self, data: Tensor) -> Features:
        early = self.first(data)
        late = self.second(early)  # (n, H, L')
        return Features(h=late.mean(-1), tokens=late.transpose(1, 2), map=late, layers=(early.mean(-1),))


class _Words(nn.Module):
    def __init__(self, vocabulary: int, width: int):
        super().__init__()
        self.table, self.width = nn.Embedding(vocabulary, width), width

    def forward(self, data: Tensor, mask: Tensor | None = None) -> Tensor:
        tokens = self.table(data)  # (n, L, H)
        if mask is None:
            return tokens.mean(1)
        real = mask.unsqueeze(-1).to(tokens)
        return (tokens * real).sum(1) / real.sum(1)


def words(*, vocabulary: Vocabulary, width: int = 16) -> nn.Module:
    """The mean of word vectors: (n, L) -> (n, H), padding left out."""
    return _Words(vocabulary, width)
