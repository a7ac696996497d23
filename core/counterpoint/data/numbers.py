"""Numbers from the files people have: .npy, .npz, .csv, .tsv, .txt, .parquet.

Every reader either gives what the whole file says or raises a DataError naming it: sizes are checked against the
header before anything is allocated, checksums where the format has them, and nothing is ever unpickled.
"""

from __future__ import annotations

import io
import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from counterpoint.data.guard import MAX_BYTES, check_file, reading
from counterpoint.errors import CounterpointError, suggest

SUFFIXES = (".npy", ".npz", ".csv", ".tsv", ".txt", ".parquet")
HEADLESS = (".csv", ".tsv", ".txt")  # formats whose size is known only after reading them


def read(path: Path | str, key: str | None = None, *, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """The numeric array in a file, by its extension; real numbers in the machine's byte order.

    .npy: the array. .npz: the array `key`, or the only one. .csv, .tsv, .txt: numbers (rows, columns), or (rows,) of
    the column `key` or of the only one; a first line that is not all numbers is a header; a first column without a
    name (pandas' index) is left out. .parquet: columns likewise.

    Raises DataError naming the file.
    """
    check_file(path, max_bytes=max_bytes)
    with reading(path):
        array = np.asarray(_reader(path)(str(path), key, max_bytes))
        if array.dtype.kind not in "biuf":
            raise ValueError(f"holds {array.dtype}, expected real numbers")
        return array.astype(array.dtype.newbyteorder("="), copy=False)


def shape_of(path: Path | str, key: str | None = None, *, max_bytes: int = MAX_BYTES) -> tuple[int, ...]:
    """The shape `read` would give, from the header alone but for .csv, .tsv and .txt, which are read."""
    check_file(path, max_bytes=max_bytes)
    with reading(path):
        suffix = Path(path).suffix.lower()
        if suffix == ".npy":
            return _mapped(str(path), key).shape
        if suffix == ".npz":
            return _npz_shape(str(path), key)
        if suffix == ".parquet":
            return _parquet_shape(str(path), key)
        return read(path, key, max_bytes=max_bytes).shape


def _reader(path) -> Callable[[str, str | None, int], np.ndarray]:
    suffix = Path(path).suffix.lower()
    if suffix not in _READERS:
        raise ValueError(f"no reader for {suffix!r} files here; readable: {', '.join(sorted(SUFFIXES))}")
    return _READERS[suffix]


# ---- numpy ----


def _mapped(path: str, key: str | None) -> np.ndarray:
    """The array of a .npy as a memory map: the header is checked against the file's size, nothing is allocated."""
    if key is not None:
        raise ValueError(f"a .npy holds one array without a name; {key!r} was asked for")
    with open(path, "rb") as file:
        if file.read(len(np.lib.format.MAGIC_PREFIX)) != np.lib.format.MAGIC_PREFIX:
            raise ValueError("not a .npy file, whatever its name says")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise (
            ValueError("truncated: shorter than its header says") if "mmap length" in str(error) else error
        ) from error
    size = os.stat(path).st_size
    if array.offset + array.nbytes != size:
        raise ValueError(f"damaged: {size} bytes, but its header says {array.offset + array.nbytes}")
    return array


def _read_npy(path: str, key: str | None, max_bytes: int) -> np.ndarray:
    return np.array(_mapped(path, key))


def _member(archive: zipfile.ZipFile, key: str | None) -> zipfile.ZipInfo:
    names = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    if key is None and len(names) == 1:
        return next(iter(names.values()))
    if key is None:
        raise ValueError(f"holds {len(names)} arrays, name one of: {', '.join(sorted(names)) or 'none'}")
    if key not in names:
        raise ValueError(f"holds no array {key!r}{suggest(key, names)}")
    return names[key]


def _read_npz(path: str, key: str | None, max_bytes: int) -> np.ndarray:
    with zipfile.ZipFile(path) as archive:
        info = _member(archive, key)
        if info.file_size > max_bytes:
            raise ValueError(f"too large: {info.file_size:,} bytes unpacked, expected at most {max_bytes:,}")
        stream = io.BytesIO(archive.read(info))  # the whole member, because only its end checks the checksum
    try:
        array = np.lib.format.read_array(stream, allow_pickle=False)
    except MemoryError as error:
        raise ValueError("damaged: its header claims more than fits in memory") from error
    if stream.read(1):
        raise ValueError("damaged: longer than its header says")
    return array


def _npz_shape(path: str, key: str | None) -> tuple[int, ...]:
    with zipfile.ZipFile(path) as archive, archive.open(_member(archive, key)) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in _NPY_HEADERS:
            return _read_npz(path, key, MAX_BYTES).shape
        return _NPY_HEADERS[version](stream)[0]


_NPY_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


# ---- text tables ----


def _read_csv(path: str, key: str | None, max_bytes: int) -> np.ndarray:
    first, skip = _first_line(path)
    delimiter = _delimiter(path, first)
    names = _header(first, delimiter)
    columns = _column(names, key) if key is not None else ([*range(1, len(names))] if names and not names[0] else None)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*input contained no data")
        try:
            table = np.loadtxt(
                os.path.abspath(path),
                delimiter=delimiter,
                skiprows=skip + bool(names),
                usecols=columns,
                ndmin=2,
                quotechar='"',
                encoding="utf-8-sig",
            )
        except UnicodeDecodeError:
            raise
        except ValueError as error:
            raise ValueError(_bad_line(path, delimiter, skip + bool(names)) or str(error)) from error
    if not table.size:
        raise ValueError("holds no numbers")
    return table[:, 0] if table.shape[1] == 1 and (key is not None or len(table) > 1) else table


def _first_line(path: str) -> tuple[str, int]:
    """The first line that says something, and how many lines stand before it."""
    with open(path, encoding="utf-8-sig") as file:
        for skip, line in enumerate(file):
            if line.strip() and not line.startswith("#"):
                return line.rstrip("\r\n"), skip
    raise ValueError("holds no numbers")


def _delimiter(path: str, line: str) -> str | None:
    """Tab in a .tsv; else the first of comma, semicolon, tab that the line has; else white space, or a comma in a .csv."""
    suffix = Path(path).suffix.lower()
    if suffix == ".tsv":
        return "\t"
    return next((mark for mark in ",;\t" if mark in line), "," if suffix == ".csv" else None)


def _cells(line: str, delimiter: str | None) -> list[str]:
    return [cell.strip().strip('"') for cell in line.split(delimiter)]


def _header(line: str, delimiter: str | None) -> list[str]:
    """The names of the columns, or none when the line is numbers; pandas writes its index under an empty name."""
    cells = _cells(line, delimiter)
    words = any(cell and not _is_number(cell) for cell in cells)
    return cells if words or (len(cells) > 1 and not cells[0]) else []


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _column(names: list[str], key: str) -> list[int]:
    if key not in names:
        raise ValueError(f"holds no column {key!r}" + (suggest(key, names) if names else "; it has no header"))
    return [names.index(key)]


def _bad_line(path: str, delimiter: str | None, skip: int) -> str:
    """Where a table stops being numbers; read slowly, because the file is known to be bad."""
    width = None
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if number <= skip or not line.strip() or line.startswith("#"):
                continue
            cells = _cells(line.rstrip("\r\n"), delimiter)
            width = width or len(cells)
            if len(cells) != width:
                return f"line {number} has {len(cells)} columns, the lines before have {width}"
            if bad := [cell for cell in cells if not _is_number(cell)]:
                return f"line {number}: {bad[0][:40]!r} is not a number"
    return ""


# ---- parquet ----


def parquet():
    """The module pyarrow.parquet; CounterpointError with the command that installs it when it is missing."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise CounterpointError(
            "reading .parquet needs pyarrow; install it with: pip install 'counterpoint[parquet]'"
        ) from error
    return pyarrow.parquet


def _parquet_columns(schema, key: str | None) -> list[str]:
    names = [name for name in schema.names if not name.startswith("__index_level_")]
    return [names[_column(names, key)[0]]] if key is not None else names


def _parquet_shape(path: str, key: str | None) -> tuple[int, ...]:
    with parquet().ParquetFile(path) as file:
        rows, columns = file.metadata.num_rows, _parquet_columns(file.schema_arrow, key)
    return (rows,) if len(columns) == 1 else (rows, len(columns))


def _read_parquet(path: str, key: str | None, max_bytes: int) -> np.ndarray:
    try:
        with parquet().ParquetFile(path, page_checksum_verification=True) as file:
            columns = _parquet_columns(file.schema_arrow, key)
            if file.metadata.num_rows * len(columns) * 8 > max_bytes:
                raise ValueError(f"too large: {file.metadata.num_rows:,} rows, expected at most {max_bytes:,} bytes")
            table = file.read(columns=columns, use_threads=False)
    except MemoryError as error:
        raise ValueError("damaged: claims more than fits in memory") from error
    arrays = [_numbers(name, table.column(name)) for name in columns]
    return arrays[0] if len(arrays) == 1 else np.column_stack(arrays)


def _numbers(name: str, column) -> np.ndarray:
    if column.null_count:
        raise ValueError(f"column {name!r}: {column.null_count} values are missing")
    array = column.to_numpy()
    if array.dtype.kind not in "biuf":
        raise ValueError(f"column {name!r} holds {column.type}, expected numbers")
    return array


_READERS: dict[str, Callable[[str, str | None, int], np.ndarray]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".txt": _read_csv,
    ".parquet": _read_parquet,
}
