"""View generators that turn and stretch images about their centre.

Dimensions: n rows, C channels, S spatial axes, as in `axes`; P planes: (H, W) of an image; (H, W), (D, H), (D, W) of a volume.

A turn of a volume is one in each plane after another (Euler angles), and each is a bilinear resampling of whole slices
with one set of weights for all of them: several times faster than trilinear resampling, at the price of a little blur.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from counterpoint.batch import View
from counterpoint.errors import ComponentError
from counterpoint.randomness import Draw
from counterpoint.views.generator import ViewGenerator
from counterpoint.views.place import PLACE, moved
from counterpoint_medical.views.axes import ordered, spatial
from counterpoint_medical.views.resampling import resample, stretch

PLANES = {2: [(0, 1)], 3: [(1, 2), (0, 1), (0, 2)]}  # the first of a volume is the axial plane

Plane = Literal["any", "axial"]


class Affine(ViewGenerator):
    """Turned and stretched about the centre, both at once; shape kept, the nearest voxel beyond the edge.

    degrees: bounds of the turn in each plane are -degrees and degrees. scale: bounds of the factor of a uniform draw, 1.1
    makes everything a tenth larger. plane: "any" turns volumes in all three planes, "axial" in (H, W) alone, which is 3
    times faster (the stretch stays in all axes). Angles are those of equal voxels: resample anisotropic volumes first.
    It records its place. p: the share of the samples that are turned and stretched.
    Raises ComponentError for degrees outside [0, 180], factors that are not positive or out of order, or p outside [0, 1].
    Source: Isensee et al., "nnU-Net", Nature Methods 18 (2021), supplementary note 2 (rotation and scaling).
    """

    records = frozenset({PLACE})

    def __init__(
        self,
        *,
        degrees: float = 15.0,
        scale: tuple[float, float] = (0.9, 1.1),
        plane: Plane = "any",
        p: float = 1.0,
    ):
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise ComponentError(f"view 'medical.affine': p is a probability in [0, 1]; got {p}")
        if not 0 <= degrees <= 180:
            raise ComponentError(f"view 'medical.affine': degrees must be in [0, 180]; got {degrees}")
        self.scale = ordered("medical.affine", "scale", scale, 0.05)
        self.radians, self.plane, self.p = math.radians(degrees), plane, p

    def forward(self, view: View, draw: Draw) -> View:
        chosen = draw.chance(self.p) if self.p < 1.0 else None
        data, sizes = view.data, spatial(view.data, "medical.affine")
        linear = torch.eye(len(sizes), device=data.device).expand(len(view), -1, -1)
        for plane, angle, factor in self._turns(len(sizes), draw):
            data = stretch(data, factor[:, 0]) if angle is None else resample(data, plane, angle, factor)
            linear = linear @ _read(plane, angle, factor, len(sizes))
        if chosen is not None:
            data = data.where(chosen.view(-1, *[1] * (data.ndim - 1)), view.data)
            linear = torch.where(chosen[:, None, None], linear, torch.eye(len(sizes), device=data.device))
        sides = torch.tensor(sizes, device=data.device)
        linear = linear * (sides / sides[:, None])  # of fractions of the sides, not of voxels
        return view.replace(data=data, meta=moved(view, linear, 0.5 - linear.sum(2) / 2))

    def _turns(self, count: int, draw: Draw) -> Iterator[tuple[tuple[int, int], Tensor | None, Tensor]]:
        """Planes, what to turn them by (n,), and what to stretch their two axes by first (n, 2), one after another.

        None for the turn: only the first axis is left to stretch.
        """
        planes = PLANES[count][: 1 if self.plane == "axial" else None] if self.radians else []
        angle = draw.uniform(3, low=-self.radians, high=self.radians)  # (n, P)
        factor = draw.uniform(low=self.scale[0], high=self.scale[1])  # (n,)
        todo = set(range(count)) if self.scale != (1.0, 1.0) else set()
        for place, plane in enumerate(planes):
            yield plane, angle[:, place], _factors(plane, todo, factor)
            todo -= set(plane)
        for plane in PLANES[count]:
            if todo & set(plane):
                yield plane, None if todo == {0} else torch.zeros_like(factor), _factors(plane, todo, factor)
                todo -= set(plane)


class Rotate(Affine):
    """Turned about the centre by up to `degrees` in each plane; shape kept, the nearest voxel beyond the edge.

    plane: "any" of a volume's three, or "axial", (H, W) alone. Raises ComponentError for degrees outside [0, 180].
    Source: Isensee et al., "nnU-Net", Nature Methods 18 (2021), supplementary note 2.
    """

    def __init__(self, *, degrees: float = 15.0, plane: Plane = "any", p: float = 1.0):
        super().__init__(degrees=degrees, scale=(1.0, 1.0), plane=plane, p=p)


class Scale(Affine):
    """Stretched about the centre by one random factor a sample; shape kept, the nearest voxel beyond the edge.

    low, high: bounds of the factor; 1.1 makes everything a tenth larger. Raises ComponentError when they are out of order.
    Source: Isensee et al., "nnU-Net", Nature Methods 18 (2021), supplementary note 2 (there 0.7 to 1.4).
    """

    def __init__(self, *, low: float = 0.8, high: float = 1.25, p: float = 1.0):
        super().__init__(degrees=0.0, scale=(low, high), p=p)


def _factors(plane: tuple[int, int], todo: set[int], factor: Tensor) -> Tensor:
    """(n, 2): `factor` for the axes of the plane that are still to be stretched, 1 for the others."""
    return torch.stack([factor if axis in todo else torch.ones_like(factor) for axis in plane], dim=1)


def _read(plane: tuple[int, int], angle: Tensor | None, factor: Tensor, count: int) -> Tensor:
    """(n, S, S): where `resample` reads, from the centre in voxels."""
    angle = torch.zeros_like(factor[:, 0]) if angle is None else angle
    (y, x), cos, sin = plane, angle.cos(), angle.sin()
    matrix = torch.eye(count, device=angle.device).repeat(len(angle), 1, 1)
    matrix[:, y, y], matrix[:, y, x] = cos / factor[:, 0], -sin / factor[:, 0]
    matrix[:, x, y], matrix[:, x, x] = sin / factor[:, 1], cos / factor[:, 1]
    return matrix
