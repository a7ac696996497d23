"""Published encoders of volumes and images, made by MONAI.

Dimensions: n rows, C channels, D x H x W voxels (H x W pixels of an image), S of these axes, L tokens, H width of `h`.
Every encoder is `encoder(data (n, C, D, H, W) or (n, C, H, W)) -> Features` and says H in `width`. MONAI is imported when
an encoder of its is built (about 8 s).
"""

from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from counterpoint.batch import Features
from counterpoint.errors import ComponentError
from counterpoint.importing import untouched
from counterpoint.markers import Channels, Given

SpatialDims = Annotated[Literal[2, 3], Given("spatial_dims")]
Shape = Annotated[tuple[int, ...] | None, Given("shape")]
Norm = Literal["batch", "group", "instance"]

COARSEST = 16  # voxels of the input along one axis of the U-Net's lowest level


def _norm(norm: Norm) -> tuple:
    return {
        "batch": ("batch", {}),
        "group": ("group", {"num_groups": 8}),
        "instance": ("instance", {"affine": True}),
    }[norm]


def _check_width(who: str, width: int, norm: Norm) -> None:
    if width < 1 or (norm == "group" and width % 8):
        multiple = " that 8 groups divide" if norm == "group" else ""
        raise ComponentError(f"encoder {who!r}: width must be 1 or more{multiple}; got {width}")


def resnet(
    *,
    channels: Channels,
    spatial_dims: SpatialDims = 3,
    width: int = 64,
    blocks: tuple[int, ...] = (1, 1, 1, 1),
    kernel: int = 7,
    stride: int = 2,
    pool: bool = True,
    norm: Norm = "batch",
) -> nn.Module:
    """The 3D (or 2D) ResNet of basic blocks; h is the mean of its last map, H = width * 2 ** (len(blocks) - 1).

    Gives `map` (n, H, D / s, H / s, W / s); s = stride, twice that after `pool`, twice again with each stage after the first.
    width: filters of the first stage, doubled in each next; blocks: residual blocks of each of at most four stages:
    (1, 1, 1, 1) is ResNet-10, (2, 2, 2, 2) ResNet-18, (3, 4, 6, 3) ResNet-34; kernel, stride: of the first convolution;
    pool: maximum over 3 voxels, stride 2, after it (leave it out for patches under 32 voxels); norm: "group" (8 groups)
    and "instance" keep the rows of a batch apart, which "batch" does not.
    Raises ComponentError for no or more than four stages, an even kernel, or a width that the groups do not divide.
    Source: He et al., CVPR 2016, section 3.3; in 3D, Chen et al., "Med3D", arXiv 1904.00625 (2019), section 3.
    """
    if not 1 <= len(blocks) <= 4 or min(blocks) < 1:
        raise ComponentError(f"encoder 'medical.resnet': blocks are 1 or more of each of 1 to 4 stages; got {blocks}")
    if kernel % 2 == 0:
        raise ComponentError(f"encoder 'medical.resnet': kernel must be odd; got {kernel}")
    _check_width("medical.resnet", width, norm)
    with untouched():
        from monai.networks.nets.resnet import ResNet, ResNetBlock
    model = ResNet(
        ResNetBlock,
        [*blocks, *[1] * (4 - len(blocks))],
        [width * 2**stage for stage in range(4)],
        spatial_dims=spatial_dims,
        n_input_channels=channels,
        conv1_t_size=kernel,
        conv1_t_stride=stride,
        no_max_pool=not pool,
        feed_forward=False,
        bias_downsample=False,
        norm=_norm(norm),
    )
    return _ResNet(model, len(blocks), pool, width * 2 ** (len(blocks) - 1))


class _ResNet(nn.Module):
    """The stages that are wanted of MONAI's ResNet."""

    gives = frozenset({"map"})

    def __init__(self, model: nn.Module, stages: int, pool: bool, width: int):
        super().__init__()
        wanted = ["conv1", "bn1", "act", *["maxpool"] * pool, *(f"layer{i + 1}" for i in range(stages))]
        self.stages, self.width = nn.Sequential(*(getattr(model, name) for name in wanted)), width

    def forward(self, data: Tensor) -> Features:
        features = self.stages(data)  # (n, C, D, H, W) -> (n, H, D / s, H / s, W / s)
        return Features(features.flatten(2).mean(-1), map=features)


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
    _check_width("medical.unet", width, norm)
    with untouched():
        from monai.networks.nets.basic_unet import BasicUNet
    features = (width, width, 2 * width, 4 * width, 8 * width, width)
    model = BasicUNet(spatial_dims, channels, 1, features=features, norm=_norm(norm))
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


def vit(
    *,
    channels: Channels,
    shape: Shape,
    spatial_dims: SpatialDims = 3,
    patch: int | tuple[int, ...] = 16,
    width: int = 768,
    depth: int = 12,
    heads: int = 12,
    hidden: int | None = None,
    dropout: float = 0.0,
) -> nn.Module:
    """The vision transformer on blocks of voxels; h is the mean of its tokens, H = width.

    Gives `tokens` (n, L, H) and `map` (n, H, D / patch, H / patch, W / patch). shape: voxels (D, H, W) of every sample as
    the encoder sees it, after any crop; patch: voxels of a token's side; depth: layers; hidden: feed-forward width (4 *
    width). Raises ComponentError when `shape` is unknown or not a multiple of `patch`, or `heads` does not divide `width`.
    Source: Dosovitskiy et al., ICLR 2021, section 3.1 (defaults: ViT-B/16); in 3D, Hatamizadeh et al., "UNETR", WACV 2022.
    """
    size = tuple(shape or ())
    side = (patch,) * spatial_dims if isinstance(patch, int) else tuple(patch)
    if len(size) != spatial_dims or len(side) != spatial_dims or any(s < p or s % p for s, p in zip(size, side)):
        example = [4 * p for p in side]
        raise ComponentError(
            f"encoder 'medical.vit': shape must be {spatial_dims} multiples of patch {list(side)}, the same for every sample; "
            f"got {list(size) or 'none'}. After a crop, give its size: `shape: {example}`"
        )
    if width % heads:
        raise ComponentError(f"encoder 'medical.vit': heads must divide width; got heads: {heads}, width: {width}")
    with untouched():
        from monai.networks.nets.vit import ViT
    model = ViT(
        channels,
        size,
        side,
        hidden_size=width,
        mlp_dim=hidden or 4 * width,
        num_layers=depth,
        num_heads=heads,
        dropout_rate=dropout,
        spatial_dims=spatial_dims,
    )
    return _ViT(model, size, tuple(s // p for s, p in zip(size, side)), width)


class _ViT(nn.Module):
    """MONAI's ViT: tokens, their mean, and the same tokens where they stand."""

    gives = frozenset({"tokens", "map"})

    def __init__(self, model: nn.Module, shape: tuple[int, ...], grid: tuple[int, ...], width: int):
        super().__init__()
        for block in model.blocks:  # these have parameters that nothing would train
            block.norm_cross_attn, block.cross_attn = nn.Identity(), nn.Identity()
        self.model, self.shape, self.grid, self.width = model, shape, grid, width

    def forward(self, data: Tensor) -> Features:
        if tuple(data.shape[2:]) != self.shape:
            raise ComponentError(
                f"encoder 'medical.vit' was built for {self.shape} voxels; got {tuple(data.shape[2:])}. Give it the shape "
                f"that the views leave: `shape: {list(data.shape[2:])}`"
            )
        tokens, _ = self.model(data)  # (n, C, D, H, W) -> (n, L, H)
        return Features(tokens.mean(1), tokens=tokens, map=tokens.transpose(1, 2).unflatten(2, self.grid))
