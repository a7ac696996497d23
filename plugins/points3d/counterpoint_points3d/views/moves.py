"""View generators that move points and keep all of them.

Dimensions: n rows, C channels, P points. The first three channels are x, y, z. Where the data says that it has normals,
they are the next three and turn along; other channels stay as they are.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from torch import Tensor

from counterpoint.errors import ComponentError
from counterpoint.markers import Given
from counterpoint.randomness import Draw
from counterpoint.views.generator import Augmentation
from counterpoint.views.noise_bank import stretches, white
from counterpoint_points3d.views.clouds import radius, real, with_points
from counterpoint_points3d.views.numbers import check_range, normal_per_point

Axis = Literal["x", "y", "z"]
Normals = Annotated[bool, Given("normals")]

AXES = {"x": 0, "y": 1, "z": 2}


class Rotate(Augmentation):
    """A turn about the up axis through the origin by a random angle, one a cloud; (n, C, P) -> (n, C, P).

    degrees: the angle is uniform in [-degrees, degrees]; 180 is any angle. up: the axis that stays, y in most models, z
    in surveys and scans. Heights and distances stay what they are; normals turn along.
    Raises ComponentError for degrees outside 0 to 180. Source: Qi et al., "PointNet", CVPR 2017, section 5.1.
    """

    def __init__(self, *, degrees: float = 180.0, up: Axis = "y", normals: Normals = False, p: float = 1.0):
        super().__init__(p=p)
        check_range("rotate", "degrees", (0.0, degrees), 0.0, 180.0)
        self.degrees, self.up, self.normals = degrees, up, normals

    def augment(self, data: Tensor, mask: Tensor | None, draw: Draw) -> Tensor:
        angle = draw.uniform(1, low=-1.0, high=1.0) * math.radians(self.degrees)  # (n, 1)
        cosine, sine = angle.cos().to(data.dtype), angle.sin().to(data.dtype)
        first, second = ((AXES[self.up] + step) % 3 for step in (1, 2))
        turned = data.clone()
        for start in (0, 3) if self.normals else (0,):
            a, b = start + first, start + second
            turned[:, a].mul_(cosine).sub_(sine * data[:, b])  # (n, P)
            turned[:, b].mul_(cosine).add_(sine * data[:, a])
        return turned


class Flip(Augmentation):
    """The cloud mirrored along one horizontal axis with probability p; (n, C, P) -> (n, C, P).

    axis: the coordinate whose sign turns, with that of the normals. Source: as in Yan et al., "SECOND", Sensors 18 (2018),
    section 3.2 (flips of the scene).
    """

    def __init__(self, *, axis: Axis = "x", normals: Normals = False, p: float = 0.5):
        super().__init__(p=p)
        self.axis, self.normals = axis, normals

    def augment(self, data: Tensor, mask: Tensor | None, draw: Draw) -> Tensor:
        sign = data.new_ones(data.shape[1], 1)
        for start in (0, 3) if self.normals else (0,):
            sign[start + AXES[self.axis]] = -1.0
        return data * sign


class Scale(Augmentation):
    """The cloud larger or smaller by a random factor, one a cloud or one an axis; (n, C, P) -> (n, C, P).

    low, high: the logarithm of the factor is uniform between theirs. per_axis: a factor for each of x, y, z, which makes
    a model wider or taller; normals are kept perpendicular and of length 1.
    Raises ComponentError for bounds out of order or not above 0.
    Source: Qi et al., "PointNet++", NeurIPS 2017 (0.8 to 1.25 in the authors' code); per axis: Liu et al.,
    "Relation-shape CNN", CVPR 2019, section 4.1 (2/3 to 1.5).
    """

    def __init__(
        self, *, low: float = 0.8, high: float = 1.25, per_axis: bool = False, normals: Normals = False, p: float = 1.0
    ):
        super().__init__(p=p)
        check_range("scale", "low and high", (low, high), 0.0, math.inf, above=True)
        self.low, self.high, self.per_axis, self.normals = low, high, per_axis, normals

    def augment(self, data: Tensor, mask: Tensor | None, draw: Draw) -> Tensor:
        exponent = draw.uniform(3 if self.per_axis else 1, 1, low=math.log(self.low), high=math.log(self.high))
        factor = exponent.exp().to(data.dtype)  # (n, 1 or 3, 1)
        scaled = with_points(data, data[:, :3] * factor)
        if self.normals and self.per_axis:
            bent = data[:, 3:6] / factor
            scaled[:, 3:6] = bent / bent.square().sum(1, keepdim=True).sqrt().clamp(min=1e-12)
        return scaled


class Translate(Augmentation):
    """The whole cloud moved in a random direction; (n, C, P) -> (n, C, P).

    reach: the step along each axis is uniform in [-reach, reach], in radii of the cloud (its farthest point from the
    origin). An encoder that centres its clouds does not see it. Raises ComponentError for a reach below 0.
    Source: Qi et al., "PointNet++", NeurIPS 2017 (0.1 in the authors' code).
    """

    def __init__(self, *, reach: float = 0.1, p: float = 1.0):
        super().__init__(p=p)
        check_range("translate", "reach", (0.0, reach), 0.0, math.inf)
        self.reach = reach

    def augment(self, data: Tensor, mask: Tensor | None, draw: Draw) -> Tensor:
        step = draw.uniform(3, 1, low=-self.reach, high=self.reach).to(data.dtype)
        points = data[:, :3]
        return real(with_points(data, points + step * radius(points, mask)), mask)


class Jitter(Augmentation):
    """Every coordinate of every point moved by clipped Gaussian noise; (n, C, P) -> (n, C, P).

    sigma: standard deviation, clip: the most, both in radii of the cloud (its farthest point from the origin). bank: None
    draws fresh noise; a number of values (1 << 20) makes that many once and gives each coordinate of a cloud a stretch of
    them from a random start: several times faster, and almost independent, because stretches overlap by chance.
    Raises ComponentError for sigma below 0, a clip that is not above it, or a bank of fewer values than points.
    Source: Qi et al., "PointNet", CVPR 2017, section 5.1 (0.02; 0.01 clipped at 0.05 in the authors' code).
    """

    def __init__(self, *, sigma: float = 0.01, clip: float = 0.05, bank: int | None = None, p: float = 1.0):
        super().__init__(p=p)
        if not 0.0 <= sigma < clip:
            raise ComponentError(f"view 'points3d.jitter': sigma must be 0 or more and below clip; got {sigma}, {clip}")
        self.sigma, self.clip = sigma, clip
        self.register_buffer("bank", white(bank), persistent=False)

    def augment(self, data: Tensor, mask: Tensor | None, draw: Draw) -> Tensor:
        noise = self._noise(draw, data.shape[-1]).mul_(self.sigma).clamp_(-self.clip, self.clip).to(data.dtype)
        points = data[:, :3]
        return real(with_points(data, points + noise.mul_(radius(points, mask))), mask)

    def _noise(self, draw: Draw, count: int) -> Tensor:
        """(n, 3, count): memory of its own."""
        if self.bank is None:
            return normal_per_point(draw, count)
        return stretches(self.bank, draw, 3, count, "points3d.jitter")
