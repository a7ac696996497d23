"""Reading a file of many series: the numbers, and the columns that stand beside them as text.

Dimensions: N series, C channels (leads), L samples in time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from counterpoint.data import numbers
from counterpoint.data.guard import check_file, name_of, reading
from counterpoint.errors import DataError, suggest

Columns = dict[str, list[str]]


def read_arrays(
    path: str, key: str | None, named: Sequence[str], split_column: str | None
) -> tuple[np.ndarray, Columns]:
    """The series (N, L) or (N, C, L), and the columns `named`, and `split_column` where there is one, as text.

    An empty cell is a missing value. Raises DataError naming the file when it cannot be read, a column is not there or
    has another number of cells, or the series are no numbers.
    """
    full = Path(path).expanduser()
    reader = _READERS.get(full.suffix.lower())
    if reader is None:
        raise DataError(f"{name_of(full)}: series are read from {', '.join(_READERS)}; got {full.suffix!r}")
    check_file(full)
    with reading(full):
        series, columns = reader(full, key, named, split_column)
    _check(full, series, columns)
    return series, columns


def _check(path: Path, series: np.ndarray, columns: Columns) -> None:
    where = name_of(path)
    if series.dtype.kind not in "biuf":
        raise DataError(f"{where}: the series hold {series.dtype}, expected real numbers")
    if series.ndim not in (2, 3) or series.size == 0:
        raise DataError(f"{where}: series of shape {series.shape}; expected (N, L) or (N, C, L), none of them 0")
    for name, cells in columns.items():
        if len(cells) != len(series):
            raise DataError(f"{where}: {name!r} has {len(cells)} values, there are {len(series)} series")


def _read_npy(path: Path, key: str | None, named: Sequence[str], split_column: str | None):
    if named:
        raise DataError(f"{name_of(path)}: a .npy holds no columns, {', '.join(named)} among them; use a .npz")
    return numbers.read(path, key), {}


def _read_npz(path: Path, key: str | None, named: Sequence[str], split_column: str | None):
    with np.load(path, allow_pickle=False) as archive:
        names = archive.files
        present = _present(path, names, named, split_column)
        rest = [name for name in names if name not in present]
        if key is None and len(rest) != 1:
            key = "X" if "X" in rest else None
            if key is None:
                raise DataError(f"{name_of(path)}: say which array the series are, key: one of {', '.join(rest)}")
        key = key or rest[0]
        _require(path, key, names)
        return archive[key], {name: _text(_column(archive[name])) for name in present}


def _column(values: np.ndarray) -> list:
    if values.ndim != 1:
        raise ValueError(f"a column has one value a series; got shape {values.shape}")
    return values.tolist()


def _read_csv(path: Path, key: str | None, named: Sequence[str], split_column: str | None):
    import pandas

    with path.open(encoding="utf-8-sig") as file:
        header = file.readline()
    mark = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=header.count)
    names = [name.strip().strip('"') for name in header.rstrip("\r\n").split(mark)]
    present = _present(path, names, named, split_column)
    frame = pandas.read_csv(
        path, sep=mark, dtype=dict.fromkeys(present, str), encoding="utf-8-sig", skipinitialspace=True
    )
    return _series(path, frame, key, present), {name: _text(frame[name].to_list()) for name in present}


def _read_parquet(path: Path, key: str | None, named: Sequence[str], split_column: str | None):
    table = numbers.parquet().read_table(path, use_threads=False)
    present = _present(path, table.column_names, named, split_column)
    columns = {name: _text(table.column(name).to_pylist()) for name in present}  # pandas makes 1.0 of 1 beside a gap
    return _series(path, table.to_pandas(), key, present), columns


def _series(path: Path, frame, key: str | None, present: Sequence[str]) -> np.ndarray:
    """(N, L): the lists in column `key`, or every column that is not among `present`."""
    if key is not None:
        _require(path, key, list(frame.columns))
        return _stacked(path, key, frame[key].to_numpy())
    series = frame[[c for c in frame.columns if c not in present and c and not str(c).startswith("Unnamed: ")]]
    for name, kind in series.dtypes.items():
        if not hasattr(kind, "kind") or kind.kind not in "biuf":
            raise DataError(
                f"{name_of(path)}: column {name!r} is not all numbers; every column but groups, labels and the split is "
                "a sample. Name it under groups or labels, or take it out"
            )
    return series.to_numpy()


def _stacked(path: Path, key: str, lists: np.ndarray) -> np.ndarray:
    """(N, L) of N lists of numbers, padded with NaN at the end."""
    if not all(isinstance(row, np.ndarray) and row.dtype.kind in "biuf" for row in lists):
        raise DataError(f"{name_of(path)}: column {key!r} does not hold a list of numbers in every row")
    series = np.full((len(lists), max(map(len, lists), default=0)), np.nan)
    for place, row in zip(series, lists):
        place[: len(row)] = row
    return series


def _present(path: Path, names: Sequence[str], named: Sequence[str], split_column: str | None) -> list[str]:
    """The columns to read; the split's may be absent."""
    for name in named:
        _require(path, name, names)
    return list(dict.fromkeys([*named, *(name for name in (split_column,) if name in names)]))


def _require(path: Path, name: str, names: Sequence[str]) -> None:
    if name not in names:
        raise DataError(f"{name_of(path)}: there is no {name!r}{suggest(name, names)}")


def _text(values: Sequence) -> list[str]:
    return ["" if value is None or value != value else str(value).strip() for value in values]


_READERS: dict[str, Callable[[Path, str | None, Sequence[str], str | None], tuple[np.ndarray, Columns]]] = {
    ".npz": _read_npz,
    ".npy": _read_npy,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
}
