"""Volumes as every reader of the pack gives them: one orientation, and on request one spacing, size and intensity window.

Dimensions: C channels, D x H x W voxels along (inferior to superior, posterior to anterior, left to right). The tensor of
a NIfTI file and that of the DICOM series it was made from are the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from counterpoint.data.guard import MAX_BYTES, check_array
from counterpoint.data.reader import Reader
from counterpoint.errors import ComponentError


class Grid(NamedTuple):
    """What a header says of a volume: voxels along the file's three axes, and its affine (4, 4) in mm, RAS+."""

    shape: tuple[int, int, int]
    affine: np.ndarray

    @property
    def spacing(self) -> tuple[float, ...]:
        """mm between voxels along the file's axes."""
        return tuple(float(mm) for mm in np.linalg.norm(self.affine[:3, :3], axis=0))


class Volume(Reader):
    """What readers of volumes share; one of them says what the header holds, and reads the voxels.

    spacing  mm between voxels along (D, H, W), or along all of them; None: as in the file
    size     voxels (D, H, W), or of every side: cut or padded about the centre, with the least value of the volume
    window   intensities that become 0 and 1, those beyond are clipped: [-160, 240] for soft tissue in Hounsfield units
    """

    varies: ClassVar[frozenset[str]] = frozenset({"shape", "spacing"})
    who: ClassVar[str] = "reader 'medical.volume'"

    def __init__(
        self,
        *,
        spacing: float | tuple[float, float, float] | None = None,
        size: int | tuple[int, int, int] | None = None,
        window: tuple[float, float] | None = None,
    ):
        self.spacing, self.size, self.window = _triple(spacing), _triple(size), window
        if self.spacing and not min(self.spacing) > 0:
            raise ComponentError(f"{self.who}: spacing is in mm, above 0; got {list(self.spacing)}")
        if self.size and min(self.size) < 1:
            raise ComponentError(f"{self.who}: size is 1 voxel or more; got {list(self.size)}")
        if window and not window[0] < window[1]:
            raise ComponentError(f"{self.who}: window must be low before high; got {list(window)}")

    def described(self, grid: Grid, channels: int) -> dict[str, Any]:
        """The facts of a volume that a header describes, as `finished` would leave it."""
        shape, spacing = self._after(grid)
        _check_size(shape, channels)
        return {"channels": channels, "spatial_dims": 3, "shape": shape, "spacing": spacing}

    def finished(self, array: np.ndarray, grid: Grid, path: str) -> Tensor:
        """float32 (C, D, H, W) of an array (x, y, z, C) on `grid`."""
        check_array(array, path)
        volume = torch.from_numpy(np.ascontiguousarray(_oriented(array, grid), dtype=np.float32))
        shape = _shape_at(volume.shape[1:], _turned(grid, grid.spacing), self.spacing)
        for axis, count in enumerate(shape):
            volume = resampled(volume, 1 + axis, count)
        volume = volume if self.size is None else _fitted(volume, self.size)
        return volume if self.window is None else _windowed(volume, self.window)

    def _after(self, grid: Grid) -> tuple[tuple[int, ...], tuple[float, ...]]:
        spacing = _turned(grid, grid.spacing)
        shape = _shape_at(_turned(grid, grid.shape), spacing, self.spacing)
        rounded = tuple(round(mm, 4) for mm in self.spacing or spacing)
        return self.size or tuple(shape), rounded


def check_grid(grid: Grid, channels: int) -> None:
    """ValueError unless the header describes a volume of a size that fits in memory, lying somewhere in space."""
    if min(grid.shape) < 2:
        raise ValueError(f"shape {grid.shape}; a volume has 2 voxels or more along every axis")
    _check_size(grid.shape, channels)
    if not np.isfinite(grid.affine).all() or abs(np.linalg.det(grid.affine[:3, :3])) < 1e-9:
        raise ValueError("its header does not say how it lies in space (singular affine)")


def _check_size(shape: Sequence[int], channels: int) -> None:
    size = 4 * math.prod(shape) * channels
    if size > MAX_BYTES:
        raise ValueError(f"too large: {tuple(shape)} voxels, {size:,} bytes as float32, expected at most {MAX_BYTES:,}")


def _triple(value) -> tuple | None:
    return None if value is None else tuple(value) if isinstance(value, tuple | list) else (value,) * 3


def _orientation(grid: Grid) -> np.ndarray:
    from nibabel.orientations import io_orientation

    return io_orientation(grid.affine)


def _turned(grid: Grid, along: Sequence) -> list:
    """Values of the file's three axes in the order (D, H, W)."""
    place = _orientation(grid)[:, 0].astype(int)
    return [along[int(np.flatnonzero(place == axis)[0])] for axis in (2, 1, 0)]


def _oriented(array: np.ndarray, grid: Grid) -> np.ndarray:
    """(C, D, H, W) of (x, y, z, C) on `grid`."""
    from nibabel.orientations import apply_orientation

    return apply_orientation(array, _orientation(grid)).transpose(3, 2, 1, 0)


def _shape_at(shape: Sequence[int], spacing: Sequence[float], wanted: Sequence[float] | None) -> list[int]:
    if wanted is None:
        return list(shape)
    return [max(1, round(n * mm / target)) for n, mm, target in zip(shape, spacing, wanted)]


def resampled(volume: Tensor, axis: int, count: int) -> Tensor:
    """`volume` with `count` voxels along one axis, over the same extent: linear, widened when it becomes coarser."""
    length = volume.shape[axis]
    if count == length:
        return volume
    step = length / count
    centre = (torch.arange(count, dtype=torch.float64) + 0.5) * step - 0.5
    reach = max(1.0, step)
    weight = (1 - (centre[:, None] - torch.arange(length)).abs() / reach).clamp(min=0)  # (count, length)
    weight = (weight / weight.sum(1, keepdim=True)).float()
    return torch.tensordot(volume, weight, dims=([axis], [1])).movedim(-1, axis).contiguous()


def _fitted(volume: Tensor, size: Sequence[int]) -> Tensor:
    out = volume.new_full((len(volume), *size), float(volume.min()))
    target, source = [slice(None)], [slice(None)]
    for have, want in zip(volume.shape[1:], size):
        both = min(have, want)
        target.append(slice((want - both) // 2, (want - both) // 2 + both))
        source.append(slice((have - both) // 2, (have - both) // 2 + both))
    out[tuple(target)] = volume[tuple(source)]
    return out


def _windowed(volume: Tensor, window: tuple[float, float]) -> Tensor:
    low, high = window
    return ((volume - low) / (high - low)).clamp(0.0, 1.0)
