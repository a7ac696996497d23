"""European Data Format and its 24-bit kin (.edf, .bdf), read through the package pyEDFlib."""

from __future__ import annotations

import os

import numpy as np

from counterpoint.data.guard import MAX_BYTES, check_file
from counterpoint_ecg.readers.recording import Recording

FIXED, PER_SIGNAL = 256, 256  # bytes of the header, and of it for every signal
TRIGGERS = "status"  # a channel of marks in BioSemi's files, no signal


def recording(path: str) -> Recording:
    """The signals of an EDF or BDF file, without annotations and the trigger channel of BDF.

    Raises ValueError for a file that is not as long as its header says, and for what EDFlib refuses (EDF+D: a
    discontinuous recording).
    """
    _check_size(path)
    with _opened(path) as file:
        names = [label.strip() for label in file.getSignalLabels()]
        units = [file.getPhysicalDimension(i).strip() for i in range(len(names))]
        rates = [round(float(rate), 6) for rate in file.getSampleFrequencies()]
        lengths = [int(length) for length in file.getNSamples()]
    if not all(0 < rate < float("inf") for rate in rates):
        raise ValueError(f"damaged: sampling rates of {rates} Hz")

    def stretch(signals: list[int], start: int, stop: int) -> np.ndarray:
        with _opened(path) as file:
            return np.stack([file.readSignal(kept[i], start, stop - start) for i in signals])

    kept = [i for i, name in enumerate(names) if not (path.lower().endswith(".bdf") and name.lower() == TRIGGERS)]
    pick = lambda column: [column[i] for i in kept]  # noqa: E731
    return Recording(pick(names), pick(units), pick(rates), pick(lengths), stretch)


def _opened(path: str):
    import pyedflib

    full = os.path.abspath(path)
    try:
        return pyedflib.EdfReader(full, pyedflib.DO_NOT_READ_ANNOTATIONS, pyedflib.CHECK_FILE_SIZE)
    except OSError as error:
        raise ValueError(str(error).removeprefix(f"{full}: ")) from error


def _check_size(path: str) -> None:
    """Compare the file with its header; EDFlib, which does so too, prints what it found."""
    check_file(path, max_bytes=MAX_BYTES)
    with open(path, "rb") as file:
        fixed = file.read(FIXED)
        if fixed[:8] not in (b"0       ", b"\xffBIOSEMI"):
            raise ValueError("not an EDF or BDF file, whatever its name says")
        count = _number(fixed[252:256])
        counts = file.read(count * PER_SIGNAL)[count * 216 : count * 224] if count <= 4096 else b""
    if len(fixed) < FIXED or len(counts) < count * 8 or not count:
        raise ValueError("truncated or damaged: its header is not complete")
    width = 3 if fixed[:1] == b"\xff" else 2
    record = width * sum(_number(counts[8 * i : 8 * i + 8]) for i in range(count))
    expected, size = FIXED + count * PER_SIGNAL + record * _number(fixed[236:244]), os.path.getsize(path)
    if size != expected:
        raise ValueError(f"{'truncated' if size < expected else 'damaged'}: {size} bytes, its header says {expected}")


def _number(digits: bytes) -> int:
    """A count of the header; ValueError unless it is one."""
    text = digits.decode("ascii", errors="replace").strip()
    if not text.isdigit():
        raise ValueError(f"damaged: its header has {text!r} where a number is expected")
    return int(text)
