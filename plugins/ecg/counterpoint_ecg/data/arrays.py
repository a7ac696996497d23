"""One file that holds many series, and whose they are: .npz, .npy, .csv, .tsv or .parquet.

    data: {use: ecg.arrays, path: beats.npz, key: X, groups: [patient], labels: [diagnosis], rate: 250}

Dimensions: N series, C channels (leads), L samples in time. Recordings in files of their own are the core's `manifest`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from counterpoint.data.dataset import Dataset, Spec, encode_categories
from counterpoint.data.guard import name_of
from counterpoint.data.split import select
from counterpoint.errors import DataError
from counterpoint_ecg.readers.arrays import read_arrays
from counterpoint_ecg.readers.scaling import Scaling, scaled

Layout = Literal["channels_first", "time_first"]


class Arrays(Dataset):
    """The series of one file: float32 (C, L); all are read into memory.

    path      .npz: the series are the array `key` (N, C, L) or (N, L), columns are other arrays (N,). .npy: series
              alone. .csv, .tsv: a header, then a row a series; every column that is not named here is a sample, in
              order. .parquet: the same, or lists of samples in the column `key`
    modality  what the recipe calls them
    rate      sampling rate in Hz
    groups    columns of identities (patient, recording); empty = unknown
    labels    columns: integers and words are classes, other numbers are values; empty = unknown
    split     train or test; or, where the file has the column `split_column`, one of its values
    holdout   without that column: fraction of the identities of `holdout_by` (default: the first group, else every
              series by itself) that is the test split, chosen by a hash of each
    layout    channels_first (N, C, L) or time_first (N, L, C)
    scaling   "none"; "series": each lead of each series to mean 0 and standard deviation 1; "dataset": all by the mean
              and standard deviation of the split "train", one a lead

    NaN at the end of a series is padding: the series is shorter. Raises DataError naming the file for anything that
    cannot be read, other NaN and infinities, and columns or splits that are not there.
    """

    def __init__(
        self,
        *,
        path: str,
        modality: str = "ecg",
        key: str | None = None,
        rate: float | None = None,
        groups: list[str] | None = None,
        labels: list[str] | None = None,
        split: str = "train",
        split_column: str | None = "split",
        holdout: float = 0.2,
        holdout_by: str | None = None,
        layout: Layout = "channels_first",
        scaling: Scaling = "none",
    ):
        groups, labels, by = groups or [], labels or [], holdout_by or next(iter(groups or []), None)
        named = dict.fromkeys([*groups, *labels, *([by] if by else [])])
        series, columns = read_arrays(path, key, list(named), split_column)
        series = _channels_first(series, layout, path)
        lengths = _real_lengths(series, path)
        identities = _identities(columns.get(by, [""] * len(series)))
        choose = lambda name: select(name, columns.get(split_column), identities, holdout, name_of(path))  # noqa: E731
        chosen, splits = choose(split)
        train = series[choose("train")[0]] if scaling == "dataset" else series[:0]
        self.series, self.lengths = torch.from_numpy(scaled(series[chosen], scaling, train)), lengths[chosen]
        self.path, self.modality, self.classes = path, modality, {}
        self.groups, identities_of = {}, {}
        for name in groups:
            ids, names = _classes(columns[name])
            self.groups[name], identities_of[name] = ids[chosen], len(names)
        self.labels = {name: self._label(name, columns[name])[chosen] for name in labels}
        self.spec = self._spec(rate, identities_of, splits)

    def _label(self, name: str, cells: Sequence[str]) -> np.ndarray:
        """int64 classes, whose names are kept, or float32 values."""
        numbers = _numbers(cells)
        if numbers is not None and not all(_is_integer(cell) for cell in cells if cell):
            return numbers
        ids, self.classes[name] = _classes(cells)
        return ids

    def _spec(self, rate: float | None, groups: dict[str, int], splits: tuple[str, ...]) -> Spec:
        lengths = np.unique(self.lengths)
        facts = {"channels": self.series.shape[1], "length": int(lengths[0]) if len(lengths) == 1 else None}
        return Spec(
            size=len(self.series),
            modalities={self.modality: facts | ({} if rate is None else {"rate": rate})},
            groups=groups,
            labels={name: len(self.classes[name]) if name in self.classes else None for name in self.labels},
            splits=splits,
            in_memory=True,
        )

    def files(self) -> list[str]:
        return [os.path.expanduser(self.path)]

    def inputs(self, index: int) -> dict[str, Tensor]:
        return {self.modality: self.series[index, :, : self.lengths[index]]}


def _channels_first(series: np.ndarray, layout: Layout, path: str) -> np.ndarray:
    """(N, C, L) of (N, L), (N, C, L) or (N, L, C)."""
    if series.ndim == 2:
        return series[:, None]
    series = series.transpose(0, 2, 1) if layout == "time_first" else series
    if series.shape[1] > series.shape[2]:
        other = "channels_first" if layout == "time_first" else "time_first"
        raise DataError(
            f"{name_of(path)}: {series.shape[1]} channels of {series.shape[2]} samples each; expected more samples than "
            f"channels, as layout: {other} would give"
        )
    return series


def _real_lengths(series: np.ndarray, path: str) -> np.ndarray:
    """int64 (N,): samples before the padding of NaN; DataError for values that are not finite before it."""
    there = np.isfinite(series).all(1)  # (N, L)
    length = series.shape[2] - np.argmax(there[:, ::-1], axis=1)
    bad = ~there.any(1) | (there.sum(1) != length) | np.isinf(series).any((1, 2))
    if bad.any():
        first = int(bad.argmax())
        raise DataError(
            f"sample {first} {name_of(path)}: values are NaN or infinite, in {int(bad.sum())} of {len(series)} series; "
            "NaN is allowed only as padding at the end"
        )
    return length


def _identities(cells: Sequence[str]) -> list[str]:
    """What must not be in two splits: the cell, or the series itself where there is none."""
    return [cell or f"\0series {i}" for i, cell in enumerate(cells)]


def _classes(cells: Sequence[str]) -> tuple[np.ndarray, list]:
    """int64 ids and names in the order of the numbers when all are integers, else of the words; empty = -1."""
    integers = all(_is_integer(cell) for cell in cells if cell)
    return encode_categories([int(cell) if cell and integers else cell for cell in cells])


def _is_integer(cell: str) -> bool:
    return cell.removeprefix("-").isdecimal()


def _numbers(cells: Sequence[str]) -> np.ndarray | None:
    """float32 with NaN for empty cells, or None when one is not a number."""
    try:
        return np.array([cell or "nan" for cell in cells]).astype(np.float64).astype(np.float32)
    except ValueError:
        return None
