"""A dataset without some of its training samples.

data: {use: without, of: {use: manifest, path: pairs.csv}, samples: planted.txt}
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from counterpoint.data.dataset import Dataset, Sample
from counterpoint.data.derived.wrapped import extended
from counterpoint.data.guard import check_file, name_of, reading
from counterpoint.errors import DataError
from counterpoint.markers import Data


class Without(Dataset):
    """Another dataset without the training samples that a file numbers; other splits are as they are.

    of       the dataset
    samples  a text file with one number a line, from 0, in the order of the training split: what `counterpoint doctor
             RECIPE --list FILE` writes of samples that look planted

    Raises DataError for a line that is no number of a sample, and when nothing would be left.
    """

    def __init__(self, *, of: Data, samples: str, split: str = "train"):
        self.data = of(split)
        self.made_of, self.samples = [self.data], Path(samples).expanduser()
        count = len(self.data)
        gone = _numbers(self.samples, count) if split == "train" else []
        self.kept = np.setdiff1d(np.arange(count), gone)
        if not len(self.kept):
            raise DataError(f"data 'without': {name_of(samples)} names all {count} samples")
        self.spec = extended(self.data.spec, len(self.kept))
        self.groups, self.labels = (
            {name: np.asarray(column)[self.kept] for name, column in getattr(self.data, table, {}).items()}
            for table in ("groups", "labels")
        )

    def files(self) -> list[str]:
        return [*super().files(), str(self.samples)]

    def assets(self) -> dict[str, str]:
        return getattr(self.data, "assets", dict)()

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of a dataset of {len(self)}")
        return self.data[int(self.kept[index])]


def _numbers(path: Path, count: int) -> list[int]:
    check_file(path)
    with reading(path):
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    bad = [(i, line) for i, line in enumerate(lines, 1) if line and not (line.isdecimal() and int(line) < count)]
    if bad:
        number, line = bad[0]
        raise DataError(
            f"{name_of(path)}:{number}: expected the number of one of the {count} training samples; got {line[:40]!r}"
        )
    return [int(line) for line in lines if line]
