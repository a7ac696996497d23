"""A checkpoint file with a checksum of all of it, which also says whose it is: a torch archive with a comment.

    PK.. records .. end of archive | counterpoint {"run": "pairs-1", ...} 64 hexadecimal digits

The comment of a zip archive is the last thing in it, so that the checksum (BLAKE2b) covers every byte before itself,
headers and directory included; torch reads the file as any other. CRCs of records are used to say where it is damaged.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import torch

from counterpoint.errors import RunError

END, DIGITS = 22, 64  # bytes of a zip archive's last record without its comment; of the checksum in hexadecimal
MARK, LAST = b"counterpoint ", b"PK\5\6"
LONGEST = 4096  # of the comment
CHUNK = 1 << 20


class _Sealing:
    """A file for torch.save that hashes what passes and holds the last record back, which is written with the comment."""

    def __init__(self, file: BinaryIO):
        self.file, self.digest, self.held = file, blake2b(digest_size=DIGITS // 2), b""

    def write(self, data) -> int:
        data = memoryview(data).cast("B")
        if len(data) < END:
            self.held += bytes(data)
            self._pass(self.held[:-END])
        else:
            self._pass(self.held)
            self._pass(data[:-END])
            self.held = bytes(data[-END:])
        self.held = self.held[-END:]
        return len(data)

    def _pass(self, data) -> None:
        self.digest.update(data)
        self.file.write(data)

    def flush(self) -> None:
        """The last record comes at the end."""

    def close(self, facts: Mapping[str, Any]) -> None:
        comment = MARK + json.dumps(facts).encode() + b" "
        length = len(comment) + DIGITS
        if self.held[:4] != LAST or length > LONGEST:
            raise RunError(f"a checkpoint cannot be sealed: torch's archive ends otherwise, or {facts} is too long")
        self._pass(self.held[:-2] + length.to_bytes(2, "little") + comment)
        self.file.write(self.digest.hexdigest().encode())


def save(checkpoint: Mapping[str, Any], file: BinaryIO, facts: Mapping[str, Any]) -> None:
    """Write a checkpoint and its seal; facts: small and plain."""
    sealing = _Sealing(file)
    torch.save(checkpoint, sealing)
    sealing.close(facts)


def verify(path: Path) -> dict[str, Any]:
    """The facts in a checkpoint's seal; RunError, which says what is wrong with the file, unless the seal holds."""
    try:
        with path.open("rb") as file:
            facts = _checked(path, file)
    except FileNotFoundError:
        raise RunError(f"{path}: there is no such checkpoint") from None
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror})") from None
    _check_entries(path)
    return facts


def _checked(path: Path, file: BinaryIO) -> dict[str, Any]:
    size = os.fstat(file.fileno()).st_size
    if size == 0:
        raise RunError(f"{path} is damaged (empty)")
    if file.read(4) != b"PK\3\4":
        raise RunError(f"{path} is no checkpoint, or damaged from its first byte")
    file.seek(-min(size, LONGEST + END), os.SEEK_END)
    tail = file.read()
    start = tail.rfind(LAST)
    comment = tail[start + END :]
    stands = start >= 0 and int.from_bytes(tail[start + END - 2 : start + END], "little") == len(comment)
    if not stands or not comment.startswith(MARK):
        raise RunError(f"{path} is damaged ({_record_of(path) or 'incomplete'})")
    if _digest(file, size - DIGITS) != comment[-DIGITS:]:
        raise RunError(f"{path} is damaged ({_record_of(path) or 'its checksum does not hold'})")
    return json.loads(comment[len(MARK) : -DIGITS])


def _digest(file: BinaryIO, length: int) -> bytes:
    digest = blake2b(digest_size=DIGITS // 2)
    file.seek(0)
    while length > 0:
        chunk = file.read(min(CHUNK, length))
        if not chunk:
            break
        digest.update(chunk)
        length -= len(chunk)
    return digest.hexdigest().encode()


def _record_of(path: Path) -> str:
    """`crc of data/3`: the first record whose own checksum does not hold, as far as the archive can be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except Exception:  # zipfile raises whatever a damaged header makes of it
        return ""
    return "" if bad is None else f"crc of {bad.partition('/')[2] or bad}"


def _check_entries(path: Path) -> None:
    """Refuse an archive that torch did not write: records that grow when they are read, or with names of paths."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception as error:
        raise RunError(f"{path} is damaged ({error})") from None
    room = path.stat().st_size
    for entry in entries:
        parts = entry.filename.split("/")
        room -= entry.file_size
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size or room < 0:
            raise RunError(f"{path}: refused: {entry.filename!r} would be larger when it is read than in the file")
        if ".." in parts or "" in parts or any(c in entry.filename for c in "\\:\0"):
            raise RunError(f"{path}: refused: {entry.filename!r} is no name of a record")
