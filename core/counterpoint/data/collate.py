"""Samples to a Batch: the rows that exist, stacked, and padded only where a modality's lengths differ.

Dimensions: B samples kept, n rows of one modality, L length of the one dimension that varies.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoint.batch import Batch, View
from counterpoint.data.dataset import Sample, reads_together
from counterpoint.data.guard import MAX_BYTES, named
from counterpoint.errors import DataError

Item = tuple[int, Sample | DataError]


def collate(items: list[Item] | Batch) -> Batch:
    """(position in the data set, sample) pairs as one Batch, in their order; what was read as a Batch stays as it is.

    A modality's `data` (n, ...) holds the rows that exist, float64 as float32 and integers but bytes as int64; where one
    dimension differs between rows it is padded with 0 at the end and `mask` (n, L) is true for what is real. When a
    sample has several rows of a modality, `meta["part"]` int64 (n,) numbers them. A DataError in place of a sample is
    dropped, and its message kept in `fields["skipped"]`. Nothing but errors gives an empty Batch. A sample so long that the
    others, padded to it, would take more than MAX_BYTES counts as one that cannot be read.

    Raises DataError when rows differ in more than one dimension, or in type.
    """
    if isinstance(items, Batch):
        return items
    while True:
        try:
            return _collated(items)
        except _TooLong as long:
            index = long.index
            items = [(i, DataError(f"sample {i} {long}") if i == index else sample) for i, sample in items]


class _TooLong(Exception):
    """The row that is longer than the batch can be padded to, and its place among the samples that were kept."""

    def __init__(self, row: int, message: str):
        self.row, self.index = row, -1
        super().__init__(message)


def _collated(items: list[Item]) -> Batch:
    kept = [(index, sample) for index, sample in items if not isinstance(sample, DataError)]
    samples = [sample for _, sample in kept]
    skipped = [str(named(error, index)) for index, error in items if isinstance(error, DataError)]
    try:
        inputs = _inputs(samples)
    except _TooLong as long:
        long.index = kept[long.row][0]
        raise
    return Batch(
        inputs=inputs,
        index=torch.tensor([index for index, _ in kept], dtype=torch.int64),
        groups={k: torch.tensor(v, dtype=torch.int64) for k, v in _columns([s.groups for s in samples], -1).items()},
        labels={k: _labels(v) for k, v in _columns([s.labels for s in samples]).items()},
        fields={k: _field(v) for k, v in _columns([s.fields for s in samples]).items()}
        | ({"skipped": skipped} if skipped else {}),
    )


def together(dataset, index: list[int]) -> Batch | None:
    """The Batch that `collate` makes of these samples, read at once; None where they have to be read one by one."""
    if not index or not reads_together(type(dataset)):
        return None
    where = torch.tensor(index, dtype=torch.int64)
    try:
        found = dataset.inputs_of(where)
    except Exception:  # which sample it is, is found in reading them one by one
        return None
    if found is None:
        return None
    row, host = torch.arange(len(index)), where.numpy()
    return Batch(
        inputs={modality: View(modality, _plain(found[modality]), row) for modality in sorted(found)},
        index=where,
        groups={name: torch.from_numpy(column[host].astype(np.int64)) for name, column in dataset.groups.items()},
        labels={name: _picked(column[host]) for name, column in dataset.labels.items()},
    )


def _picked(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32 if values.dtype.kind == "f" else np.int64))


def _columns(tables: list[dict], missing: Any = None) -> dict[str, list]:
    names = dict.fromkeys(name for table in tables for name in table)
    return {name: [table.get(name, missing) for table in tables] for name in names}


def _labels(values: list[int | float | None]) -> Tensor:
    """int64 with -1 for a sample that lacks the label, or float32 with NaN when any value is a float."""
    if any(isinstance(value, float) for value in values):
        return torch.tensor([float("nan") if value is None else value for value in values], dtype=torch.float32)
    return torch.tensor([-1 if value is None else value for value in values], dtype=torch.int64)


def _field(values: list) -> Tensor | list:
    first = values[0]
    if all(isinstance(v, Tensor) and v.shape == first.shape and v.dtype == first.dtype for v in values):
        return torch.stack(values)
    return values


def _inputs(samples: list[Sample]) -> dict[str, View]:
    rows: dict[str, tuple[list[Tensor], list[int], list[int]]] = {}
    for i, sample in enumerate(samples):
        for modality, value in sample.inputs.items():
            parts = value if isinstance(value, list | tuple) else [value]
            data, row, part = rows.setdefault(modality, ([], [], []))
            data.extend(parts)
            row.extend([i] * len(parts))
            part.extend(range(len(parts)))
    return {modality: _view(modality, *rows[modality]) for modality in sorted(rows) if rows[modality][0]}


def _view(modality: str, rows: list[Tensor], row: list[int], part: list[int]) -> View:
    try:
        data, mask = _stack(modality, [_plain(x) for x in rows])
    except _TooLong as long:
        long.row = row[long.row]  # of rows, the sample
        raise
    meta = {"part": torch.tensor(part, dtype=torch.int64)} if any(part) else {}
    return View(modality, data, torch.tensor(row, dtype=torch.int64), mask, meta=meta)


def _plain(x: Any) -> Tensor:
    """`x` with one of few dtypes: float64 -> float32, integers -> int64; bytes, bool and smaller floats as they are."""
    if isinstance(x, Tensor) and x.dtype == torch.float32:  # most rows: this is called for every one
        return x
    x = torch.as_tensor(x)
    if x.dtype == torch.float64:
        return x.float()
    kept = x.is_floating_point() or x.is_complex() or x.dtype in (torch.bool, torch.uint8)
    return x if kept else x.long()


def _stack(modality: str, rows: list[Tensor]) -> tuple[Tensor, Tensor | None]:
    shapes, dtypes = {x.shape for x in rows}, {x.dtype for x in rows}
    if len(dtypes) > 1:
        raise DataError(f"modality {modality!r}: rows of different types: {_some(dtypes)}")
    if len(shapes) == 1:
        return torch.stack(rows), None
    dim = _varying(modality, {tuple(shape) for shape in shapes})
    length = torch.tensor([x.shape[dim] for x in rows])
    longest = int(length.max())
    if (size := len(rows) * max(x.numel() * x.element_size() for x in rows)) > MAX_BYTES:
        padded = f"padded to it, the batch would take {size:,} bytes, expected at most {MAX_BYTES:,}"
        raise _TooLong(int(length.argmax()), f"{modality!r}: too long: length {longest:,}; {padded}")
    mask = torch.arange(longest) < length[:, None]  # (n, L)
    data = rows[0].new_zeros(len(rows), *rows[0].shape[:dim], longest, *rows[0].shape[dim + 1 :])
    for padded, x in zip(data, rows):
        padded.narrow(dim, 0, x.shape[dim]).copy_(x)
    return data, mask


def _varying(modality: str, shapes: set[tuple[int, ...]]) -> int:
    """The one dimension in which the shapes differ."""
    if len({len(shape) for shape in shapes}) == 1:
        varying = [dim for dim, sizes in enumerate(zip(*shapes)) if len(set(sizes)) > 1]
        if len(varying) == 1:
            return varying[0]
    raise DataError(f"modality {modality!r}: rows differ in more than one dimension: {_some(shapes)}")


def _some(values: set) -> str:
    listed = sorted(str(value) for value in values)
    return ", ".join(listed[:4]) + (f" and {len(listed) - 4} more" if len(listed) > 4 else "")
