"""What a file of points or of a surface holds, and points drawn from it.

Dimensions: V vertices, F faces, N points, A further values of every point.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Geometry:
    """vertices float64 (V, 3); faces int64 (F, 3), or None for a cloud of points; values float (V, A), further channels."""

    vertices: np.ndarray
    faces: np.ndarray | None = None
    values: np.ndarray | None = None


def generator() -> np.random.Generator:
    """A generator seeded by numpy's global one, which the loop seeds for every sample."""
    return np.random.default_rng(np.random.randint(0, 1 << 31, 4))


def chosen(count: int, wanted: int | None) -> np.ndarray | slice:
    """Positions in ascending order of `wanted` of `count` points without replacement; all where there are no more."""
    if wanted is None or count <= wanted:
        return slice(None)
    return np.sort(generator().choice(count, wanted, replace=False))


def sampled(mesh: Geometry, count: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` points float64 (N, 3), uniform over the surface, and the unit normals (N, 3) of the faces they are on.

    Raises ValueError for faces that name no vertex, for values that are not finite, and for a surface without area.
    Source: Osada et al., "Shape distributions", ACM TOG 21 (2002), section 4.1, with the triangle folded.
    """
    check_surface(mesh)
    corner = mesh.vertices[mesh.faces]  # (F, 3, 3)
    sides = corner[:, 1:] - corner[:, :1]  # (F, 2, 3)
    normal = np.cross(sides[:, 0], sides[:, 1])
    twice = np.linalg.norm(normal, axis=1)  # twice the area of every face
    total = twice.cumsum()
    if not np.isfinite(total[-1]) or total[-1] <= 0.0:
        raise ValueError(f"its {len(twice)} faces have no area to draw points from")
    random = generator()
    face = np.searchsorted(total, random.random(count) * total[-1], side="right").clip(max=len(total) - 1)
    along = random.random((count, 2))
    along = np.where(along.sum(1, keepdims=True) > 1.0, 1.0 - along, along)
    points = corner[face, 0] + (along[:, :, None] * sides[face]).sum(1)
    return points, normal[face] / np.maximum(twice[face], np.finfo(float).tiny)[:, None]


def check_surface(mesh: Geometry) -> None:
    """ValueError for faces out of range, and for coordinates that are NaN or infinite."""
    check_finite(mesh.vertices)
    if not len(mesh.faces):
        raise ValueError("holds no face")
    check_faces(mesh.faces, len(mesh.vertices))


def check_faces(faces: np.ndarray, count: int) -> None:
    """ValueError for a face that names a vertex which is not one of `count`."""
    low, high = (int(faces.min()), int(faces.max())) if len(faces) else (0, -1)
    if low < 0 or high >= count:
        raise ValueError(f"a face names vertex {low if low < 0 else high}, there are {count} (numbered from 0)")


def check_finite(vertices: np.ndarray) -> None:
    bad = ~np.isfinite(vertices).all(1)
    if bad.any():
        raise ValueError(
            f"{int(bad.sum())} of {len(bad)} points have NaN or infinite coordinates, the first is {int(bad.argmax())}"
        )
