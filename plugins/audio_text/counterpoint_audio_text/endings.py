"""Whether a sound file ends where its format says: libsndfile reads what is left of a cut one without a word."""

from __future__ import annotations

import os
import struct

_PAGE = struct.Struct("<4sBBqIIIB")  # an Ogg page's head: capture pattern, version, kind, position, ...
_LAST, _LONGEST_PAGE = 4, 65307 + 27
_OPEN = (0, 0x7FFFF000, 0xFFFFFFFF)  # sizes that a recorder writes when it does not know them yet


def check_ending(path: str) -> None:
    """ValueError when a WAV, AIFF or Ogg file is shorter than its own header, or its last page, says.

    FLAC says how many samples it has, which reading counts. MP3 and AU are streams that may end anywhere.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(12)
        if head[:4] == b"RIFF" and head[8:] == b"WAVE":
            _check_size(size, struct.unpack("<I", head[4:8])[0])
        elif head[:4] == b"FORM":
            _check_size(size, struct.unpack(">I", head[4:8])[0])
        elif head[:4] == b"OggS":
            file.seek(max(0, size - _LONGEST_PAGE))
            _check_page(file.read())


def _check_size(size: int, said: int) -> None:
    if said not in _OPEN and said + 8 > size + 1:  # an odd chunk's padding byte is often left out
        raise ValueError(f"truncated: {size:,} bytes, its header says {said + 8:,}")


def _check_page(tail: bytes) -> None:
    start = tail.rfind(b"OggS")
    if start < 0 or len(tail) < start + _PAGE.size:
        raise ValueError("truncated: the last Ogg page is cut off")
    *_, count = head = _PAGE.unpack_from(tail, start)
    sizes = tail[start + _PAGE.size : start + _PAGE.size + count]
    if len(sizes) < count or start + _PAGE.size + count + sum(sizes) > len(tail):
        raise ValueError("truncated: the last Ogg page is cut off")
    if not head[2] & _LAST:
        raise ValueError("truncated: there is no last Ogg page")
