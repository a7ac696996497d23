"""The vision transformer in two and three dimensions, made by MONAI.

Dimensions: n rows, C channels, D x H x W voxels (H x W pixels of an image), L tokens, H width of `h`. MONAI is imported when the
encoder is built (about 8 s).
"""

from typing import Annotated

from torch import Tensor, nn

from counterpoint.batch import Features
from counterpoint.errors import ComponentError
from counterpoint.markers import Channels, Given
from counterpoint.packs.importing import untouched
from counterpoint_medical.encoders.layers import SpatialDims

Shape = Annotated[tuple[int, ...] | None, Given("shape")]


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
