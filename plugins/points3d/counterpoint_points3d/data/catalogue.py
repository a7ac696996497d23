"""Furniture libraries of Sweet Home 3D: zips (.sh3f) of models and of one table of what they are.

The table, PluginFurnitureCatalog.properties, has lines `key#number=value`. Members are read into memory by their exact
names and never unpacked to a disk.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from counterpoint_points3d.readers.cloud import Geometry
from counterpoint_points3d.readers.meshes import MAX_BYTES, parse_mesh

TABLE = "PluginFurnitureCatalog.properties"
LIBRARIES = frozenset({"Blend Swap", "Scopia", "Kator Legaz", "Reallusion", "SCPTS"})  # tags that only say who made it
UNTURNED = "1 0 0 0 1 0 0 0 1"

_LINE = re.compile(r"(\w+)#(\d+)\s*=\s*(.*)")
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")


@dataclass(frozen=True)
class Piece:
    """A model of a library. tags: without the library's; size: width (x), height (y), depth (z) in metres."""

    library: str
    model: str
    name: str
    tags: tuple[str, ...]
    category: str
    size: tuple[float, float, float]
    rotation: tuple[float, ...]


def libraries(folder: Path) -> list[Path]:
    """The .sh3f files of a folder, in the order of their names."""
    return sorted(folder.glob("*.sh3f"), key=lambda path: path.name)


def pieces(library: Path) -> list[Piece]:
    """The models of one library, in the order of their numbers; ValueError when its table lacks something."""
    with zipfile.ZipFile(library) as archive:
        rows = _rows(member(archive, TABLE).decode("latin-1"))
    return [_piece(library.name, number, rows[number]) for number in sorted(rows)]


def _rows(text: str) -> dict[int, dict[str, str]]:
    rows: dict[int, dict[str, str]] = {}
    for line in text.splitlines():
        if match := _LINE.match(line.strip()):
            value = _ESCAPE.sub(
                lambda found: chr(int(found[1], 16)), match[3].strip()
            )  # as java writes what is not Latin 1
            rows.setdefault(int(match[2]), {})[match[1]] = value
    return rows


def _piece(library: str, number: int, row: dict[str, str]) -> Piece:
    try:
        tags = tuple(tag for part in row.get("tags", "").split(",") if (tag := part.strip()) and tag not in LIBRARIES)
        size = tuple(float(row[side]) / 100 for side in ("width", "height", "depth"))  # the table has centimetres
        rotation = tuple(float(cell) for cell in row.get("modelRotation", UNTURNED).split())
        return Piece(library, row["model"].lstrip("/"), row["name"], tags, row["category"], size, rotation)
    except KeyError as error:
        raise ValueError(f"{library}: model {number} has no {error.args[0]}") from error


def surfaces(library: Path) -> Iterator[Geometry]:
    """The surface of every piece, y up, in metres, the middle of its box at the origin, as large as the table says."""
    with zipfile.ZipFile(library) as archive:
        for piece in pieces(library):
            try:
                yield placed(parse_mesh(member(archive, piece.model), ".obj"), piece)
            except ValueError as error:
                raise ValueError(f"{library.name}: {piece.model}: {error}") from error


def placed(mesh: Geometry, piece: Piece) -> Geometry:
    """The mesh turned as its library says, and its box brought to its size: models are in many units."""
    vertices = mesh.vertices @ np.array(piece.rotation).reshape(3, 3).T
    used = vertices[np.unique(mesh.faces)]
    low, high = used.min(0), used.max(0)
    factor = np.array(piece.size) / np.maximum(high - low, 1e-9)
    return Geometry((vertices - (low + high) / 2) * factor, mesh.faces)


def member(archive: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of one member; ValueError when there is none, or when it is too large to be a model."""
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise ValueError(f"holds no {name}") from None
    if info.file_size > MAX_BYTES:
        raise ValueError(f"{name}: too large: {info.file_size:,} bytes, expected at most {MAX_BYTES:,}")
    return archive.read(info)
