"""A span of pictures out of a video file: seek to the key frame before it, then decode forward.

Dimensions: T pictures, H and W pixels. Times are seconds from the first picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np

from counterpoint.data.guard import check_chunk
from counterpoint_video.readers.matroska import check_segment

FORMATS = "mov,mp4,avi,matroska,webm,mpeg,mpegts"  # no playlist: those name other files
PIXELS = 1 << 26  # of one picture: more is a mistake, or an attack
BACK = (0.0, 2.0, 8.0, 32.0)  # seconds before the wanted time to seek to, one after another


@dataclass
class Header:
    """What a file says of its first video stream; `seconds` is None when it does not say how long it is."""

    width: int
    height: int
    rate: float
    seconds: float | None
    rotation: int = 0


@contextmanager
def opened(path: str) -> Iterator[Video]:
    """The video of a file; ValueError when the file is none, or damaged."""
    check_chunk(path)  # of an AVI: its decoder shows what is left, and the last picture for the rest
    check_segment(path)  # of Matroska and WebM, likewise
    with open(path, "rb") as file:  # not by name: nothing else can be opened
        try:
            with av.open(file, options={"format_whitelist": FORMATS}) as container:
                yield Video(container)
        except av.error.EOFError as error:
            raise ValueError("truncated or damaged: the file ends too soon") from error
        except (av.error.FFmpegError, av.error.UndefinedError) as error:
            raise ValueError(f"no video of the formats {FORMATS}, truncated or damaged ({error.strerror})") from error


class Video:
    """The first video stream of an open file; ValueError when there is none, or its size or rate is impossible."""

    def __init__(self, container: av.container.InputContainer):
        pictures = [s for s in container.streams.video if not s.disposition & s.disposition.attached_pic]
        if not pictures:
            raise ValueError("holds no video stream")
        self.container, self.stream = container, pictures[0]
        self.stream.codec_context.thread_count = 1  # loader workers run side by side
        self.ordered = container.format.name != "avi"  # an AVI's presentation times are out of order; its dts are not
        self.first = self.stream.start_time or 0
        self.header = self._header()

    def _header(self) -> Header:
        stream = self.stream
        width, height, rate = stream.width, stream.height, stream.average_rate or stream.guessed_rate
        if width < 1 or height < 1 or width * height > PIXELS:
            raise ValueError(f"pictures of {width} x {height}, expected 1 to {PIXELS:,} pixels")
        if not rate or not 0 < rate <= 1000:
            raise ValueError(f"{rate} frames a second, expected more than 0, at most 1000")
        duration = stream.duration and stream.duration * stream.time_base
        if not duration and self.container.duration:
            duration = Fraction(self.container.duration, av.time_base)
        ratio = float(stream.sample_aspect_ratio or 1)  # pixels of DVDs and camcorders are not square
        return Header(
            max(1, round(width * ratio)), height, float(rate), float(duration) if duration and duration > 0 else None
        )

    def frames_at(self, times: Sequence[float]) -> Iterator[av.VideoFrame]:
        """The picture shown at each of the ascending `times`: the last that began by then; after the end, the last.

        Raises ValueError when the file ends a second or more before the last of `times`.
        """
        wanted, shown, ends = list(times), None, 0.0
        slack = 0.25 / self.header.rate  # times in a file are rounded
        for frame, begins in self._from(times[0]):
            while wanted and shown is not None and begins > wanted[0] + slack:
                yield shown
                wanted.pop(0)
            if not wanted:
                return
            shown, ends = frame, begins + self._duration(frame)
        if shown is None:
            raise ValueError(
                "holds no picture" if times[0] <= 0 else f"truncated or damaged: no picture from {times[0]:.2f} s on"
            )
        if wanted and wanted[-1] >= ends + 1.0:
            raise ValueError(
                f"truncated or damaged: ends at {ends:.2f} s, its header says {self.header.seconds or 0:.2f} s"
            )
        for _ in wanted:
            yield shown

    def frames(self) -> Iterator[av.VideoFrame]:
        """Every picture of the file."""
        for frame, _ in self._decoded():
            yield frame

    def ends_by(self, limit: float) -> float:
        """Seconds at which the video ends, or `limit` where it goes on: counted, for a file that does not say."""
        end = 0.0
        for frame, begins in self._decoded():
            end = begins + self._duration(frame)
            if end >= limit:
                break
        self.container.seek(self.first, stream=self.stream, backward=True)
        return min(end, limit)

    def _duration(self, frame: av.VideoFrame) -> float:
        return max(float((frame.duration or 0) * self.stream.time_base), 1.0 / self.header.rate)

    def _from(self, time: float) -> Iterator[tuple[av.VideoFrame, float]]:
        """Pictures and when they begin, from one that is shown by `time` on."""
        slack = 0.25 / self.header.rate
        for back in BACK:
            start = time - back
            if start <= 0:
                break
            target = self.first + int(start / self.stream.time_base)
            self.container.seek(target, stream=self.stream, backward=True)
            frames = self._decoded()
            frame, begins = next(frames, (None, 0.0))
            if frame is not None and frame.key_frame and begins <= time + slack:
                yield frame, begins
                yield from frames
                return
        if time > 0:  # else nothing has been read yet
            self.container.seek(self.first, stream=self.stream, backward=True)
        yield from self._decoded()

    def _decoded(self) -> Iterator[tuple[av.VideoFrame, float]]:
        last = -1.0 / self.header.rate
        for frame in self.container.decode(self.stream):
            mark = frame.pts if self.ordered else frame.dts
            last = last + 1.0 / self.header.rate if mark is None else float((mark - self.first) * self.stream.time_base)
            yield frame, last


def picture(frame: av.VideoFrame, header: Header, size: tuple[int, int]) -> np.ndarray:
    """uint8 (H, W, 3): a frame upright, scaled so that it covers `size`, and its centre cut out of it."""
    turned = frame.rotation % 180 != 0
    high, wide = (header.width, header.height) if turned else (header.height, header.width)  # as it is shown
    scale = max(size[0] / high, size[1] / wide)
    high, wide = max(size[0], round(high * scale)), max(size[1], round(wide * scale))
    stored = (high, wide) if turned else (wide, high)  # width, height
    scaled = frame.reformat(width=stored[0], height=stored[1], format="rgb24", interpolation="AREA").to_ndarray()
    upright = np.rot90(scaled, round(frame.rotation / 90) % 4)
    top, left = (upright.shape[0] - size[0]) // 2, (upright.shape[1] - size[1]) // 2
    return upright[top : top + size[0], left : left + size[1]]
