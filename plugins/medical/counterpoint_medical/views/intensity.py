"""View generators that change intensities voxel by voxel, and leave every voxel where it is.

Dimensions: n rows, C channels, S spatial axes, as in `axes`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from counterpoint.batch import View
from counterpoint.errors import ComponentError
from counterpoint.randomness import Draw
from counterpoint.views.generator import Augmentation, ViewGenerator
from counterpoint.views.noise_bank import stretches, white
from counterpoint_medical.views.axes import deviation, ordered, per_row, spatial


class Normalise(ViewGenerator):
    """Every channel of every sample to mean 0 and standard deviation 1, in training and in evaluation; a flat one to 0.

    For MR, whose unit is arbitrary; CT is better windowed by its reader, which keeps Hounsfield units comparable.
    """

    def __init__(self):
        super().__init__()

    def forward(self, view: View, draw: Draw) -> View:
        return self.prepare(view)

    def prepare(self, view: View) -> View:
        spatial(view.data, "medical.normalise")
        level = view.data.flatten(2).mean(-1)
        mean, spread = per_row(level, view.data), deviation(view.data, level)
        flat = spread <= 1e-6 * mean.abs()  # what rounding leaves of a constant
        return view.replace(data=(view.data - mean) * torch.where(flat, 0.0, 1 / spread))


class Intensity(Augmentation):
    """Contrast and brightness: each channel times a random factor about its mean, plus a random shift; shape kept.

    scale: the factor is uniform in [1 - scale, 1 + scale]; shift: uniform in [-shift, shift] standard deviations of the
    channel. Raises ComponentError for negative ones, or a scale above 1.
    Source: Isensee et al., "nnU-Net", Nature Methods 18 (2021), supplementary note 2 (contrast, brightness).
    """

    def __init__(self, *, scale: float = 0.25, shift: float = 0.25, p: float = 1.0):
        super().__init__(p=p)
        if not 0 <= scale <= 1 or shift < 0:
            raise ComponentError(
                f"view 'medical.intensity': scale must be in [0, 1], shift 0 or more; got {scale}, {shift}"
            )
        self.scale, self.shift = scale, shift

    def augment(self, data: Tensor, mask: Tensor | None, draw: Draw) -> Tensor:
        spatial(data, "medical.intensity")
        channels = data.shape[1]
        factor = per_row(draw.uniform(channels, low=1 - self.scale, high=1 + self.scale), data)
        shift = per_row(draw.uniform(channels, low=-self.shift, high=self.shift), data)
        level = data.flatten(2).mean(-1)
        mean = per_row(level, data)
        # not addcmul: with two small operands it is three times as slow
        return (data * factor).add_(mean + shift * deviation(data, level) - mean * factor)


class Gamma(Augmentation):
    """Intensities, brought to [0, 1] by the least and the greatest of each sample and channel, to a random power.

    The range stays as it was. low, high: bounds of the exponent; its logarithm is uniform. Raises ComponentError for
    bounds that are not positive or out of order.
    Source: Isensee et al., "nnU-Net", Nature Methods 18 (2021), supplementary note 2 (gamma, 0.7 to 1.5).
    """

    def __init__(self, *, low: float = 0.7, high: float = 1.5, p: float = 1.0):
        super().__init__(p=p)
        self.low, self.high = ordered("medical.gamma", "exponents", (low, high), 1e-3)

    def augment(self, data: Tensor, mask: Tensor | None, draw: Draw) -> Tensor:
        spatial(data, "medical.gamma")
        bounds = torch.tensor([self.low, self.high]).log().tolist()
        exponent = per_row(draw.uniform(low=bounds[0], high=bounds[1]).exp(), data)
        flat = data.flatten(2)
        least, most = per_row(flat.amin(-1), data), per_row(flat.amax(-1), data)
        spread = most - least
        unit = (data - least) / spread.clamp(min=torch.finfo(data.dtype).tiny)
        return least + unit.clamp(0, 1) ** exponent * spread


class Noise(Augmentation):
    """Gaussian noise in every voxel; shape kept.

    sigma: standard deviation of the noise over that of the sample's channel, or the range of a uniform draw; a flat
    channel gets none. bank: None draws fresh noise; a number of values (1 << 20) makes that many once and gives each
    channel of a sample a stretch of them from a random start: faster, and almost independent, because stretches overlap
    by chance. Raises ComponentError for a range that is negative or out of order, or a bank of fewer values than voxels.
    Source: Isensee et al., "nnU-Net", Nature Methods 18 (2021), supplementary note 2 (Gaussian noise).
    """

    def __init__(self, *, sigma: float | tuple[float, float] = (0.0, 0.2), bank: int | None = None, p: float = 1.0):
        super().__init__(p=p)
        self.low, self.high = ordered("medical.noise", "sigma", sigma, 0.0)
        self.register_buffer("bank", white(bank), persistent=False)

    def augment(self, data: Tensor, mask: Tensor | None, draw: Draw) -> Tensor:
        spatial(data, "medical.noise")
        sigma = per_row(draw.uniform(low=self.low, high=self.high), data) * deviation(data)
        return torch.addcmul(data, sigma, self._noise(data, draw).to(data.dtype))

    def _noise(self, data: Tensor, draw: Draw) -> Tensor:
        if self.bank is None:
            return draw.normal(*data.shape[1:])
        voxels = math.prod(data.shape[2:])
        return stretches(self.bank, draw, data.shape[1], voxels, "medical.noise").view(data.shape)
