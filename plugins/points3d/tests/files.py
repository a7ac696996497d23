"""Tiny real files in every format of the pack, written byte by byte or by the library that owns the format."""

import struct
from pathlib import Path

import numpy as np

VERTICES = np.array(
    [[x, y, z] for x in (0.0, 2.0) for y in (0.0, 1.0) for z in (0.0, 3.0)]
)  # a box of 2 x 1 x 3: vertex 4a + 2b + c
FACES = np.array(
    [
        [0, 1, 3],
        [0, 3, 2],
        [4, 6, 7],
        [4, 7, 5],
        [0, 4, 5],
        [0, 5, 1],
        [2, 3, 7],
        [2, 7, 6],
        [0, 2, 6],
        [0, 6, 4],
        [1, 5, 7],
        [1, 7, 3],
    ]
)
MESHES = ("off", "off_modelnet", "obj", "obj_quads", "ply_ascii", "ply_little", "ply_big", "stl_binary", "stl_ascii")
CLOUDS = ("ply_cloud", "ply_cloud_binary", "las", "xyz", "pts", "npy", "npz", "csv")


def cloud(points: int = 200, seed: int = 0) -> np.ndarray:
    """Points (N, 3) inside the same box."""
    return np.random.default_rng(seed).random((points, 3)) * [2.0, 1.0, 3.0]


def rows(table: np.ndarray, mark: str = " ") -> str:
    return "".join(mark.join(f"{value:.9g}" for value in row) + "\n" for row in table)


def off(vertices=VERTICES, faces=FACES, head: str = "OFF\n") -> bytes:
    text = f"{head}{len(vertices)} {len(faces)} 0\n{rows(vertices)}"
    return (text + "".join(f"{len(face)} {' '.join(map(str, face))}\n" for face in faces)).encode()


def obj(vertices=VERTICES, faces=FACES) -> bytes:
    text = "mtllib ../../secret.mtl\no thing\nusemtl wood\n" + "".join(
        "v " + line for line in rows(vertices).splitlines(True)
    )
    return (text + "".join("f " + " ".join(str(index + 1) for index in face) + "\n" for face in faces)).encode()


def ply(vertices=VERTICES, faces=FACES, kind: str = "ascii", extra: str = "") -> bytes:
    """x, y, z and, for a vertex of more columns, nx, ny, nz and intensity."""
    names = ["x", "y", "z", "nx", "ny", "nz", "intensity"][: vertices.shape[1]]
    head = f"ply\nformat {kind} 1.0\ncomment TextureFile ../secret.png\nelement vertex {len(vertices)}\n"
    head += "".join(f"property float {name}\n" for name in names)
    if faces is not None:
        head += f"element face {len(faces)}\nproperty list uchar int vertex_indices\n"
    head += f"{extra}end_header\n"
    if kind == "ascii":
        body = rows(vertices) + ("" if faces is None else rows(np.column_stack([np.full(len(faces), 3), faces])))
        return (head + body).encode()
    order = "<" if kind == "binary_little_endian" else ">"
    body = vertices.astype(f"{order}f4").tobytes()
    for face in () if faces is None else faces:
        body += struct.pack(f"{order}B3i", 3, *face)
    return head.encode() + body


def stl(vertices=VERTICES, faces=FACES) -> bytes:
    body = b"".join(struct.pack("<12fH", 0, 0, 0, *vertices[face].ravel(), 0) for face in faces)
    return b"made by a test".ljust(80) + struct.pack("<I", len(faces)) + body


def stl_text(vertices=VERTICES, faces=FACES) -> bytes:
    facet = lambda face: "".join(f"vertex {line}" for line in rows(vertices[face]).splitlines(True))  # noqa: E731
    loops = "".join(f"facet normal 0 0 0\nouter loop\n{facet(face)}endloop\nendfacet\n" for face in faces)
    return f"solid thing\n{loops}endsolid thing\n".encode()


def las(path: Path, points: np.ndarray, offset=(0.0, 0.0, 0.0)) -> None:
    import laspy

    header = laspy.LasHeader(point_format=3, version="1.2")
    header.scales, header.offsets = np.full(3, 1e-4), np.array(offset)
    data = laspy.LasData(header)
    data.x, data.y, data.z = points.T + np.array(offset)[:, None]
    data.intensity = np.arange(len(points)) % 65536
    data.write(str(path))


def quads() -> list[list[int]]:
    return [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]


def write(folder: Path, kind: str, name: str = "thing", points: int = 200, seed: int = 0) -> str:
    """A file of one kind in `folder`; meshes are the box, clouds are points inside it."""
    path = folder / f"{name}.{kind.split('_')[0]}"
    inside = cloud(points, seed)
    if kind in ("las", "npy", "npz"):
        {"las": las, "npy": np.save, "npz": np.savez}[kind](path, inside.astype(np.float64))
        return str(path)
    content = {
        "off": off,
        "off_modelnet": lambda: off(head="OFF"),
        "obj": obj,
        "obj_quads": lambda: obj(faces=quads()),
        "ply_ascii": ply,
        "ply_little": lambda: ply(kind="binary_little_endian"),
        "ply_big": lambda: ply(kind="binary_big_endian"),
        "stl_binary": stl,
        "stl_ascii": stl_text,
        "ply_cloud": lambda: ply(inside, None),
        "ply_cloud_binary": lambda: ply(inside, None, "binary_little_endian"),
        "xyz": lambda: ("X Y Z\n" + rows(inside)).encode(),
        "pts": lambda: (f"{points}\n" + rows(inside)).encode(),
        "csv": lambda: ("x,y,z\n" + rows(inside, ",")).encode(),
    }[kind]()
    path.write_bytes(content)
    return str(path)
