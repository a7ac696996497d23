"""The reader of images: PNG and JPEG, 8 or 16 bit, grey or in colours."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from counterpoint.data.guard import MAX_BYTES, check_array, check_file
from counterpoint.data.reader import Reader
from counterpoint.errors import ComponentError

SIDEWAYS = (5, 6, 7, 8)  # values of Exif's orientation that exchange height and width


class Image(Reader):
    """A PNG or JPEG as float32 (C, H, W) in [0, 1], whatever its bits: 8 bit over 255, 16 bit over 65,535.

    color  grey: one channel, colours by their luma (ITU-R 601); rgb: three channels, grey ones thrice
    size   pixels (H, W), or of both sides: the image is resized, keeping its proportions, until it covers the size, then
           cut about the centre; None: as in the file

    Transparency is left out; pixels are turned as Exif says. Raises ValueError for other formats, several frames, fewer
    than 2 pixels along a side, a constant image, and more pixels than fit in memory.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".png", ".jpg", ".jpeg")
    varies: ClassVar[frozenset[str]] = frozenset({"shape"})

    def __init__(self, *, color: Literal["grey", "rgb"] = "grey", size: int | tuple[int, int] | None = None):
        self.color = color
        self.size = (size, size) if isinstance(size, int) else tuple(size) if size else None
        if self.size is not None and min(self.size) < 2:
            raise ComponentError(f"reader 'medical.image': size is 2 pixels or more; got {list(self.size)}")

    def facts(self, path: str) -> dict[str, Any]:
        with _opened(path) as image:
            height, width = image.height, image.width
            turned = image.getexif().get(0x0112) in SIDEWAYS
        shape = self.size or ((width, height) if turned else (height, width))
        return {"channels": 3 if self.color == "rgb" else 1, "spatial_dims": 2, "shape": shape}

    def read(self, path: str) -> Tensor:
        from PIL import ImageOps

        with _opened(path) as image:
            array = self._values(ImageOps.exif_transpose(image))  # (C, H, W)
        check_array(array, path)
        pixels = torch.from_numpy(array)
        return pixels if self.size is None else _covered(pixels, self.size)

    def _values(self, image) -> np.ndarray:
        """float32 (C, H, W) in [0, 1]."""
        if image.mode.startswith(("I", "F")):  # 16 bit, always grey
            grey = np.asarray(image, dtype=np.float32)[None] / 65535.0
            return np.repeat(grey, 3, axis=0) if self.color == "rgb" else grey
        array = np.asarray(image.convert("RGB" if self.color == "rgb" else "L"), dtype=np.float32) / 255.0
        return np.ascontiguousarray(array.transpose(2, 0, 1)) if array.ndim == 3 else array[None]


def _opened(path: str):
    """The image, its pixels not read."""
    from PIL import Image as Pillow

    check_file(path)
    image = Pillow.open(path, formats=("PNG", "JPEG"))
    pixels = image.width * image.height
    problem = ""
    if getattr(image, "n_frames", 1) > 1:
        problem = f"{image.n_frames} frames, expected one image"
    elif min(image.width, image.height) < 2:
        problem = f"{image.height} x {image.width} pixels, expected 2 or more a side"
    elif 12 * pixels > MAX_BYTES:
        problem = f"too large: {pixels:,} pixels, expected at most {MAX_BYTES // 12:,}"
    if problem:
        image.close()
        raise ValueError(problem)
    return image


def _covered(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """(C, *size): resized with its proportions kept until it covers `size`, then cut about the centre."""
    height, width = pixels.shape[1:]
    factor = max(size[0] / height, size[1] / width)
    sides = [max(want, math.floor(have * factor + 0.5)) for have, want in zip((height, width), size)]
    resized = torch.nn.functional.interpolate(pixels[None], size=sides, mode="bilinear", antialias=True)[0]
    top, left = ((side - want) // 2 for side, want in zip(sides, size))
    return resized[:, top : top + size[0], left : left + size[1]].clamp(0.0, 1.0).contiguous()
