"""What the data of a run were when it began, so that a run is not gone on with on others unnoticed.

data.json holds a checksum of every column (groups, labels, texts, which file each sample has) and a line a file: its
size, the time it was changed, and a checksum of its first and last 64 kB. Of more than HASHED files, those between evenly
spread ones have no checksum; of more than LISTED, they have no line, and only their names count. A file of another size
has changed; one of another time has, unless its checksum holds. So a byte changed in the middle of a large file is seen
by its time alone, and not at all when that was put back.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np

HASHED, LISTED = 2000, 100_000  # files
EDGE = 1 << 16  # bytes
SHOWN = 5  # names that a message lists

Line = Sequence[Any]  # size, time in ns, checksum or None; None for a file that is not there


def fingerprint(dataset) -> dict[str, Any]:
    """columns: name -> checksum; folder: what all files lie under; files: name there -> [size, time, checksum]."""
    paths = sorted({os.path.abspath(path) for path in getattr(dataset, "files", list)()})
    folder = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""
    listed = paths[:: -(-len(paths) // LISTED)] if paths else []
    hashed = set(listed[:: -(-len(listed) // HASHED)]) if listed else set()
    return {
        "columns": _columns(dataset, [os.path.relpath(path, folder) for path in paths]),
        "folder": folder,
        "files": {os.path.relpath(path, folder): _line(path, path in hashed) for path in listed},
    }


def _line(path: str, hashed: bool) -> Line | None:
    try:
        status = os.stat(path)
        return [status.st_size, status.st_mtime_ns, _edges(path, status.st_size) if hashed else None]
    except OSError:
        return None


def _edges(path: str, size: int) -> str | None:
    if os.path.isdir(path):
        return None
    with open(path, "rb") as file:
        text = file.read(EDGE)
        if size > 2 * EDGE:
            file.seek(-EDGE, os.SEEK_END)
        return blake2b(text + file.read(EDGE), digest_size=16).hexdigest()


def _columns(dataset, names: list[str]) -> dict[str, str]:
    found = _contents(dataset)
    found |= {"names of the files": json.dumps(names).encode()} if names else {}
    return {name: blake2b(content, digest_size=16).hexdigest() for name, content in found.items()}


def _contents(dataset) -> dict[str, bytes]:
    """Groups, labels and texts; of the datasets that it is made of, too, numbered from 1."""
    tables = {kind: getattr(dataset, f"{kind}s", {}) for kind in ("group", "label")}
    found = {f"{kind} {name}": np.asarray(c).tobytes() for kind, table in tables.items() for name, c in table.items()}
    texts = {m: _texts(dataset, m, column) for m, column in getattr(dataset, "cells", {}).items()}
    found |= {f"text {m}": json.dumps(text).encode() for m, text in texts.items() if text}
    for number, one in enumerate(getattr(dataset, "made_of", ()), 1):
        found |= {f"{name} of part {number}": content for name, content in _contents(one).items()}
    return found


def _texts(dataset, modality: str, column: Iterable) -> list:
    """The cells that are no files: what is in them is the data."""
    reader = dataset.readers[modality]
    parts = ([cell] if isinstance(cell, str) else cell for cell in column)
    return [[part for part in cell if part and not reader.is_file(part)] for cell in parts]


def differences(then: Mapping[str, Any], dataset) -> list[str]:
    """What of the data is another than in the fingerprint `then`, one entry a kind: `changed: a.wav, b.wav`."""
    now = fingerprint(dataset)
    old, new = then["files"], now["files"]
    kinds = {
        "missing": [name for name in old if name not in new or (new[name] is None and old[name] is not None)],
        "new": [name for name in new if name not in old],
        "changed": [n for n in old.keys() & new.keys() if new[n] is not None and _changed(old[n], new[n], now["folder"], n)],
    }  # fmt: skip
    columns = [name for name in {**then["columns"], **now["columns"]} if then["columns"].get(name) != now["columns"].get(name)]  # fmt: skip
    if kinds["missing"] or kinds["new"]:
        columns = [name for name in columns if name != "names of the files"]
    told = [f"{kind}: {_some(sorted(names))}" for kind, names in kinds.items() if names]
    return told + ([f"other values: {_some(columns)}"] if columns else [])


def _changed(old: Line | None, new: Line, folder: str, name: str) -> bool:
    if old is None or old[0] != new[0]:
        return True
    if old[1] == new[1]:
        return False
    return old[2] is None or old[2] != _edges(os.path.join(folder, name), new[0])


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"
