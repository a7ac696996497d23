"""Damage to the bytes of a good file, drawn from a seed: what disks, networks, editors and attackers leave behind."""

import numpy as np

HEAD = 1024  # bytes in which most formats say what follows
EXTREMES = [b"\x00" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x80\x00\x00\x00", b"\x00\x00\x00\x80",
            b"\x01\x00\x00\x00", b"\x00\x00\x00\x01", b"\xff\xff", b"\x00\x00"]  # fmt: skip
DIGITS = [b"0", b"9", b"-1", b"99999999", b"1e308", b"nan", b"", b"\xff"]


def truncate(x: bytes, rng: np.random.Generator) -> bytes:
    return x[: rng.integers(len(x))]


def flip_bits(x: bytes, rng: np.random.Generator) -> bytes:
    data = np.frombuffer(x, np.uint8).copy()
    places = rng.integers(len(data), size=rng.integers(1, 9))
    data[places] ^= np.uint8(1) << rng.integers(8, size=len(places)).astype(np.uint8)
    return data.tobytes()


def change_bytes(x: bytes, rng: np.random.Generator) -> bytes:
    data = np.frombuffer(x, np.uint8).copy()
    places = rng.integers(len(data), size=rng.integers(1, 33))
    data[places] = rng.integers(256, size=len(places))
    return data.tobytes()


def extreme_field(x: bytes, rng: np.random.Generator) -> bytes:
    """A field of the header set to the least, the greatest, or a negative number."""
    value, at = EXTREMES[rng.integers(len(EXTREMES))], int(rng.integers(min(HEAD, len(x))))
    return x[:at] + value + x[at + len(value) :]


def extreme_digits(x: bytes, rng: np.random.Generator) -> bytes:
    """A number that stands as text made another, or none."""
    places = np.flatnonzero([48 <= byte <= 57 for byte in x[: 4 * HEAD]])
    if not len(places):
        return extreme_field(x, rng)
    at = int(places[rng.integers(len(places))])
    return x[:at] + DIGITS[rng.integers(len(DIGITS))] + x[at + 1 :]


def zero_block(x: bytes, rng: np.random.Generator) -> bytes:
    at, length = int(rng.integers(len(x))), int(rng.integers(1, 513))
    return x[:at] + bytes(min(length, len(x) - at)) + x[at + length :]


def double_block(x: bytes, rng: np.random.Generator) -> bytes:
    at, length = int(rng.integers(len(x))), int(rng.integers(1, 513))
    return x[: at + length] + x[at:]


def remove_block(x: bytes, rng: np.random.Generator) -> bytes:
    at, length = int(rng.integers(len(x))), int(rng.integers(1, 513))
    return x[:at] + x[at + length :]


def splice(x: bytes, rng: np.random.Generator) -> bytes:
    """The beginning of the file, then another part of it."""
    return x[: rng.integers(len(x))] + x[rng.integers(len(x)) :]


def extend(x: bytes, rng: np.random.Generator) -> bytes:
    return x + rng.integers(256, size=rng.integers(1, 4097)).astype(np.uint8).tobytes()


WAYS = (truncate, flip_bits, change_bytes, extreme_field, extreme_digits, zero_block, double_block, remove_block, splice, extend)  # fmt: skip


def damaged(x: bytes, seed: int) -> tuple[str, bytes]:
    """The way, and `x` damaged that way; ways take turns, so that few seeds try all of them."""
    rng = np.random.default_rng([seed, len(x)])
    way = WAYS[seed % len(WAYS)]
    return way.__name__, way(x, rng)
