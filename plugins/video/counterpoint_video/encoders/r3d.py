"""Residual networks of 3D convolutions, made by torchvision.

Dimensions: n rows, C channels, T frames, H and W pixels, L places in space and time, F the encoder's width. Tokens come frame
after frame and line after line. torchvision is imported when the encoder is built.
"""

from __future__ import annotations

from torch import Tensor, nn

from counterpoint.batch import Features
from counterpoint.markers import Channels


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
