"""Intensities averaged on a coarse grid: the score that a trained encoder has to beat."""

from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, adaptive_avg_pool3d

from counterpoint.errors import ComponentError
from counterpoint.markers import Channels
from counterpoint_medical.encoders.layers import SpatialDims


class Grid(nn.Module):
    """Mean intensities in `cells` x `cells` (x `cells`) equal blocks, without parameters; H = C * cells ** S.

    forward(data (n, C, D, H, W) or (n, C, H, W)) -> h (n, H). Raises ComponentError for cells under 1.
    """

    def __init__(self, *, channels: Channels, spatial_dims: SpatialDims = 3, cells: int = 5):
        super().__init__()
        if cells < 1:
            raise ComponentError(f"encoder 'medical.grid': cells must be 1 or more; got {cells}")
        self.cells, self.width = cells, channels * cells**spatial_dims

    def forward(self, data: Tensor) -> Tensor:
        pool = adaptive_avg_pool2d if data.ndim == 4 else adaptive_avg_pool3d
        return pool(data.float(), self.cells).flatten(1)
