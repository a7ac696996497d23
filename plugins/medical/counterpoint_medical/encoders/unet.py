"""The U-Net in two and three dimensions, made by MONAI.

Dimensions: n rows, C channels, D x H x W voxels (H x W pixels of an image), H width of `h`. MONAI is imported when the
encoder is built (about 8 s).
"""

from typing import Literal

import torch
from torch import Tensor, nn

from counterpoint.batch import Features
from counterpoint.errors import ComponentError
from counterpoint.markers import Channels
from counterpoint.packs.importing import untouched
from counterpoint_medical.encoders.layers import SpatialDims, check_width, norm_of

COARSEST = 16  # voxels of the input along one axis of the lowest level


def unet(
    *,
    channels: Channels,
    spatial_dims: SpatialDims = 3,
    width: int = 32,
    norm: Literal["instance", "group"] = "instance",
) -> nn.Module:
    """The U-Net: four levels down and up again, and a dense map at the input's resolution; H = 9 * width.

    h is the mean of the lowest level (8 * width) beside the mean of the map (width); `map` (n, width, D, H, W). width:
    filters of the first level and of the map; levels have 1, 1, 2, 4, 8 times as many. norm: both keep rows apart.
    Raises ComponentError for a side under 32 voxels, or a width that the 8 groups do not divide.
    Source: Ronneberger et al., MICCAI 2015, section 2; Falk et al., Nature Methods 16 (2019) for the widths.
    """
    check_width("medical.unet", width, norm)
    with untouched():
        from monai.networks.nets.basic_unet import BasicUNet
    features = (width, width, 2 * width, 4 * width, 8 * width, width)
    model = BasicUNet(spatial_dims, channels, 1, features=features, norm=norm_of(norm))
    return _UNet(model, width)


class _UNet(nn.Module):
    """MONAI's BasicUNet without its last convolution, and with its lowest level seen."""

    gives = frozenset({"map"})

    def __init__(self, model: nn.Module, width: int):
        super().__init__()
        model.final_conv = nn.Identity()
        self.model, self.width, self.map_width = model, 9 * width, width

    def forward(self, data: Tensor) -> Features:
        if min(data.shape[2:]) < 2 * COARSEST:
            raise ComponentError(
                f"encoder 'medical.unet': sides of at least {2 * COARSEST} voxels are needed; got {tuple(data.shape[2:])}"
            )
        m = self.model
        levels = [m.conv_0(data)]
        for down in (m.down_1, m.down_2, m.down_3, m.down_4):
            levels.append(down(levels[-1]))
        dense = levels[-1]  # (n, 8 width, D / 16, H / 16, W / 16)
        for up, level in zip((m.upcat_4, m.upcat_3, m.upcat_2, m.upcat_1), levels[-2::-1]):
            dense = up(dense, level)  # ... -> (n, width, D, H, W)
        lowest = levels[-1].flatten(2).mean(-1)
        return Features(torch.cat([lowest, dense.flatten(2).mean(-1)], dim=1), map=dense)
