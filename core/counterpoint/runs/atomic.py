"""Files that a reader sees whole or not at all: written beside their name, synced, then renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from counterpoint.errors import RunError


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of `path` at the end of the block; RunError when it cannot be written.

    Whatever happens inside, what stood under the name before stands there still, and nothing is left beside it.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # else the name can be on the disk before the bytes are
        os.replace(part, path)
        _sync_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise RunError(cannot_write(path, error)) from None
        raise


def write(path: Path, text: str) -> None:
    """Replace a small text file."""
    with replacing(path) as file:
        file.write(text.encode("utf-8"))


def cannot_write(path: Path, error: Exception) -> str:
    """One line: the file, the reason, and the room that is left where it should stand."""
    return f"cannot write {path}: {getattr(error, 'strerror', None) or error}; {_free(path.parent)}"


def _free(folder: Path) -> str:
    try:
        return f"{megabytes(shutil.disk_usage(folder).free)} are free there"
    except OSError as error:
        return f"{folder}: {error.strerror}"


def megabytes(size: float) -> str:
    """`40 MB`: millions of bytes, as disks are counted."""
    return f"{size / 1e6:.0f} MB" if size >= 1e7 else f"{size / 1e6:.2g} MB"


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(folder: Path) -> list[Path]:
    """Take away what writes that were cut off have left in a folder; their final names."""
    found = []
    for part in sorted(folder.glob(".*.part")):
        with suppress(OSError):
            part.unlink()
            found.append(part.with_name(part.name[1 : -len(".part")]))
    return found
