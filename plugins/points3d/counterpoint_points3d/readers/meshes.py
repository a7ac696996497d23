"""Surfaces from .off, .obj, .ply and .stl files, read by trimesh from memory alone.

No material, texture or other file that a mesh names is ever opened: trimesh gets the bytes and nothing to look them up
with. What its readers pass over (a file cut off, counts that are not met) is checked here.
"""

from __future__ import annotations

import io
import logging
import os
import warnings
from pathlib import Path

import numpy as np

from counterpoint_points3d.readers.cloud import Geometry, check_faces
from counterpoint_points3d.readers.ply import check_counts, ply_header

SUFFIXES = (".off", ".obj", ".ply", ".stl")
MAX_BYTES = 512 << 20  # the largest mesh file; decoded text takes several times as much memory


def read_mesh(path: str, attributes: tuple[str, ...] = ()) -> Geometry:
    """The whole surface in a file, all its parts together, or its points where it has no faces.

    attributes: further values of every point by their names in a .ply. Raises ValueError for what is wrong in it.
    """
    if os.stat(path).st_size > MAX_BYTES:
        raise ValueError(f"too large: {os.stat(path).st_size:,} bytes, expected at most {MAX_BYTES:,}")
    return parse_mesh(Path(path).read_bytes(), Path(path).suffix.lower(), attributes)


def parse_mesh(content: bytes, suffix: str, attributes: tuple[str, ...] = ()) -> Geometry:
    """As `read_mesh`, of the bytes of a file."""
    _BEFORE.get(suffix, lambda content: None)(content)
    parts = _parts(_trimesh(content, suffix))
    if suffix == ".ply":
        return _ply_geometry(parts[0] if parts else {}, content, attributes)
    if not parts:
        raise ValueError(f"holds no mesh: not a {suffix} file, or cut off")
    return _joined(parts)


def _trimesh(content: bytes, suffix: str) -> dict:
    from trimesh.exchange.load import mesh_loaders

    logging.getLogger("trimesh").setLevel(logging.ERROR)  # it warns of the materials that it is told to leave alone
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mesh_loaders[suffix[1:]](
            file_obj=io.BytesIO(content), file_type=suffix[1:], resolver=None, skip_materials=True, fix_texture=False
        )


def _parts(loaded: dict) -> list[dict]:
    parts = list(loaded["geometry"].values()) if "geometry" in loaded else [loaded]
    return [part for part in parts if part.get("vertices") is not None and len(part["vertices"])]


def _joined(parts: list[dict]) -> Geometry:
    vertices = [np.asarray(part["vertices"], dtype=np.float64)[:, :3] for part in parts]
    if all(part.get("faces") is None for part in parts):
        return Geometry(np.concatenate(vertices))
    starts = np.cumsum([0, *(len(v) for v in vertices)])
    faces = []
    for part, own, start in zip(parts, vertices, starts):
        found = _triangles(part.get("faces"))
        check_faces(found, len(own))
        faces.append(found + start)
    return Geometry(np.concatenate(vertices), np.concatenate(faces))


def _triangles(faces) -> np.ndarray:
    """int64 (F, 3): quads and polygons cut into triangles."""
    from trimesh.geometry import triangulate_quads

    if faces is None or not len(faces):
        return np.zeros((0, 3), dtype=np.int64)
    return np.asarray(triangulate_quads(faces), dtype=np.int64).reshape(-1, 3)


def _ply_geometry(part: dict, content: bytes, attributes: tuple[str, ...]) -> Geometry:
    elements = ply_header(content).elements
    if len(part.get("vertices", ())) != elements["vertex"].count:
        raise ValueError(
            f"cut off: {len(part.get('vertices', ()))} vertices, its header says {elements['vertex'].count}"
        )
    faces = part.get("faces")
    if (faces is None or not len(faces)) and "face" in elements and elements["face"].count:
        raise ValueError(f"cut off or damaged: no face can be read, its header says {elements['face'].count}")
    mesh = _joined([part])
    if attributes:
        raw = part["metadata"]["_ply_raw"]["vertex"]["data"]
        columns = [np.asarray(raw[name], dtype=np.float64).reshape(len(mesh.vertices), -1)[:, 0] for name in attributes]
        mesh.values = np.stack(columns, 1)
    return mesh


def check_off(content: bytes) -> None:
    """ValueError unless an .off file begins as one, and has the lines that its counts promise."""
    lines = [line.split(b"#")[0].strip() for line in content.splitlines()]
    lines = [line for line in lines if line]
    head = lines[0].upper() if lines else b""
    place = next((head.find(mark) + len(mark) for mark in (b"COFF", b"OFF") if head.startswith(mark)), None)
    if place is None:
        raise ValueError("not an .off file: it does not begin with OFF")
    rest = lines[0][place:].strip()  # ModelNet40 has files that begin with "OFF490 518 0"
    counts = (rest or (lines[1] if len(lines) > 1 else b"")).split()
    if len(counts) < 2 or not all(number.isdigit() for number in counts[:2]):
        raise ValueError("the counts of vertices and faces are missing or not numbers")
    there, said = len(lines) - (1 if rest else 2), sum(int(number) for number in counts[:2])
    if there < said:
        raise ValueError(f"cut off: {there:,} lines of vertices and faces, its header says {said:,}")


_BEFORE = {".off": check_off, ".ply": check_counts}
