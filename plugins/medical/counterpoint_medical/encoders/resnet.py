"""The ResNet in two and three dimensions, made by MONAI.

Dimensions: n rows, C channels, D x H x W voxels (H x W pixels of an image), H width of `h`. MONAI is imported when the
encoder is built (about 8 s).
"""

from torch import Tensor, nn

from counterpoint.batch import Features
from counterpoint.errors import ComponentError
from counterpoint.markers import Channels
from counterpoint.packs.importing import untouched
from counterpoint_medical.encoders.layers import Norm, SpatialDims, check_width, norm_of


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
    check_width("medical.resnet", width, norm)
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
        norm=norm_of(norm),
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
