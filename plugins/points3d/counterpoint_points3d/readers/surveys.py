"""Clouds of surveys and scanners: .las and .laz by laspy, rows of numbers in .xyz and .pts files.

Dimensions: N points, A attributes.
"""

from __future__ import annotations

import os
import struct
import warnings

import numpy as np

from counterpoint.data.within import Within
from counterpoint.errors import suggest
from counterpoint_points3d.readers.cloud import Geometry, chosen

_HEAD = struct.Struct("<4s90xHII")  # signature, ..., size of the header, where the points begin, records before them
_RECORD = 54  # bytes that one takes at least
CHUNK = 1 << 20  # points decoded at a time


def las_count(path: str) -> int:
    """How many points a .las or .laz says that it has, checked against the file's size where it is not compressed."""
    with _opened(path) as file:
        return _count(file.header, path)


def read_las(path: str, wanted: int | None, attributes: tuple[str, ...]) -> Geometry:
    """`wanted` random points of a .las or .laz, x, y, z in its unit; in memory there is never more than a chunk beyond them.

    attributes: further dimensions by name (intensity, red, classification, ...).
    """
    with _opened(path) as file:
        _check_names(attributes, list(file.header.point_format.dimension_names))
        count = _count(file.header, path)
        picked = chosen(count, wanted)
        picked = np.arange(count) if isinstance(picked, slice) else picked
        rows, start = [], 0
        for chunk in file.chunk_iterator(CHUNK):
            here = picked[(picked >= start) & (picked < start + len(chunk))] - start
            values = [np.asarray(chunk[name], dtype=np.float64)[here] for name in ("x", "y", "z", *attributes)]
            rows.append(np.stack(values, 1))
            start += len(chunk)
    if start < count:
        raise ValueError(f"cut off: {start:,} points, its header says {count:,}")
    table = np.concatenate(rows)
    return Geometry(table[:, :3], None, table[:, 3:] if attributes else None)


def _opened(path: str):
    import laspy

    _check_records(path)
    try:
        file = laspy.open(Within(path), read_evlrs=False)
    except laspy.errors.LaspyException as error:
        raise ValueError(f"not a readable .las or .laz file: {error}") from error
    if file.header.are_points_compressed and not laspy.LazBackend.detect_available():
        file.close()
        raise ValueError("its points are compressed: pip install 'counterpoint-points3d[laz]'")
    return file


def _check_records(path: str) -> None:
    """ValueError for more records before the points than there is room for: laspy would look for each of them.

    Source: ASPRS, "LAS specification 1.4", R15, table 3.
    """
    with open(path, "rb") as file:
        head = file.read(_HEAD.size)
    if len(head) < _HEAD.size or head[:4] != b"LASF":
        raise ValueError("not a .las or .laz file, whatever its name says")
    _, length, points, records = _HEAD.unpack(head)
    if length + records * _RECORD > points or points > os.stat(path).st_size:
        raise ValueError(
            f"damaged: {records:,} records of at least {_RECORD} bytes between byte {length:,} and {points:,}"
        )


def _count(header, path: str) -> int:
    count, size = int(header.point_count), os.stat(path).st_size
    needs = header.offset_to_point_data + count * header.point_format.size
    if not header.are_points_compressed and needs > size:
        raise ValueError(f"cut off: {size:,} bytes, its header says {count:,} points, {needs:,} bytes")
    if not count:
        raise ValueError("holds no point")
    return count


def _check_names(attributes: tuple[str, ...], there: list[str]) -> None:
    for name in attributes:
        if name not in there:
            raise ValueError(f"holds no attribute {name!r}{suggest(name, there)}")


def read_rows(path: str) -> np.ndarray:
    """The numbers (N, 3 or more) of an .xyz or .pts: a row a point, by white space or commas.

    A first line of words names the columns and is passed over; a first line of one number is the count of the points,
    which must be right.
    """
    first, skip = _first(path)
    said = int(first[0]) if len(first) == 1 and first[0].isdigit() else None
    words = any(not _is_number(cell) for cell in first)
    with open(path, encoding="utf-8-sig") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lines = (line.replace(",", " ").replace(";", " ") for line in file)
        table = np.loadtxt(lines, comments=("#", "//"), skiprows=skip + (words or said is not None), ndmin=2)
    if said is not None and said != len(table):
        raise ValueError(f"cut off or damaged: {len(table):,} points, its first line says {said:,}")
    return table


def _first(path: str) -> tuple[list[str], int]:
    """The cells of the first line that says something, and how many lines stand before it."""
    with open(path, encoding="utf-8-sig") as file:
        for skip, line in enumerate(file):
            if line.strip() and not line.startswith(("#", "//")):
                return line.replace(",", " ").replace(";", " ").split(), skip
    raise ValueError("holds no numbers")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
