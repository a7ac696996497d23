"""Colin27 with the AAL atlas: patches of one brain, learnt on one hemisphere and scored on the other.

The T1 volume is the mean of 27 scans of one man, 181 x 217 x 181 voxels of 1 mm; the atlas names 116 regions on the same
grid, grouped here into 7 areas. Both come with Debian's package mricron-data.

A split is one hemisphere and its own mirror image: voxels of the other hemisphere are in no patch of it, also near the
midline. The right hemisphere is turned left, so that patches of both splits lie alike.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from counterpoint.data.dataset import Dataset, Spec
from counterpoint.data.guard import check_file, reading
from counterpoint.data.sources import Debian
from counterpoint.errors import DataError, suggest
from counterpoint_medical.readers.volume import resampled

SPLITS = ("train", "test")
FOLDER = "usr/share/mricron/templates"
VOLUME, ATLAS, NAMES = FILES = ("ch2.nii.gz", "aal.nii.gz", "aal.nii.txt")
MIDLINE = 90  # the voxel of x = 0 mm, of 181 from left to right

AREAS = {  # area -> how the names of its regions begin
    "nuclei": ("Caudate", "Putamen", "Pallidum", "Thalamus"),
    "cerebellum": ("Cerebelum", "Vermis"),
    "limbic": ("Insula", "Cingulum", "Hippocampus", "ParaHippocampal", "Amygdala"),
    "occipital": ("Calcarine", "Cuneus", "Lingual", "Occipital"),
    "parietal": ("Postcentral", "Parietal", "SupraMarginal", "Angular", "Precuneus", "Paracentral"),
    "temporal": ("Fusiform", "Heschl", "Temporal"),
    "frontal": ("Precentral", "Frontal", "Rolandic", "Supp", "Olfactory", "Rectus"),
}


class Colin27(Dataset):
    """Patches of the left hemisphere for training, of the right one for the test: modality "scan", float32 (1, size, size, size).

    size     voxels of a side; what lies outside the head is air
    spacing  mm between voxels
    count    patches of each of the 7 areas, their centres drawn without replacement from its voxels

    Intensities are those of the training half to mean 0 and standard deviation 1. Label "area": where the centre of the
    patch is, 0 to 6 in the order of `AREAS`. Group "region": the region of the atlas, left and right as one, which is what is
    not independent in this data. Places are drawn by area and used for nothing else.
    Raises DataError when the package is missing (it says what to run), or the split is not train or test.
    Source: Holmes et al., Journal of Computer Assisted Tomography 22 (1998); Tzourio-Mazoyer et al., NeuroImage 15 (2002).
    """

    sources = (Debian("mricron-data", f"{FOLDER}/aal.nii.gz"),)

    def __init__(
        self, *, split: Literal["train", "test"] = "train", size: int = 18, spacing: float = 3.0, count: int = 300
    ):
        if split not in SPLITS:
            raise DataError(f"data 'medical.colin27' has no split {split!r}{suggest(split, SPLITS)}")
        if size < 2 or not spacing > 0 or count < 1:
            raise DataError(
                f"data 'medical.colin27': expected a size of 2 or more, spacing above 0, count of 1 or more; "
                f"got {size}, {spacing}, {count}"
            )
        self.folder = self.sources[0].find() / FOLDER
        brain, atlas, names = _halves(str(self.folder))
        train, own = (_coarse(brain[name], spacing) for name in ("train", split))
        self.size, self.half = size, (own - train.mean()) / train.std()
        area, region = _regions(names)
        centres = _centres(area[atlas[split]], count, SPLITS.index(split))  # (N, 3) at 1 mm
        self.centres = np.floor((centres + 0.5) / spacing).astype(np.int64)
        found = atlas[split][tuple(centres.T)]
        self.labels, self.groups = {"area": area[found]}, {"region": region[found]}
        self.spec = Spec(
            size=len(centres),
            modalities={"scan": {"channels": 1, "spatial_dims": 3, "shape": (size,) * 3, "spacing": (spacing,) * 3}},
            groups={"region": int(region.max()) + 1},
            labels={"area": len(AREAS)},
            splits=SPLITS,
            in_memory=True,
        )

    def files(self) -> list[str]:
        return [str(self.folder / name) for name in FILES]

    def inputs(self, index: int) -> dict[str, Tensor]:
        patch = self.half.new_full((1, *[self.size] * 3), float(self.half[0, 0, 0]))  # a corner is air
        to, of = [0], [0]
        for start, length in zip(self.centres[index] - self.size // 2, self.half.shape):
            inside = range(max(start, 0), min(start + self.size, length))
            of.append(slice(inside.start, inside.stop))
            to.append(slice(inside.start - start, inside.stop - start))
        patch[tuple(to)] = self.half[tuple(of[1:])]
        return {"scan": patch}


@cache
def _halves(folder: str) -> tuple[dict[str, Tensor], dict[str, np.ndarray], list[str]]:
    """split -> float32 (D, H, W), a hemisphere beside its mirror image; split -> regions int (D, H, W), 0 in the mirror; names."""
    volume, atlas = (_read(Path(folder) / name) for name in (VOLUME, ATLAS))
    if volume.shape != atlas.shape or volume.shape[2] != 2 * MIDLINE + 1:
        raise DataError(f"{folder}: volumes of shapes {volume.shape} and {atlas.shape}; expected Colin27 at 1 mm")
    brain, regions = {}, {}
    for split, turn in (("train", 1), ("test", -1)):
        half = volume[..., ::turn][..., : MIDLINE + 1].astype(np.float32)
        brain[split] = torch.from_numpy(np.concatenate([half, half[..., -2::-1]], axis=2))
        own = atlas[..., ::turn].astype(np.int64)
        own[..., MIDLINE:] = 0
        regions[split] = own
    return brain, regions, _names(Path(folder) / NAMES)


def _read(path: Path) -> np.ndarray:
    """(D, H, W): the integers of a volume whose header is known to be in canonical orientation."""
    import nibabel

    check_file(path)
    with reading(path):
        return np.asarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj).transpose(2, 1, 0)


def _names(path: Path) -> list[str]:
    """Names of the regions from 1 on."""
    check_file(path)
    with reading(path):
        return [line.split()[1] for line in path.read_text(encoding="ascii").splitlines() if line.strip()]


def _regions(names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Area and region by the atlas's number, -1 for 0; left and right are one region."""
    bare = [name.removesuffix("_L").removesuffix("_R") for name in names]
    known = sorted(set(bare))
    areas = [next(i for i, begins in enumerate(AREAS.values()) if name.startswith(begins)) for name in bare]
    return np.array([-1, *areas]), np.array([-1, *(known.index(name) for name in bare)])


def _centres(area: np.ndarray, count: int, seed: int) -> np.ndarray:
    """int64 (7 * count, 3): voxels (D, H, W) of each area, `count` of each, always the same."""
    random = np.random.default_rng(seed)
    chosen = [random.choice(np.flatnonzero(area == i), count, replace=False) for i in range(len(AREAS))]
    return np.stack(np.unravel_index(np.concatenate(chosen), area.shape), axis=1)


def _coarse(volume: Tensor, spacing: float) -> Tensor:
    for axis in range(3):
        volume = resampled(volume, axis, max(1, round(volume.shape[axis] / spacing)))
    return volume
