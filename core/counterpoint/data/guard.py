"""The reading guard: whatever goes wrong with a file becomes one line that names the sample and the file.

    with reading(path, index):
        samples, rate = soundfile.read(path)
    check_array(samples, path, index, shape=(12, None))

A bad sample ends the run by default. On request it is skipped: the loader hands the error on in place of the sample,
collate drops it and keeps its message, and `Skipped` counts the messages where the batches arrive, because every worker
process sees only its own.
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from counterpoint.batch import Batch
from counterpoint.errors import CounterpointError, DataError

MAX_BYTES = 2 << 30  # the largest file, or decoded array, that is one sample rather than a mistake

LISTED = 20  # problems of a data set that one error lists

_DAMAGED = (EOFError, zipfile.BadZipFile, zlib.error, struct.error)
_LONGEST_CAUSE = 300


def name_of(path, index: int | None = None) -> str:
    """`sample 37 /data/x.wav`, printable whatever bytes are in the name."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in os.fsdecode(path))
    return text if index is None else f"sample {index} {text}"


def one_line(text: str, limit: int = _LONGEST_CAUSE) -> str:
    """`text` on one printable line of at most `limit` characters."""
    text = "".join(c for c in " ".join(text.split()) if c.isprintable())
    return text if len(text) <= limit else text[: limit - 4] + " ..."


@contextmanager
def reading(path, index: int | None = None) -> Iterator[None]:
    """Turn whatever a reader raises inside the block into a one-line DataError that names sample and file.

    A DataError keeps its text and gains the sample's number when it lacks one. Other errors of the user's (a missing
    package), MemoryError, KeyboardInterrupt and SystemExit pass unchanged.
    """
    try:
        yield
    except DataError as error:
        if named(error, index) is error:
            raise
        raise named(error, index) from (error.__cause__ or error)
    except (CounterpointError, MemoryError):
        raise
    except Exception as error:
        raise DataError(f"{name_of(path, index)}: {_cause(path, error)}") from error


def named(error: DataError, index: int | None) -> DataError:
    """`error`, or one with the same words that also says which sample, when it does not say so yet."""
    return error if index is None or str(error).startswith("sample ") else DataError(f"sample {index} {error}")


def _cause(path, error: Exception) -> str:
    """Why reading failed: what is wrong with the file itself if anything is, else what the reader said."""
    plain = type(error) is ValueError  # its text says enough
    told = one_line(str(error) if plain and str(error) else f"{type(error).__name__}: {error}".removesuffix(": "))
    if isinstance(error, UnicodeDecodeError):
        told = f"not {error.encoding} text (byte 0x{error.object[error.start]:02x} at {error.start})"
    elif isinstance(error, _DAMAGED):
        told = f"truncated or damaged ({told})"
    fault = fault_of(path)
    if fault == _DIRECTORY and not isinstance(error, OSError):
        return told if plain else f"{fault}; {told}"  # some formats are folders: the reader's own words matter then
    return fault or told


_DIRECTORY = "is a directory, not a file"


def fault_of(path, max_bytes: int | None = None) -> str:
    """What the file system alone says against reading a file, or nothing: missing, a directory, empty, too large."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return "no such file"
    except NotADirectoryError:
        return "no such file (a part of the path is a file)"
    except PermissionError:
        return "no permission to read it"
    except (OSError, ValueError) as error:
        return one_line(getattr(error, "strerror", None) or str(error))
    if stat.S_ISDIR(status.st_mode):
        return _DIRECTORY
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    if status.st_size == 0:
        return "empty file (0 bytes)"
    if max_bytes is not None and status.st_size > max_bytes:
        return f"too large: {status.st_size:,} bytes, expected at most {max_bytes:,}"
    return "" if os.access(path, os.R_OK) else "no permission to read it"


_OPEN = (0, 0x7FFFF000, 0xFFFFFFFF)  # sizes that a recorder writes when it does not know them yet


def check_chunk(path) -> None:
    """ValueError when a RIFF or IFF file (WAV, AVI, AIFF) is shorter than its own header says; others pass.

    Decoders read what is left of such a file without a word.
    """
    with open(path, "rb") as file:
        head, size = file.read(12), os.fstat(file.fileno()).st_size
    order = {b"RIFF": "<I", b"FORM": ">I"}.get(head[:4])
    if order is None or len(head) < 12:
        return
    said = struct.unpack(order, head[4:8])[0]
    if said not in _OPEN and said + 8 > size + 1:  # an odd chunk's padding byte is often left out
        raise ValueError(f"truncated: {size:,} bytes, its header says {said + 8:,}")


def raise_all(problems: Sequence[str]) -> None:
    """Raise one DataError with every problem, the first LISTED of them in full; nothing when there is none."""
    if problems:
        more = [f"... and {len(problems) - LISTED} more"] if len(problems) > LISTED else []
        raise DataError("\n".join([*problems[:LISTED], *more]))


def check_file(path, index: int | None = None, *, max_bytes: int = MAX_BYTES) -> None:
    """Raise a DataError unless `path` is a readable, non-empty regular file of at most `max_bytes`; reads nothing."""
    if fault := fault_of(path, max_bytes):
        raise DataError(f"{name_of(path, index)}: {fault}")


def check_array(
    x: Any,
    path,
    index: int | None = None,
    *,
    finite: bool = True,
    constant: bool = False,
    shape: tuple[int | None, ...] | None = None,
    min_length: int = 1,
    max_length: int | None = None,
    max_bytes: int = MAX_BYTES,
) -> Any:
    """`x` (array or CPU tensor, channels first, time last) unchanged, or a DataError that says what is wrong with it.

    finite      refuse NaN and infinity
    constant    accept an array whose values are all equal (a flat line)
    shape       expected size of every dimension, None = any; the first is called channels
    min_length, max_length  bounds of the last dimension, in samples
    max_bytes   most bytes the array may take
    """
    array = np.asarray(x)
    problem = (
        _shape_problem(array, shape, min_length, max_length, max_bytes)
        or (finite and _finite_problem(array))
        or (not constant and _constant_problem(array))
    )
    if problem:
        raise DataError(f"{name_of(path, index)}: {problem}")
    return x


def _shape_problem(x: np.ndarray, shape, min_length: int, max_length: int | None, max_bytes: int) -> str:
    if x.dtype.kind not in "biuf":
        return f"holds {x.dtype}, expected real numbers"
    if shape is not None and len(shape) > 1 and x.ndim == len(shape) and shape[0] not in (None, x.shape[0]):
        return f"{x.shape[0]} channels, expected {shape[0]} (shape {x.shape})"
    if shape is not None and (x.ndim != len(shape) or any(s not in (None, n) for s, n in zip(shape, x.shape))):
        return f"shape {x.shape}, expected ({', '.join('any' if s is None else str(s) for s in shape)})"
    length = x.shape[-1] if x.ndim else 1
    if length < min_length or x.size == 0:
        return f"too short: length {length}, expected at least {max(min_length, 1)} (shape {x.shape})"
    if max_length is not None and length > max_length:
        return f"too long: length {length}, expected at most {max_length}"
    return f"too large: {x.nbytes:,} bytes, expected at most {max_bytes:,}" if x.nbytes > max_bytes else ""


def _finite_problem(x: np.ndarray) -> str:
    if x.dtype.kind != "f":
        return ""
    with np.errstate(all="ignore"):
        if np.isfinite(x.sum()):  # one pass without a temporary: a finite sum has finite terms
            return ""
    bad = ~np.isfinite(x)
    if not bad.any():
        return ""
    first = tuple(int(i) for i in np.unravel_index(int(bad.argmax()), x.shape))
    return f"{int(bad.sum())} of {x.size} values are NaN or infinite, the first at {list(first)}"


def _constant_problem(x: np.ndarray) -> str:
    flat = x.reshape(-1)
    if x.size < 2 or flat[0] != flat[-1] or not (x == flat[0]).all():
        return ""
    return f"constant: all {x.size} values are {flat[0].item()}"


class Skipped:
    """Counts the different samples that were skipped, and ends the run when they are too many.

    It stands in the main process: `skipped(batch)` for every batch. With `limit` 0 the first bad sample is raised, in
    its own words; raised in a worker process it would arrive wrapped in the worker's traceback. A sample counts once,
    however often it is met, so the count does not depend on workers, epochs or order.

    size   number of samples of the dataset
    limit  largest fraction of them that may be skipped
    """

    def __init__(self, *, size: int, limit: float = 0.1):
        if not 0.0 <= limit <= 1.0:
            raise ValueError(f"limit is a fraction in [0, 1]; got {limit}")
        self.size, self.limit = size, limit
        self.messages: dict[str, str] = {}  # "sample 37" -> its first message

    def __len__(self) -> int:
        return len(self.messages)

    def __call__(self, batch: Batch) -> list[str]:
        """The messages of samples not met before; DataError when more than `limit` of all samples were skipped."""
        new = {" ".join(m.split(" ", 2)[:2]): m for m in reversed(batch.fields.get("skipped", []))}
        new = {sample: m for sample, m in reversed(new.items()) if sample not in self.messages}
        self.messages.update(new)
        if len(self) > self.limit * self.size:
            raise DataError(self._too_many())
        return list(new.values())

    def _too_many(self) -> str:
        messages = list(self.messages.values())
        if self.limit == 0:
            return messages[0]
        head = f"{len(self)} of {self.size} samples cannot be read, more than the {self.limit:.0%} that may be skipped:"
        more = [f"... and {len(self) - 3} more"] if len(self) > 3 else []
        return "\n".join([head, *messages[:3], *more])
