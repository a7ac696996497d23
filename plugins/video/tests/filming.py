"""Tiny real video files, written with PyAV. Every picture's grey says its number."""

from fractions import Fraction

import av
import numpy as np

CODECS = {".mp4": "h264", ".avi": "mpeg4", ".webm": "vp8", ".mkv": "h264", ".mpg": "mpeg2video", ".mov": "mpeg4"}


def level(number: int) -> int:
    return 20 + 4 * (number % 55)


def write(path, count: int = 40, rate: int = 25, size=(64, 48), times=None, codec=None, gop: int = 10, rotate: int = 0):
    """A video of `count` pictures of size (width, height); `times` are their times in milliseconds, for a varying rate."""
    width, height = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec or CODECS[path.suffix], rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size = gop
        stream.bit_rate = 400_000
        if rotate:
            stream.set_display_rotation(rotate)
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i in range(count):
            picture = np.full((height, width, 3), level(i), np.uint8)
            picture[: height // 4] = 255  # what is up
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[i], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(path)


def numbers(clip) -> list[int]:
    """Which picture each of a clip (3, T, H, W) is."""
    grey = clip[:, :, clip.shape[2] // 2 :].double().mean((0, 2, 3))
    return [round((value - 20) / 4) for value in grey.tolist()]
