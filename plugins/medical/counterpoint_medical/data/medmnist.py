"""The .npz files of MedMNIST: small labelled images and volumes of many kinds, in splits."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from counterpoint.data.dataset import Dataset, Spec
from counterpoint.data.guard import MAX_BYTES, check_file, name_of, reading
from counterpoint.errors import DataError, suggest

SPLITS = ("train", "val", "test")


class MedMNIST(Dataset):
    """A file of MedMNIST: float32 in [0, 1], (C, H, W) of images or (1, D, H, W) of volumes.

    path      pathmnist.npz, organmnist3d.npz and so on: arrays train_images (N, H, W), (N, H, W, 3) or (N, D, H, W),
              uint8; train_labels (N, 1), or (N, K) where an image may have several findings; the same for val and test
    modality  what the recipe calls them
    split     train, val or test

    Label "label"; with several findings "label_0", "label_1" and so on, each 0 or 1. All is kept in memory as uint8.
    Raises DataError naming the file for anything else. Source: Yang et al., "MedMNIST v2", Scientific Data 10 (2023).
    """

    def __init__(self, *, path: str, modality: str = "image", split: str = "train"):
        if split not in SPLITS:
            raise DataError(f"data 'medical.medmnist' has no split {split!r}{suggest(split, SPLITS)}")
        self.path = full = Path(path).expanduser()
        check_file(full)
        with reading(full):
            images, labels = _read(full, split)
            self.images, self.modality = torch.from_numpy(_channels_first(images)), modality
            names = ["label"] if labels.shape[1] == 1 else [f"label_{i}" for i in range(labels.shape[1])]
            self.labels = {name: labels[:, i].astype(np.int64) for i, name in enumerate(names)}
        shape = tuple(self.images.shape[2:])
        facts = {"channels": self.images.shape[1], "spatial_dims": len(shape), "shape": shape}
        self.spec = Spec(
            size=len(self.images),
            modalities={modality: facts},
            labels={name: _classes(full, name, i) for i, name in enumerate(names)},
            splits=SPLITS,
            in_memory=True,
        )

    def files(self) -> list[str]:
        return [str(self.path)]

    def inputs_of(self, index: Tensor) -> dict[str, Tensor]:
        return {self.modality: self.images.index_select(0, index).float() / 255.0}


def _read(path: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels (N, K) of one split; ValueError for what MedMNIST's files are not."""
    if not zipfile.is_zipfile(path):
        raise ValueError("not an .npz file, or truncated")
    with zipfile.ZipFile(path) as archive:
        if (size := sum(info.file_size for info in archive.infolist())) > 8 * MAX_BYTES:
            raise ValueError(f"too large: {size:,} bytes unpacked, expected at most {8 * MAX_BYTES:,}")
    with np.load(path, allow_pickle=False) as archive:
        for name in (f"{split}_images", f"{split}_labels"):
            if name not in archive.files:
                raise ValueError(f"holds no array {name!r}{suggest(name, archive.files)}")
        images, labels = archive[f"{split}_images"], archive[f"{split}_labels"]
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or not images.size:
        raise ValueError(f"{split}_images: {images.dtype} of shape {images.shape}; expected uint8 images or volumes")
    if labels.dtype.kind not in "iub" or labels.ndim != 2 or len(labels) != len(images):
        raise ValueError(
            f"{split}_labels: {labels.dtype} of shape {labels.shape}; expected integers ({len(images)}, findings)"
        )
    return images, labels


def _channels_first(images: np.ndarray) -> np.ndarray:
    if images.ndim == 4 and images.shape[-1] == 3:
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return images[:, None]


def _classes(path: Path, name: str, column: int) -> int:
    """Classes that any split of the file has."""
    with np.load(path, allow_pickle=False) as archive:
        found = [
            int(archive[key][:, column].max()) for key in archive.files if key.endswith("_labels") and archive[key].size
        ]
    if not found:
        raise DataError(f"{name_of(path)}: {name!r} has no value")
    return 1 + max(found)
