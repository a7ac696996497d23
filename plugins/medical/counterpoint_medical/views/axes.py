"""What the views of images share: their axes, and statistics of every row.

Dimensions: n rows, C channels, S spatial axes: (D, H, W) = (inferior to superior, posterior to anterior, left to right)
for volumes as the pack's readers give them, (H, W) for images.
"""

from __future__ import annotations

from torch import Tensor

from counterpoint.errors import ComponentError


def spatial(data: Tensor, who: str) -> tuple[int, ...]:
    """The sizes of the spatial axes of `data` (n, C, H, W) or (n, C, D, H, W); ComponentError for anything else."""
    if data.ndim not in (4, 5):
        raise ComponentError(
            f"view {who!r}: expected images (n, C, H, W) or volumes (n, C, D, H, W); got {tuple(data.shape)}"
        )
    return tuple(data.shape[2:])


def per_row(numbers: Tensor, data: Tensor) -> Tensor:
    """`numbers` (n,) or (n, C) in the dtype of `data`, shaped to multiply it."""
    return numbers.to(data.dtype).view(*numbers.shape, *[1] * (data.ndim - numbers.ndim))


def along(numbers: Tensor, axis: int, ndim: int) -> Tensor:
    """`numbers` (n, L), one for every position of spatial axis `axis`, shaped to meet (n, C, ...) of `ndim` axes."""
    shape = [1] * ndim
    shape[0], shape[2 + axis] = numbers.shape
    return numbers.view(shape)


def deviation(data: Tensor, mean: Tensor | None = None) -> Tensor:
    """(n, C, 1, ...): standard deviation of every row and channel, about their `mean` (n, C) where it is known already."""
    flat = data.flatten(2)
    mean = flat.mean(-1) if mean is None else mean
    return per_row((flat - mean[..., None]).square_().mean(-1).sqrt(), data)


def ordered(who: str, name: str, value: float | tuple[float, float], lowest: float) -> tuple[float, float]:
    """`value`, or the bounds of a uniform draw, as a pair; ComponentError unless lowest <= low <= high."""
    low, high = value if isinstance(value, tuple | list) else (value, value)
    if not lowest <= low <= high:
        raise ComponentError(f"view {who!r}: {name} must be {lowest} or more, low before high; got {low}, {high}")
    return low, high
