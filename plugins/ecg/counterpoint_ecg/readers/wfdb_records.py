"""WFDB records (PhysioNet): a header .hea that names the files of its signals, read through the package wfdb.

Every name in a header stands in the header's own folder, and sizes are compared with the files before anything is
allocated; wfdb itself believes the header.
"""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from counterpoint.data.guard import MAX_BYTES, check_file, fault_of, name_of
from counterpoint_ecg.readers.recording import Recording

MAX_HEADER, MAX_LINE = 1 << 20, 1000  # bytes; wfdb's expressions take quadratic time on a line without end
BITS = {"8": 8, "16": 16, "24": 24, "32": 32, "61": 16, "80": 8, "160": 16, "212": 12, "310": 32 / 3, "311": 32 / 3}
COMPRESSED = ("508", "516", "524")  # FLAC


def recording(path: str) -> Recording:
    """The record whose header is `path`; segments are joined, and what they lack is missing.

    Signals with several samples a frame are averaged to the rate of the frames. Raises ValueError for a header that
    names something outside its folder or claims more than its files hold.
    """
    record = _header(path)
    joined = _is_joined(record)
    layout = _layout(path, record) if joined else record
    length = sum(record.seg_len) if joined else _checked_length(path, record)
    if record.sig_len not in (None, 0, length):
        raise ValueError(f"damaged: {record.sig_len} samples, but its segments have {length}")
    if record.fs is None or not 0 < record.fs < math.inf:
        raise ValueError(f"a sampling rate of {record.fs} Hz")

    def stretch(signals: list[int], start: int, stop: int) -> np.ndarray:
        if joined:
            return _joined(path, record, layout, signals, start, stop)
        return _read(path, record, signals, start, stop)

    count = layout.n_sig
    names = [name or f"signal {i}" for i, name in enumerate(layout.sig_name)]
    return Recording(names, list(layout.units), [float(record.fs)] * count, [length] * count, stretch)


def _read(path: str, record: Any, signals: list[int], start: int, stop: int) -> np.ndarray:
    """float64 (C, stop - start) of a record without segments."""
    import wfdb

    whole = "8" in record.fmt or not record.sig_len  # differences are known only from their start
    first, last = (0, None) if whole else (start, stop)
    values = wfdb.rdrecord(_stem(path), sampfrom=first, sampto=last, channels=signals).p_signal
    values = np.asarray(values, dtype=np.float64).T[:, start - first : stop - first]
    if values.shape != (len(signals), stop - start):
        raise ValueError(f"truncated: gave {values.shape}, expected ({len(signals)}, {stop - start})")
    return values


# ---- headers ----


def files(path: str) -> list[str]:
    """The header, and every file that it names, of its segments too; of a damaged header, itself."""
    names, segments = _named(path)
    if not segments:
        return [path, *(_beside(path, name) for name in names)]
    headers = [_beside(path, f"{name}.hea") for name in names]
    return [path, *headers, *(_beside(path, name) for header in headers for name in _named(header)[0])]


def _named(path: str) -> tuple[list[str], bool]:
    """The files, or the segments, that a header names, as far as it is one, and whether they are segments."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(MAX_HEADER)
    except OSError:
        return [], False
    lines = [words for words in map(str.split, text.splitlines()) if words and not words[0].startswith("#")]
    names = [name for name in dict.fromkeys(words[0] for words in lines[1:]) if name != "~"]
    try:
        for name in names:
            _check_name(name)
    except ValueError:
        return [], False
    return names, bool(lines) and "/" in lines[0][0]


def _stem(path: str) -> str:
    """The record as wfdb is to be told: absolute, so that it is never taken for an address on the network."""
    return os.path.abspath(path).removesuffix(".hea")


def _header(path: str) -> Any:
    """wfdb's Record or MultiRecord, once the text is known to name files of its own folder only."""
    import wfdb

    check_file(path, max_bytes=MAX_HEADER)
    if not path.endswith(".hea") or "::" in os.path.abspath(path):
        raise ValueError("a WFDB header is called RECORD.hea, and '::' is not in its path")
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = [line.strip() for line in file.read().splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines or any(len(line) > MAX_LINE for line in lines):
        raise ValueError("not a WFDB header, whatever its name says")
    for line in lines[1:]:
        _check_name(line.split()[0])
    record = wfdb.rdheader(_stem(path))
    described = len(lines) - 1 - (getattr(record, "n_seg", None) or record.n_sig)
    if not record.n_sig or described:
        raise ValueError(f"damaged: {record.n_sig} signals, {len(lines) - 1} lines that describe them")
    return record


def _check_name(name: str) -> None:
    """Refuse what is not a plain name: a path could lead out of the folder."""
    plain = name.replace("-", "").replace("_", "").replace(".", "", 1).removesuffix("~")
    if name != "~" and not (plain.isascii() and plain.isalnum()):
        raise ValueError(
            f"its header names {name_of(name)!r}; expected a file beside it, of letters, digits, '-', '_' and one '.'"
        )


# ---- sizes ----


def _checked_length(path: str, record: Any) -> int:
    """Samples of a signal, once every file is known to hold them."""
    files: dict[str, list[int]] = {}
    for i, name in enumerate(record.file_name):
        files.setdefault(name, []).append(i)
    lengths = [_length_in(path, record, name, signals) for name, signals in files.items()]
    return record.sig_len or min(lengths)


def _length_in(path: str, record: Any, name: str, signals: list[int]) -> int:
    """Samples that the file `name` holds of each signal; ValueError when they are fewer than the header says."""
    full, kind = _beside(path, name), record.fmt[signals[0]]
    if fault := fault_of(full, MAX_BYTES):
        raise ValueError(f"its signal file {name}: {fault}")
    if other := {record.fmt[i] for i in signals} - {kind}:
        raise ValueError(f"damaged: signals of {name} in format {kind} and in format {other.pop()}")
    frame = sum(record.samps_per_frame[i] or 1 for i in signals)
    if kind in COMPRESSED:
        held = _frames_of_flac(full) // max(1, record.samps_per_frame[signals[0]] or 1)
    elif kind in BITS:
        held = int((os.path.getsize(full) - (record.byte_offset[signals[0]] or 0)) * 8 / (BITS[kind] * frame) + 1e-6)
    else:
        raise ValueError(f"signals in format {kind}; readable: {', '.join([*BITS, *COMPRESSED])}")
    length = held if record.sig_len in (None, 0) else record.sig_len
    if length > held:
        raise ValueError(f"truncated: its signal file {name} holds {max(held, 0)} of {length} samples")
    if any((record.skew[i] or 0) > length for i in signals):
        raise ValueError("damaged: a signal is shifted by more than its length")
    return length


def _frames_of_flac(path: str) -> int:
    import soundfile

    return soundfile.info(path).frames


# ---- several segments ----


def _is_joined(record: Any) -> bool:
    return getattr(record, "seg_name", None) is not None


def _layout(path: str, record: Any) -> Any:
    """The header that tells the signals: a layout of its own, or the first segment's."""
    names = [name for name in record.seg_name if name != "~"]
    if not names:
        raise ValueError("holds no signals: every segment is a gap")
    layout = _segment(path, record, names[0])
    if layout.n_sig != record.n_sig:
        raise ValueError(f"damaged: {record.n_sig} signals, its segment {names[0]} has {layout.n_sig}")
    return layout


def _beside(path: str, name: str) -> str:
    return os.path.join(os.path.dirname(os.path.abspath(path)), name)


def _segment(path: str, record: Any, name: str) -> Any:
    segment = _header(_beside(path, f"{name}.hea"))
    if _is_joined(segment) or segment.fs != record.fs:
        raise ValueError(f"its segment {name} is in segments itself or has another rate")
    return segment


def _joined(path: str, record: Any, layout: Any, signals: list[int], start: int, stop: int) -> np.ndarray:
    """float64 (C, stop - start), NaN where a segment is a gap or lacks a signal."""
    values = np.full((len(signals), stop - start), np.nan)
    end = 0
    for name, length in zip(record.seg_name, record.seg_len):
        begin, end = end, end + length
        if name == "~" or not length or end <= start or begin >= stop:
            continue
        segment = _segment(path, record, name)
        if (held := _checked_length(path, segment)) != length:
            raise ValueError(f"damaged: its segment {name} has {held} samples, expected {length}")
        rows, there = _shared(name, segment, layout, signals)
        first, last = max(start, begin), min(stop, end)
        if there:
            stretch = _read(_beside(path, f"{name}.hea"), segment, there, first - begin, last - begin)
            values[rows, first - start : last - start] = stretch
    return values


def _shared(name: str, segment: Any, layout: Any, signals: list[int]) -> tuple[list[int], list[int]]:
    """Which of `signals` the segment has, and where they are in it."""
    alike = segment.sig_name == layout.sig_name
    places = [
        i if alike else segment.sig_name.index(layout.sig_name[i]) if layout.sig_name[i] in segment.sig_name else None
        for i in signals
    ]
    pairs = [(row, place) for row, place in enumerate(places) if place is not None]
    if any(segment.units[place] != layout.units[signals[row]] for row, place in pairs):
        raise ValueError(f"its segment {name} has other units")
    return [row for row, _ in pairs], [place for _, place in pairs]
