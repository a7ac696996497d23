"""The reader of video files: a span of pictures from a random or central place, scaled and cropped while decoding."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from counterpoint.data.guard import MAX_BYTES, check_file
from counterpoint.data.reader import Reader
from counterpoint.errors import ComponentError
from counterpoint_video.readers.decoding import Header, opened, picture


class Clip(Reader):
    """A span of a video as uint8 (3, frames, H, W), red, green and blue.

    frames  pictures in the span
    stride  one of so many is taken
    rate    pictures a second before the stride; None: each file's own. With it, a second is as many pictures in every
            file, also where a file's own rate changes: a picture is what is shown at its time
    size    pixels a side, or (H, W): pictures are scaled to cover it, and the centre is cut out
    window  random: another span whenever the file is read; center: its middle

    Only the span and what stands between it and the key frame before it are decoded. A video shorter than the span begins again
    at its end. Rotation marks and pixels that are not square are honoured. Reads MP4, MOV, AVI, WebM, Matroska and MPEG
    through FFmpeg. Raises ValueError for a file that holds no video, or one picture, or is damaged.
    """

    suffixes = (".mp4", ".m4v", ".mov", ".avi", ".webm", ".mkv", ".mpg", ".mpeg", ".ts")
    varies = frozenset({"rate"})

    def __init__(
        self,
        *,
        frames: int = 32,
        stride: int = 1,
        rate: float | None = None,
        size: int | tuple[int, int] = 112,
        window: Literal["random", "center"] = "random",
    ):
        self.frames, self.stride, self.rate, self.window = frames, stride, rate, window
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        if min(frames, stride, *self.size) < 1:
            raise ComponentError(
                f"reader 'video.clip': frames, stride and size are at least 1; got {frames}, {stride}, {size}"
            )
        if rate is not None and not rate > 0:
            raise ComponentError(f"reader 'video.clip': rate is in pictures a second, above 0; got {rate}")
        if (count := 3 * frames * self.size[0] * self.size[1]) > MAX_BYTES:
            raise ComponentError(f"reader 'video.clip': {count:,} bytes a sample, expected at most {MAX_BYTES:,}")

    def facts(self, path: str) -> dict[str, Any]:
        check_file(path)
        with opened(path) as video:
            rate = (self.rate or video.header.rate) / self.stride
        height, width = self.size
        return {"channels": 3, "length": self.frames, "height": height, "width": width, "rate": rate}

    def read(self, path: str) -> Tensor:
        check_file(path)
        with opened(path) as video:
            header, times = video.header, self._times(video.header)
            if header.seconds is None or len(times) == 1 < self.frames:  # of a short MPEG stream it is a poor guess
                header = replace(header, seconds=video.ends_by(self.frames * self._step(header)))
                times = self._times(header)
            film = [picture(frame, header, self.size) for frame in video.frames_at(times)]
        if len(times) == 1 < self.frames:
            raise ValueError("holds one picture, expected two or more")
        array = np.stack(film)  # (T', H, W, 3)
        array = array[np.arange(self.frames) % len(array)]
        return torch.from_numpy(np.ascontiguousarray(array.transpose(3, 0, 1, 2)))

    def _step(self, header: Header) -> float:
        """Seconds between two pictures of the span."""
        return self.stride / (self.rate or header.rate)

    def _times(self, header: Header) -> list[float]:
        """When the pictures of the span are shown; fewer than `frames` in a short video."""
        step = self._step(header)
        seconds = header.seconds or 0.0  # unknown: from the beginning
        there = max(1, min(self.frames, int(seconds / step + 1e-6))) if header.seconds else self.frames
        room = max(0.0, seconds - there * step)
        ticks = int(room * (rate := self.rate or header.rate) + 1e-6)
        start = (random.randint(0, ticks) if self.window == "random" else ticks // 2) / rate
        return [start + i * step for i in range(there)]
