"""ModelNet, as it is unpacked: a folder a class, in it train and test, in them .off files."""

from __future__ import annotations

import os
from pathlib import Path

from counterpoint.data.files import Files, from_columns
from counterpoint.data.guard import fault_of, name_of
from counterpoint.errors import DataError
from counterpoint_points3d.readers.points import Points


def modelnet(*, path: str, split: str = "train", points: int = 1024, normals: bool = False) -> Files:
    """The models under `path`/<class>/<train or test>/*.off: modality "shape", float32 (3 or 6, points).

    Label "class": the name of the first folder; splits are those of the folders. points: drawn from the surface anew at
    every reading. normals: unit normals of the faces as channels 4 to 6. Models are as large as their files say, with the
    middle of their box at the origin. ModelNet40's z axis points up: rotate with `up: z`.
    Raises DataError when there is no such file. Source: Wu et al., "3D ShapeNets", CVPR 2015, section 5.
    """
    top = Path(path).expanduser()
    if not top.is_dir():
        raise DataError(f"{name_of(top)}: {fault_of(top) or 'is a file, not a directory'}")
    found = sorted(
        (file.relative_to(top) for file in top.glob("*/*/*") if file.suffix.lower() == ".off" and file.name[0] != "."),
        key=os.fsencode,
    )
    if not found:
        raise DataError(f"{name_of(top)}: no file is called <class>/<split>/<name>.off")
    return from_columns(
        cells={"shape": [os.path.join(top, file) for file in found]},
        readers={"shape": Points(points=points, normals=normals)},
        labels={"class": [file.parts[0] for file in found]},
        splits=[file.parts[1] for file in found],
        split=split,
        where=name_of(top),
    )
