"""The header of a .ply file: what its elements are, and whether the file is long enough for them.

Source: Turk, "The PLY polygon file format", 1994.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

LONGEST = 1 << 20  # bytes in which a header must end
TYPES = {
    **{name: np.dtype(name) for name in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64")},
    **{"char": np.dtype("i1"), "uchar": np.dtype("u1"), "short": np.dtype("i2"), "ushort": np.dtype("u2")},
    **{"int": np.dtype("i4"), "uint": np.dtype("u4"), "float": np.dtype("f4"), "double": np.dtype("f8")},
}


@dataclass
class Element:
    """count: how many there are; properties: their names; least: bytes that one takes at least in a binary file."""

    count: int
    properties: list[str] = field(default_factory=list)
    least: int = 0


@dataclass
class Header:
    """ascii: whether the data is text; elements by name; end: where the data begins."""

    ascii: bool
    elements: dict[str, Element]
    end: int


def ply_header(content: bytes) -> Header:
    """The header at the start of `content`; ValueError when there is none."""
    if not content.startswith(b"ply"):
        raise ValueError("not a .ply file: it does not begin with ply")
    stop = content.find(b"end_header", 0, LONGEST)
    if stop < 0:
        raise ValueError("its header does not end")
    newline = content.find(b"\n", stop)
    lines = content[:stop].decode("utf-8", errors="replace").splitlines()
    header = Header(False, {}, len(content) if newline < 0 else newline + 1)
    for number, line in enumerate(lines, 1):
        words = line.split()
        try:
            _add(header, words)
        except (ValueError, IndexError, KeyError, StopIteration):
            raise ValueError(f"line {number} of its header makes no sense: {line[:60]!r}") from None
    if not {"x", "y", "z"} <= set(header.elements.get("vertex", Element(0)).properties):
        raise ValueError("its header has no vertex with x, y and z")
    return header


def _add(header: Header, words: list[str]) -> None:
    """One line of a header, taken apart."""
    match words:
        case ["format", kind, _]:
            header.ascii = {"ascii": True, "binary_little_endian": False, "binary_big_endian": False}[kind]
        case ["element", name, count]:
            if not count.isdigit():
                raise ValueError
            header.elements[name] = Element(int(count))
        case ["property", "list", size, kind, name]:
            _property(header, name, TYPES[size].itemsize if kind in TYPES else TYPES[kind].itemsize)
        case ["property", kind, name]:
            _property(header, name, TYPES[kind].itemsize)
        case ["element" | "property" | "format", *_]:
            raise ValueError


def _property(header: Header, name: str, size: int) -> None:
    element = header.elements[list(header.elements)[-1]]
    element.properties.append(name)
    element.least += size


def check_counts(content: bytes) -> None:
    """ValueError when a .ply is too short for what its header promises; nothing is allocated for it."""
    header = ply_header(content)
    have = len(content) - header.end
    least = [
        element.count * (2 * len(element.properties) if header.ascii else element.least)
        for element in header.elements.values()
    ]
    if have + header.ascii < sum(least):  # the last line of a text may lack its end
        counts = ", ".join(f"{element.count:,} {name}" for name, element in header.elements.items())
        raise ValueError(f"cut off: {have:,} bytes of data, its header says {counts}, at least {sum(least):,} bytes")
    if not header.elements["vertex"].count:
        raise ValueError("holds no vertex")
