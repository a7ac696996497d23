"""The reader of recordings: WFDB, EDF, BDF, DICOM waveforms and arrays, as leads x samples at one rate.

    readers: {ecg: {use: ecg.signal, rate: 500, seconds: 10, leads: [I, II, V1]}}

Dimensions: C channels (leads), L samples in time, W samples of a window.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from counterpoint.data import numbers
from counterpoint.data.arrays import Arrays
from counterpoint.data.guard import MAX_BYTES, check_array
from counterpoint.data.reader import Reader
from counterpoint.errors import ComponentError, DataError
from counterpoint_ecg.readers import dicom, edf, wfdb_records
from counterpoint_ecg.readers.recording import Recording, spoken
from counterpoint_ecg.readers.scaling import scaled

TRIES = 10  # windows that are looked at before a recording with gaps or flat stretches is given up
FINEST = 1000  # largest factor of the two that change a rate

FORMATS = {
    ".hea": wfdb_records.recording,
    ".edf": edf.recording,
    ".bdf": edf.recording,
    ".dcm": dicom.recording,
}


class Signal(Reader):
    """A recording as float32 (C, L): WFDB (.hea), EDF and BDF, DICOM waveforms (.dcm), or what `arrays` reads.

    leads       names in the order wanted, in any case; None: all signals, of an EDF file those of its most common rate.
                Arrays have no names
    rate        Hz: files of other rates are resampled to it (polyphase filter). An array does not say its rate: it is
                taken to have this one. None: as in the files, which must agree
    seconds     a random window of this length is read, in place of the whole; shorter recordings are kept whole
    scaling     "none": voltages in mV, other quantities in the unit of the file, arrays as they are; "series": each lead
                of what was read to mean 0 and standard deviation 1
    gaps        largest fraction of a lead's samples that may be missing (NaN); they are filled along straight lines
    min_length  samples that a recording has at least
    key, layout  for arrays, as in the reader `arrays`

    Of a recording longer than `seconds`, up to 10 windows are tried until one is neither flat nor has too large gaps.
    Files of several leads must agree in their names, too. Raises ValueError or DataError for a missing lead, other
    rates or leads than most files have, gaps, flat lines, and files that hold less than their header says.
    """

    suffixes = (*FORMATS, *numbers.SUFFIXES)
    headless = numbers.HEADLESS

    def __init__(
        self,
        *,
        leads: list[str] | None = None,
        rate: float | None = None,
        seconds: float | None = None,
        scaling: Literal["none", "series"] = "none",
        gaps: float = 0.0,
        min_length: int = 32,
        key: str | None = None,
        layout: Literal["channels_first", "time_first"] | None = None,
    ):
        _check(leads, rate, seconds, gaps)
        self.leads, self.rate, self.seconds, self.scaling = leads, rate, seconds, scaling
        self.gaps, self.min_length = gaps, min_length
        self.arrays = Arrays(key=key, rate=rate, layout=layout)
        self.expected: dict[str, Any] = {}

    def files(self, cell: str) -> list[str]:
        return wfdb_records.files(cell) if cell.endswith(".hea") else [cell]

    def given(self) -> dict[str, Any]:
        return {} if self.rate is None else {"rate": float(self.rate)}

    def facts(self, path: str) -> dict[str, Any]:
        if self._is_array(path):
            return self._facts_of_array(path)
        recording = _recording(path)
        signals = recording.signals(self.leads)
        ratio, rate = self._ratio(recording.rates[signals[0]])
        length = -(-recording.lengths[signals[0]] * ratio.numerator // ratio.denominator)
        facts = {"channels": len(signals), "length": self._cut(length, rate), "rate": rate}
        return facts | ({"leads": [spoken(recording.names[i]) for i in signals]} if len(signals) > 1 else {})

    def expect(self, facts: dict[str, Any]) -> None:
        self.expected = facts
        self.arrays.expect({**facts, "dimensions": 2})

    def read(self, path: str) -> Tensor:
        x = self._of_array(path) if self._is_array(path) else self._of_recording(path)
        return torch.from_numpy(scaled(x[None], self.scaling, x[None])[0])

    # ---- arrays ----

    def _is_array(self, path: str) -> bool:
        return path.lower().endswith(numbers.SUFFIXES)

    def _facts_of_array(self, path: str) -> dict[str, Any]:
        self._check_array()
        facts = self.arrays.facts(path)
        if facts.pop("dimensions") != 2:
            raise ValueError("holds more than two dimensions, expected (leads, samples)")
        facts["length"] = self._cut(facts["length"], self.rate or 0.0)
        return facts | self.given()

    def _check_array(self) -> None:
        """Refuse what an array cannot answer, whichever of its facts were asked for."""
        if self.leads is not None:
            raise ValueError("an array has no names of leads; leave out leads")
        if self.seconds is not None and self.rate is None:
            raise ValueError("an array does not say its rate; give rate, so that seconds can be counted")

    def _of_array(self, path: str) -> np.ndarray:
        self._check_array()
        x = self.arrays.read(path).numpy()
        width = self._cut(x.shape[-1], self.rate or 0.0)
        return self._first_good(path, x.shape[-1] - width, lambda start: x[..., start : start + width])

    # ---- recordings that say what they are ----

    def _of_recording(self, path: str) -> np.ndarray:
        recording = _recording(path)
        signals = recording.signals(self.leads)
        self._check_expected(recording, signals)
        ratio, rate = self._ratio(recording.rates[signals[0]])
        length = recording.lengths[signals[0]]
        wanted = self._cut(-(-length * ratio.numerator // ratio.denominator), rate)
        width = min(length, -(-wanted * ratio.denominator // ratio.numerator) + (ratio != 1))
        _check_size(len(signals), max(width, wanted))

        def window(start: int) -> np.ndarray:
            x = _filled(recording.millivolts(signals, start, start + width), self.gaps)
            return _resampled(x, ratio)[:, :wanted]

        return self._first_good(path, length - width, window)

    def _check_expected(self, recording: Recording, signals: list[int]) -> None:
        """Files beyond those whose headers were read before may differ as well."""
        names, rate = [spoken(recording.names[i]) for i in signals], recording.rates[signals[0]]
        if (usual := self.expected.get("leads")) and names != usual:
            raise ValueError(f"leads {', '.join(names)}, most files have {', '.join(usual)}; name those to take: leads")
        usual = self.expected.get("rate")
        if self.rate is None and usual not in (None, rate):
            raise ValueError(f"{rate:g} Hz, most files have {usual:g}; give the rate to bring them all to")

    # ---- windows ----

    def _ratio(self, rate: float) -> tuple[Fraction, float]:
        """What the number of samples is multiplied by, and the rate that comes of it."""
        if self.rate is None or rate == self.rate:
            return Fraction(1), rate
        ratio = Fraction(self.rate / rate).limit_denominator(FINEST)
        if not 0 < ratio <= FINEST:
            raise ValueError(f"a rate of {rate:g} Hz cannot be brought to {self.rate:g} Hz")
        return ratio, float(self.rate)

    def _cut(self, length: int, rate: float) -> int:
        """Samples that are given of a recording of `length`."""
        return length if self.seconds is None else min(length, max(1, round(self.seconds * rate)))

    def _first_good(self, path: str, room: int, window: Callable[[int], np.ndarray]) -> np.ndarray:
        """float32 (C, W): a window from a random start in [0, room] that can be trained on."""
        for _ in range(TRIES - 1 if room else 0):
            with suppress(ValueError, DataError):
                return self._checked(path, window(int(np.random.randint(room + 1))))
        return self._checked(path, window(int(np.random.randint(room + 1)) if room else 0))

    def _checked(self, path: str, x: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):  # what does not fit in float32 is infinite, and refused for that
            x = np.ascontiguousarray(x, dtype=np.float32)
        return check_array(x, path, shape=(self.expected.get("channels"), None), min_length=self.min_length)


def _check(leads: list[str] | None, rate: float | None, seconds: float | None, gaps: float) -> None:
    problem = ""
    if leads is not None and (not leads or len({spoken(lead) for lead in leads}) < len(leads)):
        problem = f"leads are different names, one at least; got {leads}"
    elif rate is not None and not 0 < rate < float("inf"):
        problem = f"rate is in Hz, above 0; got {rate}"
    elif seconds is not None and not 0 < seconds < float("inf"):
        problem = f"seconds is above 0; got {seconds}"
    elif not 0 <= gaps < 1:
        problem = f"gaps is a fraction in [0, 1); got {gaps}"
    if problem:
        raise ComponentError(f"reader 'ecg.signal': {problem}")


def _recording(path: str) -> Recording:
    suffix = next((suffix for suffix in FORMATS if path.lower().endswith(suffix)), None)
    if suffix is None:
        raise ValueError(f"no reader for it here; readable: {', '.join(sorted(Signal.suffixes))}")
    return FORMATS[suffix](path)


def _check_size(channels: int, length: int) -> None:
    if channels * length * 8 > MAX_BYTES:
        raise ValueError(f"too large: {channels} leads of {length:,} samples; read a window of it: give seconds")


def _filled(x: np.ndarray, most: float) -> np.ndarray:
    """`x` (C, L) with missing samples on straight lines between their neighbours; ValueError when they are too many."""
    missing = np.isnan(x)
    if not missing.any():
        return x
    share = missing.mean(axis=1)
    if share.max() > most or share.max() == 1:
        lead = int(share.argmax())
        raise ValueError(
            f"{missing[lead].sum()} of {x.shape[1]} samples of lead {lead} are missing (NaN), more than gaps: {most:g}"
        )
    time = np.arange(x.shape[1])
    return np.stack([np.interp(time, time[~gone], row[~gone]) for row, gone in zip(x, missing)])


def _resampled(x: np.ndarray, ratio: Fraction) -> np.ndarray:
    """`x` (C, L) as (C, ceil(L * ratio)); beyond its ends it goes on along a line, so that its level makes no step."""
    if ratio == 1:
        return x
    from scipy.signal import resample_poly

    return resample_poly(x, ratio.numerator, ratio.denominator, axis=1, padtype="line")
