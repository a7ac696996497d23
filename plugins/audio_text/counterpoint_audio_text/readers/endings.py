"""Whether a sound file ends where its format says: libsndfile reads what is left of a cut one without a word."""

from __future__ import annotations

import os
import struct

from counterpoint.data.guard import check_chunk

_PAGE = struct.Struct("<4sBBqIIIB")  # an Ogg page's head: capture pattern, version, kind, position, ...
_LAST, _LONGEST_PAGE = 4, 65307 + 27
_AU = struct.Struct(">4sII")  # magic, where the data begins, how long it is
_TAG = struct.Struct(">4sI")  # a LAME tag's head: "Xing" or "Info", which fields follow
_UNKNOWN, _HAS_FRAMES, _HAS_BYTES = 0xFFFFFFFF, 1, 2


def check_ending(path: str) -> None:
    """ValueError when a file is shorter than its header (WAV, AIFF, AU), LAME tag (MP3), or last page (Ogg) says.

    FLAC says how many samples it has, which reading counts. An MP3 without a tag is a stream that may end anywhere.
    """
    check_chunk(path)
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(12)
        if head[:4] == b"OggS":
            file.seek(max(0, size - _LONGEST_PAGE))
            _check_page(file.read())
        elif head[:4] == b".snd" and len(head) == _AU.size:
            _, start, length = _AU.unpack(head)
            _check_size(size, start + length if length != _UNKNOWN else 0)
        elif head[:3] == b"ID3" or head[:1] == b"\xff":
            start = 10 + _syncsafe(head[6:10]) if head[:3] == b"ID3" else 0
            file.seek(start)
            _check_size(size, start + _tagged_length(file.read(256)))


def _check_size(size: int, said: int) -> None:
    if said > size:
        raise ValueError(f"truncated: {size:,} bytes, its header says {said:,}")


def _syncsafe(digits: bytes) -> int:
    """An ID3 size: seven bits a byte."""
    return sum((digit & 0x7F) << 7 * place for place, digit in enumerate(reversed(digits)))


def _tagged_length(frame: bytes) -> int:
    """Bytes from the first MP3 frame on, as its LAME tag says; 0 without one."""
    place = max(frame.find(b"Xing", 0, 64), frame.find(b"Info", 0, 64))  # after the side information
    if place < 0 or len(frame) < place + 16:
        return 0
    _, fields = _TAG.unpack_from(frame, place)
    if not fields & _HAS_BYTES:
        return 0
    return struct.unpack_from(">I", frame, place + _TAG.size + (4 if fields & _HAS_FRAMES else 0))[0]


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
