"""Encoders of video: a small one of the project's own, torchvision's R3D-18, and VideoMAE from transformers.

Dimensions: n rows, C channels, T frames, H and W pixels, L places in space and time, F the encoder's width. An encoder is
`encoder(data (n, C, T, H, W))`, floats, says F in `width`, and gives h (n, F) with tokens (n, L, `token_width`), frame after
frame and line after line; the pixels give h alone. Libraries are imported when an encoder of theirs is built.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from counterpoint.batch import Features
from counterpoint.data.sources import model_folder
from counterpoint.encoders.stored import stored
from counterpoint.errors import ComponentError
from counterpoint.markers import Channels


class R2Plus1d(nn.Module):
    """Four stages, each a convolution in space that halves H and W, then one in time; h (n, 8 width), or twice that.

    width: channels of the first stage, doubled in each next. The last three stages halve T. pool: mean over places and times, or mean and
    maximum side by side. Any T, H and W. Tokens have 8 width numbers: one for every 8 frames and 16 x 16 pixels. Its BatchNorm learns batch statistics.
    Source: Tran et al., "A closer look at spatiotemporal convolutions", CVPR 2018, section 3.5 ((2+1)D; there with more layers a stage).
    """

    gives = frozenset({"tokens"})

    def __init__(self, *, channels: Channels, width: int = 16, pool: Literal["mean", "mean_max"] = "mean"):
        super().__init__()
        wide = [channels, width, 2 * width, 4 * width, 8 * width]
        stages = []
        for i in range(4):
            stages += _unit(wide[i], wide[i + 1], (1, 3 if i else 5, 3 if i else 5), (1, 2, 2))
            stages += _unit(wide[i + 1], wide[i + 1], (3, 1, 1), (2 if i else 1, 1, 1))
        self.stages, self.pool = nn.Sequential(*stages), pool
        self.token_width, self.width = 8 * width, 8 * width * (2 if pool == "mean_max" else 1)
        self.to(memory_format=torch.channels_last_3d)  # twice as fast on a CPU in bfloat16

    def forward(self, data: Tensor) -> Features:
        map = self.stages(data.contiguous(memory_format=torch.channels_last_3d)).flatten(2)  # (n, F, places)
        mean = map.mean(2)
        h = torch.cat([mean, map.amax(2)], 1) if self.pool == "mean_max" else mean
        return Features(h, tokens=map.transpose(1, 2))


def _unit(channels: int, width: int, kernel: tuple[int, ...], stride: tuple[int, ...]) -> list[nn.Module]:
    padding = tuple(k // 2 for k in kernel)
    return [
        nn.Conv3d(channels, width, kernel, stride, padding, bias=False),
        nn.BatchNorm3d(width),
        nn.ReLU(inplace=True),
    ]


def r3d_18(*, channels: Channels) -> nn.Module:
    """R3D-18: an 18-layer residual network of 3D convolutions; h (n, 512), any T, H and W. Without pretrained weights.

    A token stands for 8 frames and 16 x 16 pixels.

    Source: Tran et al., CVPR 2018, section 3.1; torchvision's `r3d_18`.
    """
    from torchvision.models.video import r3d_18 as build

    model = build(weights=None)
    if channels != 3:
        stem = model.stem[0]
        model.stem[0] = nn.Conv3d(channels, 64, stem.kernel_size, stem.stride, stem.padding, bias=False)
        nn.init.kaiming_normal_(model.stem[0].weight, mode="fan_out", nonlinearity="relu")
    return _Residual3d(model)


class _Residual3d(nn.Module):
    """torchvision's VideoResNet up to its pool, under the same names of weights."""

    gives, width = frozenset({"tokens"}), 512

    def __init__(self, model: nn.Module):
        super().__init__()
        self.stem, self.layer1, self.layer2 = model.stem, model.layer1, model.layer2
        self.layer3, self.layer4 = model.layer3, model.layer4

    def forward(self, data: Tensor) -> Features:
        x = self.layer2(self.layer1(self.stem(data)))
        map = self.layer4(self.layer3(x))
        h = nn.functional.adaptive_avg_pool3d(map, 1).flatten(1)
        return Features(h, tokens=map.flatten(2).transpose(1, 2))


def videomae(
    *,
    channels: Channels,
    size: int = 112,
    frames: int = 16,
    patch: int = 16,
    tubelet: int = 2,
    width: int = 384,
    depth: int = 12,
    heads: int = 6,
    weights: str | None = None,
) -> nn.Module:
    """VideoMAE's vision transformer over tubelets of patches; h (n, width), the mean of its tokens.

    size, frames: of the clips it sees, after the views; patch, tubelet: pixels and frames of a token; width, depth, heads: ViT-S by default.
    weights: a local folder in the format of transformers, whose sizes then hold; None: from scratch.
    Raises ComponentError when patch, tubelet or heads do not divide, or the clips are of another size.
    Source: Tong et al., "VideoMAE", NeurIPS 2022, section 3.3; transformers' `VideoMAEModel`.
    """
    from transformers import VideoMAEConfig, VideoMAEModel

    if weights is not None:
        folder = model_folder(weights, "encoder 'video.videomae'")
        return _Tubelets(stored("encoder 'video.videomae'", folder, VideoMAEModel, "model of VideoMAE"))
    if size % patch or frames % tubelet or width % heads:
        raise ComponentError(
            "encoder 'video.videomae': patch must divide size, tubelet frames, heads width; got "
            f"{patch} and {size}, {tubelet} and {frames}, {heads} and {width}"
        )
    config = VideoMAEConfig(
        image_size=size,
        patch_size=patch,
        num_channels=channels,
        num_frames=frames,
        tubelet_size=tubelet,
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        use_mean_pooling=True,
    )
    return _Tubelets(VideoMAEModel(config))


class _Tubelets(nn.Module):
    """transformers' VideoMAE, which takes (n, T, C, H, W)."""

    gives = frozenset({"tokens"})

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.width = model, model.config.hidden_size
        self.norm = nn.LayerNorm(self.width)  # with mean pooling the model itself normalises nothing at its end

    def forward(self, data: Tensor) -> Features:
        config = self.model.config
        sides = {"channels": config.num_channels, "frames": config.num_frames}
        if tuple(data.shape[1:]) != (*sides.values(), config.image_size, config.image_size):
            raise ComponentError(
                f"encoder 'video.videomae': built for {config.num_channels} channels, {config.num_frames} frames of "
                f"{config.image_size} x {config.image_size}; got {tuple(data.shape[1:])}. Give it the `frames` and `size` that the views leave"
            )
        tokens = self.norm(self.model(data.transpose(1, 2)).last_hidden_state)  # (n, L, F)
        return Features(tokens.mean(1), tokens)


class Pixels(nn.Module):
    """The clip itself, averaged down to `frames` pictures of `size` x `size`, without parameters: a baseline.

    h (n, channels frames size size). After `video.difference` it is the raw motion.
    """

    def __init__(self, *, channels: Channels, frames: int = 8, size: int = 16):
        super().__init__()
        self.shape, self.width = (frames, size, size), channels * frames * size * size

    def forward(self, data: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool3d(data.float(), self.shape).flatten(1)
