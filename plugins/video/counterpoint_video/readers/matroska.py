"""Whether a Matroska or WebM file is as long as it says: a decoder shows what is left of a cut one without a word.

Source: RFC 8794 (EBML, sections 4, 5 and 6.2), RFC 9559 (Matroska, section 5.1).
"""

from __future__ import annotations

import os

HEAD, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def check_segment(path: str) -> None:
    """ValueError when the file is shorter than the segment in it; other formats, and a segment of unknown size, pass."""
    with open(path, "rb") as file:
        start, size = file.read(64 + 4096), os.fstat(file.fileno()).st_size
    if start[:4] != HEAD:
        return
    place, length = _size(start, 4)
    place += length or 0
    if start[place : place + 4] != SEGMENT:
        return
    place, length = _size(start, place + 4)
    if length is not None and place + length > size:
        raise ValueError(f"truncated: {size:,} bytes, its header says {place + length:,}")


def _size(data: bytes, place: int) -> tuple[int, int | None]:
    """Where the content of an element begins whose size stands at `place`, and that size; None when it is unknown."""
    if place >= len(data) or not data[place]:
        raise ValueError("damaged: an element of its header has no size")
    width = 9 - data[place].bit_length()
    value = int.from_bytes(data[place : place + width], "big") & ((1 << 7 * width) - 1)
    return place + width, None if value == (1 << 7 * width) - 1 else value
