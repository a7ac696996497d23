"""View generators that choose where to look, and say so in `meta["place"]` (counterpoint.views.place).

Dimensions: n rows, C channels, S spatial axes, as in `axes`.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from counterpoint.batch import View
from counterpoint.errors import ComponentError
from counterpoint.randomness import Draw
from counterpoint.views.generator import ViewGenerator
from counterpoint.views.place import PLACE, moved
from counterpoint_medical.views.axes import along, spatial


class Crop(ViewGenerator):
    """A random box of every sample: (n, C, D, H, W) -> (n, C, *size), uniform over the places that keep it inside.

    size: voxels of a side, or of every side. evaluate: what an evaluation embeds, the central box or the whole sample.
    It records its place, in evaluations, too.
    Raises ComponentError for a size that is not positive, has another number of sides, or is larger than the sample.
    Source: Chen et al., "SimCLR", ICML 2020, section 2.1 (there resized).
    """

    records = frozenset({PLACE})

    def __init__(self, *, size: int | tuple[int, ...], evaluate: Literal["center", "whole"] = "center"):
        super().__init__()
        if min((size,) if isinstance(size, int) else size, default=0) < 1:
            raise ComponentError(f"view 'medical.crop': size must be 1 voxel or more; got {size}")
        self.size, self.evaluate = size, evaluate

    def forward(self, view: View, draw: Draw) -> View:
        room = self._room(view.data)
        start = torch.floor(draw.uniform(len(room)) * (room.to(view.data.device) + 1)).long()
        return self._cut(view, torch.minimum(start, room.to(start.device)))

    def prepare(self, view: View) -> View:
        if self.evaluate == "whole":
            return view
        room = self._room(view.data)
        return self._cut(view, (room // 2).to(view.data.device).expand(len(view), -1))

    def _sides(self, data: Tensor) -> tuple[int, ...]:
        sizes = spatial(data, "medical.crop")
        sides = (self.size,) * len(sizes) if isinstance(self.size, int) else tuple(self.size)
        if len(sides) != len(sizes) or any(side > size for side, size in zip(sides, sizes)):
            raise ComponentError(f"view 'medical.crop': a box of {list(sides)} voxels does not fit in {list(sizes)}")
        return sides

    def _room(self, data: Tensor) -> Tensor:
        """int64 (S,): the last place where a box may start."""
        return torch.tensor([size - side for size, side in zip(spatial(data, "medical.crop"), self._sides(data))])

    def _cut(self, view: View, start: Tensor) -> View:
        sides = self._sides(view.data)
        places = view.data  # every place of the box as a window, without a copy
        for axis, side in enumerate(sides):
            places = places.unfold(2 + axis, side, 1)
        rows = torch.arange(len(start), device=start.device)
        data = places[(rows, slice(None), *start.unbind(1))]  # (n, C, *sides)
        whole = start.new_tensor(view.data.shape[2:])
        share = (start.new_tensor(sides) / whole).expand(len(start), -1)
        return view.replace(data=data, meta=moved(view, share, start / whole))


class Flip(ViewGenerator):
    """Every named axis turned round with probability `p`, each by itself; shape kept.

    axes: numbers of spatial axes: 0, 1, 2 of a volume are D, H, W, so that 2 exchanges left and right; -1 is the last.
    It records its place. Bodies are not symmetric: name an axis only where its direction means nothing.
    Raises ComponentError for no axis, an axis that the data lacks, or a probability outside [0, 1].
    """

    records = frozenset({PLACE})

    def __init__(self, *, axes: tuple[int, ...] = (-1,), p: float = 0.5):
        super().__init__()
        if not axes or not all(-3 <= axis < 3 for axis in axes):
            raise ComponentError(f"view 'medical.flip': axes are numbers of spatial axes, -3 to 2; got {list(axes)}")
        if not 0.0 <= p <= 1.0:
            raise ComponentError(f"view 'medical.flip': p is a probability in [0, 1]; got {p}")
        self.axes, self.p = axes, p

    def forward(self, view: View, draw: Draw) -> View:
        data, count = view.data, len(spatial(view.data, "medical.flip"))
        if bad := [axis for axis in self.axes if not -count <= axis < count]:
            raise ComponentError(f"view 'medical.flip': axis {bad[0]} of data with {count} spatial axes")
        turned = data.new_zeros(len(data), count, dtype=torch.bool)
        for axis in sorted({axis % count for axis in self.axes}):
            turned[:, axis] = draw.chance(self.p)
            data = torch.where(along(turned[:, axis, None], axis, data.ndim), data.flip(2 + axis), data)
        way = 1.0 - 2.0 * turned
        return view.replace(data=data, meta=moved(view, way, turned.to(way)))
