"""The reader of NIfTI files: .nii and .nii.gz, of CT and MR volumes."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from counterpoint.data.guard import check_file
from counterpoint_medical.readers.volume import Grid, Volume, check_grid


class Nifti(Volume):
    """A NIfTI volume as float32 (C, D, H, W), turned to (inferior to superior, posterior to anterior, left to right).

    A fourth axis of the file are channels (MR contrasts). Intensities are those that the header's slope and intercept give.
    spacing  mm between voxels along (D, H, W), or along all of them; None: as in the file
    size     voxels (D, H, W), or of every side: cut or padded about the centre, with the least value of the volume
    window   intensities that become 0 and 1, those beyond are clipped: [-160, 240] for soft tissue in Hounsfield units

    Raises ValueError for other than 3 or 4 axes, complex numbers and colours, a header that does not say how the volume
    lies in space, fewer than 2 voxels along an axis, NaN, a constant volume, and a size that cannot fit in memory.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".nii", ".nii.gz")
    who: ClassVar[str] = "reader 'medical.nifti'"

    def facts(self, path: str) -> dict[str, Any]:
        _, grid, channels = _opened(path)
        return self.described(grid, channels)

    def read(self, path: str) -> Tensor:
        image, grid, channels = _opened(path)
        array = np.asanyarray(image.dataobj, dtype=np.float32)
        return self.finished(array.reshape(*grid.shape, channels), grid, path)


def _opened(path: str) -> tuple[Any, Grid, int]:
    """The image, its voxels not read, and what its header says."""
    from nibabel import Nifti1Image, Nifti2Image

    check_file(path)
    kind = Nifti2Image if _is_second(path) else Nifti1Image  # by content, and nothing but this file
    image = kind.from_filename(path)
    shape = image.shape
    if len(shape) not in (3, 4):
        raise ValueError(f"shape {shape}; expected a volume (x, y, z), or (x, y, z, channels)")
    if image.get_data_dtype().kind not in "iuf":
        raise ValueError(f"holds {image.get_data_dtype()}, expected real numbers")
    grid, channels = Grid(tuple(shape[:3]), image.affine), shape[3] if len(shape) == 4 else 1
    if channels < 1:
        raise ValueError(f"shape {shape} holds nothing")
    check_grid(grid, channels)
    return image, grid, channels


def _is_second(path: str) -> bool:
    """Whether it is NIfTI-2, whose header is 540 bytes long; ValueError when it is no NIfTI at all."""
    import gzip

    with gzip.open(path) if path.lower().endswith(".gz") else open(path, "rb") as file:
        head = file.read(540)
    if len(head) >= 348 and head[344:347] == b"n+1":
        return False
    if len(head) == 540 and head[4:7] == b"n+2":
        return True
    raise ValueError("not a NIfTI file of one part (n+1, n+2), whatever its name says")
