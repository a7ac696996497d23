"""A residual network over time that is exact for padded batches.

Dimensions: n rows, C channels, L samples, T steps of time, H width of `h`. Wherever a mask is given, the `h` of a row is what it would be
if its series stood alone: padded samples are zero before every convolution, and have no part in statistics and pools.
"""

from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import group_norm

from counterpoint.batch import Features
from counterpoint.errors import ComponentError
from counterpoint.markers import Channels, Given

Norm = Literal["batch", "group"]
Pool = Literal["mean", "mean_max", "mean_std"]
Mean = Annotated[list[float] | None, Given("mean")]
Std = Annotated[list[float] | None, Given("std")]

CLIP = 6.0  # standard deviations; beyond them is an artefact


class ResNet1d(nn.Module):
    """ResNet along time: a strided stem, then stages of two-convolution blocks, each but the first halving the rate.

    `forward(data (n, C, L), mask bool (n, L) | None) -> h (n, H), tokens (n, T, token_width)`, any L: T is L / 2 ** stages,
    rounded up, and a token is real where the sample that it is centred on is. width: filters of the first stage, doubled in
    each next; blocks: residual blocks of each stage; kernel: samples a convolution spans (odd); pool: h is the mean over
    time, or mean and maximum (or standard deviation) side by side; norm: "group" (8 groups) keeps the rows of a batch
    apart, which "batch" does not; the stem's kernel is twice as wide. H = width * 2 ** (stages - 1), twice that when
    two pools stand side by side; token_width is not doubled. mean, std: of each channel in the training data, when the data says them: the encoder
    takes data in its own unit, standardises it, and clips it at 6 standard deviations.
    Raises ComponentError for an even kernel, and for a width or blocks under 1. Source: He et al., "Deep residual learning", CVPR 2016, section 3.3; the
    wide kernels of ECG networks from Hannun et al., Nature Medicine 25 (2019), methods.
    """

    gives = frozenset({"tokens"})

    def __init__(
        self,
        *,
        channels: Channels,
        width: int = 32,
        blocks: tuple[int, ...] = (2, 2, 2, 2),
        kernel: int = 9,
        norm: Norm = "batch",
        pool: Pool = "mean",
        mean: Mean = None,
        std: Std = None,
    ):
        super().__init__()
        if width < 1 or not blocks or min(blocks) < 1:
            raise ComponentError(
                f"encoder 'ecg.resnet1d': expected a width and blocks of 1 or more; got {width}, {blocks}"
            )
        if kernel % 2 == 0:
            raise ComponentError(f"encoder 'ecg.resnet1d': kernel must be odd; got {kernel}")
        self.register_buffer("mean", None if mean is None else torch.tensor(mean)[:, None])  # (C, 1)
        self.register_buffer("std", None if std is None else torch.tensor(std)[:, None])
        self.stem, self.norm, self.pool = _conv(channels, width, 2 * kernel + 1, stride=2), _norm(norm, width), pool
        self.blocks, wide = nn.ModuleList(), width
        for stage, count in enumerate(blocks):
            for position in range(count):
                stride = 2 if stage and position == 0 else 1
                self.blocks.append(_Block(wide, width * 2**stage, kernel, stride, norm))
                wide = width * 2**stage
        self.token_width, self.width = wide, wide * (1 if pool == "mean" else 2)

    def forward(self, data: Tensor, mask: Tensor | None = None) -> Features:
        x = self.stem(_real(self._standardised(data), mask))  # (n, C, L) -> (n, width, L / 2)
        mask = _halve(mask, 2)
        x = self.norm(x, mask).relu()
        for block in self.blocks:
            x, mask = block(x, mask)  # (n, wider, L / 2, 4, 8, ...)
        real = x.new_ones(len(x), x.shape[-1], dtype=torch.bool) if mask is None else mask
        return Features(self._pooled(x, mask), tokens=x.transpose(1, 2), mask=real)

    def _standardised(self, data: Tensor) -> Tensor:
        if self.mean is None or self.std is None:
            return data
        return ((data - self.mean) / self.std).clamp(-CLIP, CLIP)

    def _pooled(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(n, H) of (n, H, L)."""
        count = x.shape[-1] if mask is None else mask.sum(1, keepdim=True).clamp(min=1)
        mean = _real(x, mask).sum(-1) / count
        if self.pool == "mean":
            return mean
        if self.pool == "mean_std":  # statistics pooling (Snyder et al., ICASSP 2018)
            variance = _real((x - mean[..., None]).square(), mask).sum(-1) / count
            return torch.cat([mean, (variance + 1e-5).sqrt()], dim=1)
        return torch.cat([mean, _real(x, mask).amax(-1)], dim=1)  # 0 is the least that a ReLU gives


class _Block(nn.Module):
    """Two convolutions around a shortcut, which is a strided 1 x 1 convolution where the shape changes."""

    def __init__(self, wide: int, wider: int, kernel: int, stride: int, norm: Norm):
        super().__init__()
        self.stride = stride
        self.conv1, self.norm1 = _conv(wide, wider, kernel, stride), _norm(norm, wider)
        self.conv2, self.norm2 = _conv(wider, wider, kernel), _norm(norm, wider)
        changes = stride > 1 or wide != wider
        self.shortcut = _conv(wide, wider, 1, stride) if changes else None
        self.norm3 = _norm(norm, wider) if changes else None

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        x = _real(x, mask)
        out = _halve(mask, self.stride)
        y = self.norm1(self.conv1(x), out).relu()
        y = self.norm2(self.conv2(_real(y, out)), out)
        kept = x if self.shortcut is None else self.norm3(self.shortcut(x), out)
        return (y + kept).relu(), out


class _BatchNorm(nn.BatchNorm1d):
    """BatchNorm whose statistics are those of the real samples."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None:
            return super().forward(x)
        real = super().forward(x.transpose(1, 2)[mask])  # (real samples of all rows, C)
        return torch.zeros_like(x.transpose(1, 2)).masked_scatter(mask[..., None], real).transpose(1, 2)


class _GroupNorm(nn.GroupNorm):
    """GroupNorm whose statistics are those of the real samples."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None:
            return group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
        grouped = x.unflatten(1, (self.num_groups, -1))  # (n, groups, C / groups, L)
        real = mask[:, None, None].to(x.dtype)
        count = real.sum((2, 3), keepdim=True).clamp(min=1) * grouped.shape[2]
        centred = grouped - (grouped * real).sum((2, 3), keepdim=True) / count
        variance = (centred.square() * real).sum((2, 3), keepdim=True) / count
        normal = (centred * (variance + self.eps).rsqrt()).flatten(1, 2)
        return normal * self.weight[:, None] + self.bias[:, None]


def _norm(norm: Norm, wide: int) -> nn.Module:
    if norm == "batch":
        return _BatchNorm(wide)
    return _GroupNorm(8 if wide % 8 == 0 else 1, wide)


def _conv(wide: int, wider: int, kernel: int, stride: int = 1) -> nn.Conv1d:
    return nn.Conv1d(wide, wider, kernel, stride, padding=kernel // 2, bias=False)


def _real(x: Tensor, mask: Tensor | None) -> Tensor:
    """`x` (n, C, L) with padded samples set to zero."""
    return x if mask is None else x.masked_fill(~mask[:, None], 0.0)


def _halve(mask: Tensor | None, stride: int) -> Tensor | None:
    """The mask after a convolution: output i is centred on sample i * stride."""
    return mask if mask is None or stride == 1 else mask[:, ::stride]
