"""Small residual convolutions over time, for spectrograms and for the symbols of a text: one body, two mouths.

Dimensions: n rows, M mel bands, T frames, L tokens, H width, K attention heads. A padded row gives what it gives alone:
padding is zero before every convolution, layers are normalised step by step, and pools look at real steps only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from counterpoint.batch import Features
from counterpoint.encoders.exits import exits
from counterpoint.encoders.text_transformer import pooled
from counterpoint.errors import ComponentError
from counterpoint.markers import Vocabulary


def audio_cnn(
    *,
    mels: int = 64,
    width: int = 128,
    depth: int = 4,
    kernel: int = 5,
    strides: tuple[int, ...] = (2, 2),
    heads: int = 4,
    segments: int | None = None,
    dropout: float = 0.1,
) -> nn.Module:
    """Convolutions over the frames of a log-mel spectrogram: (n, M, T) -> h (n, H), tokens (n, T / strides, H).

    mels: bands of the spectrogram; width: H; strides: of the convolutions it begins with, each of which shortens time; depth:
    residual blocks after them; kernel: frames that a convolution spans (odd); heads: of the attention that pools over
    time, which must divide width: h is a bag of what is heard. segments: instead of it, h is this many stretches of the
    sound one after another, each its mean in width / 2 numbers: H = segments * width / 2. Speech and its transcript run side by
    side, so that stretches are alike; with heads `identity`, what one stretch teaches is known in all.
    It also gives layers, 3 x (n, width): the means over real time after a quarter, half and three quarters of the blocks.
    Raises ComponentError for sizes that do not fit. Source: pre-norm residual blocks with GELU as in Liu et al.,
    "ConvNeXt", CVPR 2022, with full convolutions; attentive pooling from Okabe et al., Interspeech 2018.
    """
    pool = _pool("audio_text.cnn", width, heads, segments)
    return _Convolutions("audio_text.cnn", _Frames(mels, width, strides), width, depth, kernel, pool, dropout)


def text_cnn(
    *,
    vocabulary: Vocabulary,
    width: int = 128,
    depth: int = 4,
    kernel: int = 5,
    heads: int = 4,
    segments: int | None = None,
    dropout: float = 0.1,
) -> nn.Module:
    """Convolutions over the tokens of a text, best its characters: token ids (n, L) -> h (n, H), tokens (n, L, H).

    Other parameters as in `audio_text.cnn`. It learns from little data how letters sound, where a transformer over words
    has never met most of them. Source: Zhang, Zhao and LeCun, "Character-level convolutional networks", NeurIPS 2015;
    the blocks are those of `audio_text.cnn`.
    """
    pool = _pool("audio_text.text_cnn", width, heads, segments)
    return _Convolutions("audio_text.text_cnn", _Symbols(vocabulary, width), width, depth, kernel, pool, dropout)


def _pool(who: str, width: int, heads: int, segments: int | None) -> nn.Module:
    if segments is not None and (segments < 1 or width % 2):
        raise ComponentError(
            f"encoder {who!r}: segments must be 1 or more, and width even; got segments: {segments}, width: {width}"
        )
    if heads < 1 or width % heads:
        raise ComponentError(f"encoder {who!r}: heads must divide width; got heads: {heads}, width: {width}")
    return _Attention(width, heads) if segments is None else _Segments(width, segments)


class _Convolutions(nn.Module):
    def __init__(
        self, who: str, mouth: nn.Module, width: int, depth: int, kernel: int, pool: nn.Module, dropout: float
    ):
        super().__init__()
        if kernel % 2 == 0:
            raise ComponentError(f"encoder {who!r}: kernel must be odd; got {kernel}")
        self.mouth, self.width, self.token_width = mouth, pool.width, pool.value.out_features
        self.blocks = nn.ModuleList(_Block(width, kernel, dropout) for _ in range(depth))
        self.pool, self.exits = pool, exits(depth)
        self.dropout = nn.Dropout(dropout)
        self.layer_widths = (width,) * len(self.exits)
        self.gives = frozenset({"tokens", "layers"} if self.exits else {"tokens"})

    def forward(self, data: Tensor, mask: Tensor | None = None) -> Features:
        x, mask = self.mouth(data, mask)  # (n, T, H), bool (n, T)
        seen = []
        for number, block in enumerate(self.blocks, 1):
            x = block(x, mask)
            if number in self.exits:
                seen.append(pooled(x, mask, "mean"))
        h, tokens = self.pool(x, mask)
        return Features(self.dropout(h), tokens=tokens, mask=mask, layers=tuple(seen))


class _Frames(nn.Module):
    """Strided convolutions from bands to H channels: (n, M, T) -> (n, T / strides, H)."""

    def __init__(self, mels: int, width: int, strides: tuple[int, ...]):
        super().__init__()
        self.mels, self.strides = mels, tuple(strides)
        sizes = [mels, *[width] * len(self.strides)]
        self.layers = nn.ModuleList(
            nn.Conv1d(a, b, 5, stride=stride, padding=2) for a, b, stride in zip(sizes, sizes[1:], self.strides)
        )

    def forward(self, data: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        if data.ndim != 3 or data.shape[1] != self.mels:
            raise ComponentError(
                f"encoder 'audio_text.cnn' sees spectrograms (n, {self.mels}, frames); got {tuple(data.shape)}. Put "
                f"audio_text.log_mel with `mels: {self.mels}` among the views"
            )
        mask = _whole(data[:, 0]) if mask is None else mask
        for layer, stride in zip(self.layers, self.strides):
            data = gelu(layer(data * mask[:, None]))
            mask = mask[:, ::stride]  # output i is centred on step i * stride
        return data.transpose(1, 2), mask


class _Symbols(nn.Module):
    """A learnt vector a token: (n, L) -> (n, L, H)."""

    def __init__(self, vocabulary: int, width: int):
        super().__init__()
        self.table = nn.Embedding(vocabulary, width)

    def forward(self, data: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.table(data), _whole(data) if mask is None else mask


class _Block(nn.Module):
    """x + dropout(linear(gelu(convolution(norm(x))))), step by step but for the convolution."""

    def __init__(self, width: int, kernel: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.convolution = nn.Conv1d(width, width, kernel, padding=kernel // 2)
        self.linear = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y = self.norm(x) * mask[..., None]
        y = self.convolution(y.transpose(1, 2)).transpose(1, 2)
        return x + self.dropout(self.linear(gelu(y)))


class _Attention(nn.Module):
    """K learnt weightings of the real steps, each over its part of the channels: (n, T, H) -> h (n, H), values (n, T, H)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm, self.value, self.score = (
            nn.LayerNorm(width),
            nn.Linear(width, width),
            nn.Linear(width, heads, bias=False),
        )
        self.heads, self.width = heads, width

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        x = self.norm(x)
        values = self.value(x)  # (n, T, H)
        weights = self.score(x).masked_fill(~mask[..., None], -torch.inf).softmax(1)  # (n, T, K)
        h = (weights[..., None] * values.unflatten(2, (self.heads, -1))).sum(1).flatten(1)
        return h, values


class _Segments(nn.Module):
    """Means over K overlapping stretches of the real steps: (n, T, H) -> h (n, K * H / 2), values (n, T, H / 2).

    Stretches are centred at (k + 1/2) / K of the row; a step's weight falls linearly to 0 at REACH / K from the centre.
    """

    REACH = 5 / 3

    def __init__(self, width: int, segments: int):
        super().__init__()
        self.norm, self.value = nn.LayerNorm(width), nn.Linear(width, width // 2)
        self.segments, self.width = segments, segments * (width // 2)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        values = self.value(self.norm(x))  # (n, T, H / 2)
        place = (torch.arange(x.shape[1], device=x.device) + 0.5) / mask.sum(1, keepdim=True).clamp(min=1)  # (n, T)
        centre = (torch.arange(self.segments, device=x.device) + 0.5) / self.segments
        weight = (1 - (place[..., None] - centre).abs() * self.segments / self.REACH).clamp(min=0) * mask[..., None]
        weight = weight / weight.sum(1, keepdim=True).clamp(min=1e-4)  # (n, T, K)
        h = (weight.transpose(1, 2) @ values.float()).flatten(1).to(values.dtype)
        return h, values


def _whole(data: Tensor) -> Tensor:
    """bool (n, T): nothing is padded."""
    return torch.ones_like(data, dtype=torch.bool)
