"""The reader of DICOM: a folder with the slices of one series as a volume, or one file as an image."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from counterpoint.data.guard import MAX_BYTES, check_array, check_file, name_of, one_line, reading
from counterpoint.data.within import Within
from counterpoint_medical.readers.volume import Grid, Volume, check_grid

GAP = 0.05  # part of the usual distance by which the distance of two slices may differ from it
SUFFIXES = (".dcm", ".dicom", ".ima")


class Dicom(Volume):
    """A DICOM series as float32 (1, D, H, W), turned as `medical.nifti` does; a single file as (1, H, W).

    A cell of the table is a folder of slices (files directly in it; hidden files, DICOMDIR and files that neither are nor
    claim to be DICOM are passed over) or one file. Intensities are stored values times RescaleSlope plus
    RescaleIntercept, each slice by its own: Hounsfield units for CT. Slices are sorted by their position along the normal.
    MONOCHROME1 radiographs are inverted, so that bone is bright.
    spacing, size  as in `medical.nifti`, for series; size of a single file: an image is left as it is
    window         intensities that become 0 and 1: [-160, 240] for soft tissue, [-1000, 400] for lung

    Raises ValueError for a folder with several series, slices that differ in shape, orientation or spacing, doubled or
    missing slices, colours, several frames in a file, and pixels that are missing, constant or too many for memory.
    """

    suffixes: ClassVar[tuple[str, ...]] = ("", *SUFFIXES)
    directories: ClassVar[bool] = True
    who: ClassVar[str] = "reader 'medical.dicom'"

    def facts(self, path: str) -> dict[str, Any]:
        if os.path.isdir(path):
            grid, _ = _series(path)
            return self.described(grid, 1)
        header = _image_header(path)
        return {"channels": 1, "spatial_dims": 2, "shape": (header.Rows, header.Columns), "spacing": None}

    def read(self, path: str) -> Tensor:
        if not os.path.isdir(path):
            return self._image(path)
        grid, files = _series(path)
        slices = np.empty((len(files), *grid.shape[1:]), np.float32)
        for place, file in zip(slices, files):
            with reading(file):
                place[:] = _pixels(file)
        return self.finished(slices[..., None], grid, path)

    def _image(self, path: str) -> Tensor:
        _image_header(path)
        array = _pixels(path)
        check_array(array, path)
        image = torch.from_numpy(array)[None]
        if self.window is None:
            return image
        low, high = self.window
        return ((image - low) / (high - low)).clamp(0.0, 1.0)


def _header(path: str):
    """What one file says but its pixels; ValueError for what cannot be one slice."""
    check_file(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that break the standard's rules, as many do
        header = _parsed(path, stop_before_pixels=True)
    _require(header, "Rows", "Columns")
    if header.get("SamplesPerPixel", 1) != 1 or not str(
        header.get("PhotometricInterpretation", "MONOCHROME2")
    ).startswith("MONO"):
        raise ValueError(f"colours ({header.get('PhotometricInterpretation')}), expected one grey value a pixel")
    if (frames := int(header.get("NumberOfFrames") or 1)) > 1:
        raise ValueError(f"{frames} frames in one file; expected a file a slice")
    if (size := 4 * header.Rows * header.Columns) > MAX_BYTES or not size:
        raise ValueError(f"{header.Rows} x {header.Columns} pixels, expected 1 to {MAX_BYTES // 4:,}")
    return header


def _image_header(path: str):
    """The header of a file that is an image by itself."""
    header = _header(path)
    if min(header.Rows, header.Columns) < 2:
        raise ValueError(f"{header.Rows} x {header.Columns} pixels, expected 2 or more a side")
    return header


def _parsed(path: str, *, stop_before_pixels: bool = False):
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    try:
        with Within(path) as file:
            return dcmread(file, stop_before_pixels=stop_before_pixels)
    except InvalidDicomError as error:
        raise ValueError("not a DICOM file, whatever its name says") from error


def _require(header, *names: str) -> None:
    missing = [name for name in names if header.get(name) is None]
    if missing:
        raise ValueError(f"truncated, or no image: it has no {', '.join(missing)}")


def _pixels(path: str) -> np.ndarray:
    """float32 (H, W) in the unit that the slice's rescaling gives."""
    _header(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        slice_ = _parsed(path)
        if "PixelData" not in slice_:
            raise ValueError("truncated, or no image: it has no PixelData")
        stored = slice_.pixel_array.astype(np.float32)
    if stored.shape != (slice_.Rows, slice_.Columns):
        raise ValueError(f"pixels of shape {stored.shape}, its header says {(slice_.Rows, slice_.Columns)}")
    value = stored * float(slice_.get("RescaleSlope") or 1) + float(slice_.get("RescaleIntercept") or 0)
    if slice_.get("PhotometricInterpretation") == "MONOCHROME1":
        value = value.max() + value.min() - value
    return value.astype(np.float32)


def _series(folder: str) -> tuple[Grid, list[str]]:
    """How the volume of a folder lies, slices first, and its files from the first slice to the last."""
    files = _files(folder)
    headers = []
    for file in files:
        with reading(file):
            headers.append(_header(file))
            _require(headers[-1], "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    _check_alike(headers, files)
    direction = np.array(headers[0].ImageOrientationPatient, dtype=float).reshape(2, 3)  # of a row, of a column
    normal = np.cross(*direction)
    depth = np.array([np.dot(normal, np.array(h.ImagePositionPatient, dtype=float)) for h in headers])
    order = np.argsort(depth, kind="stable")
    step = _step(depth[order], [files[i] for i in order])
    first = headers[order[0]]
    between_rows, between_columns = (float(mm) for mm in first.PixelSpacing)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([normal * step, direction[1] * between_rows, direction[0] * between_columns], axis=1)
    affine[:3, 3] = np.array(first.ImagePositionPatient, dtype=float)
    affine[:2] *= -1  # DICOM's x and y point to the left and to the back
    grid = Grid((len(files), int(first.Rows), int(first.Columns)), affine)
    check_grid(grid, 1)
    return grid, [files[i] for i in order]


def _files(folder: str) -> list[str]:
    names = sorted(name for name in os.listdir(folder) if not name.startswith(".") and name.upper() != "DICOMDIR")
    paths = [os.path.join(folder, name) for name in names]
    found = [path for path in paths if os.path.isfile(path) and (path.lower().endswith(SUFFIXES) or _is_dicom(path))]
    if len(found) < 2:
        raise ValueError(f"{len(found)} DICOM files directly in this folder, expected the slices of a series")
    return found


def _is_dicom(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def _check_alike(headers: Sequence, files: Sequence[str]) -> None:
    """ValueError when the slices are of several series, or differ in what the slices of one have in common."""
    series = Counter(str(h.get("SeriesInstanceUID")) for h in headers)
    if len(series) > 1:
        raise ValueError(
            f"slices of {len(series)} series ({', '.join(f'{n} files' for n in series.values())}); expected one series a folder"
        )
    for name in ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient", "PhotometricInterpretation"):
        values = [np.ravel(h.get(name)) for h in headers]
        numeric = name != "PhotometricInterpretation"
        alike = [
            np.allclose(v.astype(float), values[0].astype(float), atol=1e-3) if numeric else str(v) == str(values[0])
            for v in values
        ]
        if not all(alike):
            odd = alike.index(False)
            raise ValueError(
                f"{name_of(os.path.basename(files[odd]))}: {name} {one_line(str(values[odd].tolist()))}, "
                f"the first slice has {one_line(str(values[0].tolist()))}"
            )


def _step(depth: np.ndarray, files: Sequence[str]) -> float:
    """mm from slice to slice; ValueError for slices at one place, or gaps."""
    steps = np.diff(depth)
    usual = float(np.median(steps))
    if (doubled := np.flatnonzero(steps < 1e-3)).size:
        pair = [name_of(os.path.basename(files[i])) for i in (doubled[0], doubled[0] + 1)]
        raise ValueError(f"{pair[0]} and {pair[1]} are at the same place ({depth[doubled[0]]:.2f} mm)")
    if (odd := np.flatnonzero(np.abs(steps - usual) > GAP * usual)).size:
        at = int(odd[0])
        raise ValueError(
            f"slices are missing: {steps[at]:.2f} mm from {name_of(os.path.basename(files[at]))} to the next, elsewhere {usual:.2f} mm"
        )
    return float(steps.mean())
