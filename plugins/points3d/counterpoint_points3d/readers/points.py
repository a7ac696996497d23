"""The reader of point clouds and surfaces.

Dimensions: C channels, P points.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoint.data import numbers
from counterpoint.data.guard import check_array, check_file
from counterpoint.data.reader import Reader
from counterpoint.errors import ComponentError, suggest
from counterpoint_points3d.readers import meshes
from counterpoint_points3d.readers.cloud import Geometry, check_finite, chosen, sampled
from counterpoint_points3d.readers.ply import LONGEST, ply_header
from counterpoint_points3d.readers.surveys import las_count, read_las, read_rows

LAS, ROWS = (".las", ".laz"), (".xyz", ".pts")
LEAST = 4  # points that make a shape
WIDEST = 64  # values of a point; more columns than that are the points themselves


class Points(Reader):
    """Clouds as float32 (C, P): x, y, z and what follows them; surfaces are sampled, uniformly over their area.

    Surfaces: .off, .obj, .stl, .ply with faces. Clouds: .ply and .obj without faces, .las, .laz, .xyz, .pts, and tables
    (points, 3 or more values) in .npy, .npz, .csv, .tsv, .txt and .parquet files.

    points      P: drawn anew at every reading; a cloud of fewer comes as it is, and is masked in a batch. None: the whole
                cloud; a surface needs a number
    normals     surfaces give the unit normals of their faces as channels 4 to 6; of a .ply cloud they are nx, ny, nz; of
                a table, the three columns after x, y, z are said to be normals
    attributes  names of further values of .ply and .las points, which follow as channels (intensity, red, ...)
    center      the middle of the box becomes the origin, in double precision before all else: coordinates of a survey
                do not fit float32
    key         name of the array in a .npz

    Raises DataError for a file that is cut off or of another format, NaN, faces that name no vertex, a surface without
    area, points that are all one, and for other channels than most files have.
    """

    suffixes = (*meshes.SUFFIXES, *LAS, *ROWS, *numbers.SUFFIXES)
    headless = (*ROWS, *numbers.HEADLESS)

    def __init__(
        self,
        *,
        points: int | None = 1024,
        normals: bool = False,
        attributes: tuple[str, ...] = (),
        center: bool = True,
        key: str | None = None,
    ):
        if points is not None and points < LEAST:
            raise ComponentError(f"reader 'points3d.points': points is {LEAST} or more, or null; got {points}")
        self.points, self.normals, self.attributes = points, normals, tuple(attributes)
        self.center, self.key = center, key
        self.channels: int | None = None

    def given(self) -> dict[str, Any]:
        return {"normals": self.normals}

    def facts(self, path: str) -> dict[str, Any]:
        check_file(path)
        suffix = Path(path).suffix.lower()
        channels = 3 + 3 * self.normals + len(self.attributes)
        if suffix in numbers.SUFFIXES:
            count, channels = self._table_shape(numbers.shape_of(path, self.key))
        elif suffix in ROWS:
            count, channels = self._table_shape(read_rows(path).shape)
        elif suffix in LAS:
            count = las_count(path)
        elif suffix == ".ply":
            count = self._ply_count(path)
        else:
            count = None  # whether an .obj has faces is known only after reading it
        return {"channels": channels, "length": self._length(count, suffix)}

    def expect(self, facts: dict[str, Any]) -> None:
        self.channels = facts["channels"]

    def read(self, path: str) -> Tensor:
        check_file(path)
        cloud = self._cloud(path)  # float64 (P, C)
        check_finite(cloud)
        if self.center:
            cloud[:, :3] -= (cloud[:, :3].min(0) + cloud[:, :3].max(0)) / 2
        with np.errstate(over="ignore"):  # what does not fit in float32 is infinite, and refused for that
            array = np.ascontiguousarray(cloud.T, dtype=np.float32)
        check_array(array, path, shape=(self.channels, None), min_length=LEAST, constant=True)
        check_array(array[:3] - array[:3, :1], path)  # points that are all one are constant
        return torch.from_numpy(array)

    def _cloud(self, path: str) -> np.ndarray:
        suffix = Path(path).suffix.lower()
        if suffix in numbers.SUFFIXES or suffix in ROWS:
            table = np.asarray(read_rows(path) if suffix in ROWS else numbers.read(path, self.key), dtype=np.float64)
            self._table_shape(table.shape)
            check_finite(table)  # of the whole file: whether it is bad must not depend on which points are drawn
            return table[chosen(len(table), self.points)].copy()
        if suffix in LAS:
            return self._with_values(read_las(path, self.points, self.attributes), slice(None))
        mesh = meshes.read_mesh(path, self._ply_names(path) if suffix == ".ply" else ())
        if mesh.faces is None:
            check_finite(mesh.vertices)
            return self._with_values(mesh, chosen(len(mesh.vertices), self.points))
        return self._surface(mesh)

    def _surface(self, mesh: Geometry) -> np.ndarray:
        if self.points is None:
            raise ValueError("is a surface: say how many points to draw from it, `points: 1024` of its reader")
        if self.attributes:
            raise ValueError(f"is a surface, whose points have no attributes ({', '.join(self.attributes)})")
        points, normals = sampled(mesh, self.points)
        return np.concatenate([points, normals], 1) if self.normals else points

    def _with_values(self, cloud: Geometry, rows) -> np.ndarray:
        if self.normals and (cloud.values is None or cloud.values.shape[1] < 3):
            raise ValueError("is a cloud without normals; leave `normals` out of its reader")
        parts = [cloud.vertices, *([] if cloud.values is None else [cloud.values])]
        return np.concatenate([part[rows] for part in parts], 1)

    def _ply_names(self, path: str) -> tuple[str, ...]:
        """The values that the vertices of a .ply are asked for; none where it has faces."""
        with open(path, "rb") as file:
            header = ply_header(file.read(LONGEST))
        if "face" in header.elements and header.elements["face"].count:
            return ()
        there = header.elements["vertex"].properties
        asked = (*(("nx", "ny", "nz") if self.normals else ()), *self.attributes)
        for name in asked:
            if name not in there:
                raise ValueError(f"its points have no {name!r}{suggest(name, there)}")
        return asked

    def _ply_count(self, path: str) -> int | None:
        self._ply_names(path)
        with open(path, "rb") as file:
            elements = ply_header(file.read(LONGEST)).elements
        return None if "face" in elements and elements["face"].count else elements["vertex"].count

    def _table_shape(self, shape: tuple[int, ...]) -> tuple[int, int]:
        least = 6 if self.normals else 3
        if len(shape) != 2 or not least <= shape[1] <= WIDEST:
            turned = "; it looks like (values, points): turn it" if len(shape) == 2 and shape[0] < 10 < shape[1] else ""
            raise ValueError(f"shape {tuple(shape)}, expected (points, {least} to {WIDEST} values){turned}")
        return shape[0], shape[1]

    def _length(self, count: int | None, suffix: str) -> int | None:
        if count is None:
            return None if suffix == ".obj" else self.points
        return count if self.points is None else min(count, self.points)
