"""Random numbers for every point, and ranges that views are given.

Dimensions: n rows, P points.
"""

from __future__ import annotations

from torch import Tensor

from counterpoint.errors import ComponentError
from counterpoint.randomness import Draw

BLOCK = 128  # points


def normal_per_point(draw: Draw, count: int) -> Tensor:
    """float32 (n, 3, count): three numbers for every point, the same ones however far the cloud is padded.

    Points come first in the draw and in whole blocks, so that what is drawn beyond them changes nothing before.
    """
    return draw.normal(-(-max(count, 1) // BLOCK) * BLOCK, 3)[:, :count].transpose(1, 2)


def check_range(
    view: str, name: str, bounds: tuple[float, float], least: float, most: float, above: bool = False
) -> None:
    """Refuse a range that is out of order or leaves [least, most]; `above`: its low end must be above `least`."""
    low, high = bounds
    if not least <= low <= high <= most or (above and low == least):
        side = "above" if above else "from"
        raise ComponentError(
            f"view 'points3d.{view}': {name} must be low before high, {side} {least:g} to {most:g}; got {low}, {high}"
        )
