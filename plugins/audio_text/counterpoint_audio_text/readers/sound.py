"""The reader of sound files: a window of a recording, one channel, at one sampling rate.

Dimensions: L samples in time. What the file system or the array check says of a file is the core's guard's.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import soundfile
import torch
from torch import Tensor

from counterpoint.data.guard import MAX_BYTES, check_array, check_file
from counterpoint.data.reader import Reader
from counterpoint.errors import ComponentError
from counterpoint_audio_text.readers.endings import check_ending

SHORTEST = 0.01  # seconds; less is no sound but a mistake


class Sound(Reader):
    """A recording as float32 (1, L): the mean of its channels, full scale at -1 and 1, resampled to `rate`.

    rate     Hz of what is read; None: the files' own, which must then be one for all
    seconds  most that is read of a file; None: the whole. What a longer file gives is a `window`:
    window   random: another stretch whenever it is read; start: its beginning

    Only the window is decoded, so a long file costs no memory. Reads WAV, FLAC, Ogg (Vorbis, Opus), MP3, AIFF, AU and CAF
    through libsndfile. Raises ValueError for a file that is no sound, cut off, under 10 ms, or too large, and
    DataError for NaN. Resampling is band-limited (soxr, "HQ").
    """

    suffixes = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf")

    def __init__(
        self, *, rate: int | None = None, seconds: float | None = None, window: Literal["random", "start"] = "random"
    ):
        if rate is not None and rate < 1:
            raise ComponentError(f"reader 'audio_text.sound': rate is in Hz, at least 1; got {rate}")
        if seconds is not None and seconds < SHORTEST:
            raise ComponentError(f"reader 'audio_text.sound': seconds is at least {SHORTEST}; got {seconds}")
        self.rate, self.seconds, self.window = rate, seconds, window

    def facts(self, path: str) -> dict[str, Any]:
        with _opened(path) as sound:
            frames, own = self._frames(sound), sound.samplerate
            _check_length(sound.frames, own)
        return {"channels": 1, "rate": self.rate or own, "length": resampled_length(frames, own, self.rate or own)}

    def read(self, path: str) -> Tensor:
        with _opened(path) as sound:
            _check_length(sound.frames, own := sound.samplerate)
            data = self._decoded(sound)
        check_array(data, path, constant=True)  # silence is a sound
        mono = data if len(data) == 1 else data.mean(0, keepdims=True)
        return torch.from_numpy(resampled(mono, own, self.rate or own))

    def _frames(self, sound: soundfile.SoundFile) -> int:
        """How many of the file's own samples are read."""
        return min(sound.frames, sound.frames if self.seconds is None else round(self.seconds * sound.samplerate))

    def _decoded(self, sound: soundfile.SoundFile) -> np.ndarray:
        """float32 (channels, L) of the window."""
        frames = self._frames(sound)
        if (size := frames * sound.channels * 4) > MAX_BYTES:
            raise ValueError(f"too large: {size:,} bytes when decoded, expected at most {MAX_BYTES:,}; give seconds")
        if (room := sound.frames - frames) and self.window == "random":
            sound.seek(random.randint(0, room))
        data = sound.read(frames, dtype="float32", always_2d=True)
        if len(data) < frames:
            raise ValueError(f"truncated or damaged: {len(data):,} of {frames:,} samples could be read")
        return np.ascontiguousarray(data.T)


@contextmanager
def _opened(path: str) -> Iterator[soundfile.SoundFile]:
    """The file as libsndfile sees it, and in its words what is wrong with it."""
    check_file(path)
    check_ending(path)
    try:
        with open(path, "rb") as file, soundfile.SoundFile(file) as sound:  # not by name: nothing else can be opened
            yield sound
    except soundfile.LibsndfileError as error:
        raise ValueError(f"not readable as sound: {error.error_string}") from error


def _check_length(frames: int, rate: int) -> None:
    if frames < 1:
        raise ValueError("holds no samples")
    if frames < SHORTEST * rate:
        raise ValueError(f"too short: {frames} samples at {rate} Hz, expected at least {SHORTEST} s")


def resampled_length(frames: int, own: int, rate: int) -> int:
    """Samples that `resampled` makes of `frames`."""
    return frames if own == rate else int(np.ceil(frames * rate / own))


def resampled(data: np.ndarray, own: int, rate: int) -> np.ndarray:
    """float32 (1, L) at `rate` of (1, frames) at `own` Hz, always `resampled_length` samples long."""
    if own == rate:
        return data
    import soxr

    length = resampled_length(data.shape[1], own, rate)
    made = soxr.resample(data[0], own, rate)[:length]
    return np.pad(made, (0, length - len(made)))[None].astype(np.float32, copy=False)
