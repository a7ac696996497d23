"""Samples in tar archives: files next to each other whose names agree up to the first dot are one sample.

The layout of WebDataset (Aizman, Maltby and Breuel, "High Performance I/O For Large Scale Deep Learning", 2019,
section III): `000017.jpg`, `000017.txt`, `000017.json`. Nothing is ever unpacked to a name that stands in an archive.
"""

from __future__ import annotations

import gzip
import os
import tarfile
import zlib
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO, NamedTuple

from counterpoint.data.guard import MAX_BYTES, name_of
from counterpoint.data.within import Within
from counterpoint.errors import DataError

SUFFIXES = (".tar", ".tar.gz", ".tgz")
BLOCK = 1 << 16
DAMAGED = (tarfile.TarError, EOFError, OSError, zlib.error, ValueError, OverflowError)


class Span(NamedTuple):
    """Where in a plain archive the content of a file lies, in bytes."""

    offset: int
    size: int


@dataclass
class Record:
    """One sample of an archive: its name there, and its files by their ending, as content, or as where in `file` it lies."""

    archive: str
    key: str
    file: IO[bytes]
    files: dict[str, bytes | Span] = field(default_factory=dict)

    def read(self, ending: str) -> bytes:
        found = self.files[ending]
        if isinstance(found, bytes):
            return found
        try:
            self.file.seek(found.offset)
            content = self.file.read(found.size)
        except DAMAGED as error:
            raise DataError(f"{self.named(ending)}: {error}") from error
        if len(content) < found.size:
            raise DataError(f"{self.named(ending)}: truncated: {len(content):,} of {found.size:,} bytes")
        return content

    def named(self, ending: str) -> str:
        """`train-003.tar/000017.png`."""
        return name_of(f"{os.path.basename(self.archive)}/{self.key}.{ending}")


def is_plain(path: str) -> bool:
    """Whether any place in an archive can be gone to."""
    return path.lower().endswith(".tar")


def read_tar(path: str, wanted: frozenset[str]) -> Generator[Record, None, None]:
    """The samples of an archive, in its order; of a compressed one, with the content of files whose ending is `wanted`.

    Raises DataError for an archive that is damaged or cut off, and for two files of one name.
    """
    with Within(path) as raw, raw if is_plain(path) else gzip.open(raw) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                yield from _records(path, archive, file, wanted)
                _check_end(archive, file)
        except DAMAGED as error:
            raise DataError(f"{name_of(path)}: truncated or damaged ({error})") from error


def _records(
    path: str, archive: tarfile.TarFile, file: IO[bytes], wanted: frozenset[str]
) -> Generator[Record, None, None]:
    current = None
    for member in iter(archive.next, None):
        archive.members.clear()  # it would keep them all
        if not member.isreg() or (split := split_name(member.name)) is None:
            continue
        key, ending = split
        if current is None or key != current.key:
            if current is not None:
                yield current
            current = Record(path, key, file)
        if ending in current.files:
            raise DataError(f"{current.named(ending)}: there are two of that name")
        if member.size > MAX_BYTES:
            raise DataError(
                f"{current.named(ending)}: too large: {member.size:,} bytes, expected at most {MAX_BYTES:,}"
            )
        if member.issparse():
            raise DataError(f"{current.named(ending)}: a sparse file, which is not read; write it without --sparse")
        current.files[ending] = Span(member.offset_data, member.size)
        if ending in wanted and not is_plain(path):
            current.files[ending] = current.read(ending)
    if current is not None:
        yield current


def split_name(name: str) -> tuple[str, str] | None:
    """`a/000017.seg.png` -> (`a/000017`, `seg.png`); None for a hidden file, and for one without an ending."""
    if "//" in name or "./" in name:
        name = str(PurePosixPath(name))  # takes a quarter of the time of counting: for the names that need it
    folder, slash, last = name.rpartition("/")
    stem, _, ending = last.partition(".")
    return (f"{folder}{slash}{stem}", ending.lower()) if stem and ending else None


def _check_end(archive: tarfile.TarFile, file: IO[bytes]) -> None:
    """ValueError unless zeros follow the last file, to the end: tarfile takes damage for the end of an archive."""
    file.seek(archive.offset)
    block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise ValueError("it has no end")
    while block:  # to the last byte, where a compressed archive says its checksum
        if block.strip(b"\0"):
            raise ValueError(f"no file begins at byte {archive.offset:,}, and it is not the end")
        block = file.read(BLOCK)
