"""A table of your own recordings: a row a sample, naming its files, its texts, whose it is, and what it is.

data: {use: manifest, path: recordings.csv, inputs: {ecg: file}, groups: [patient]}
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from counterpoint.data.arrays import Arrays
from counterpoint.data.files import Files, from_columns
from counterpoint.data.guard import MAX_BYTES, fault_of, name_of, raise_all
from counterpoint.data.reader import Reader, no_reader
from counterpoint.data.table import Table, raise_problems, read_table
from counterpoint.errors import DataError, suggest
from counterpoint.markers import Reader as ReaderCall

PROBED = 50  # cells of a column that are tried as file names when `inputs` is left out


def manifest(
    *,
    path: str,
    inputs: dict[str, str] | None = None,
    readers: dict[str, ReaderCall] | None = None,
    groups: list[str] | None = None,
    labels: list[str] | None = None,
    split: str = "train",
    split_column: str | None = "split",
    holdout: float = 0.2,
    holdout_by: str | None = None,
    root: str | None = None,
    strict: bool = True,
) -> Files:
    """The samples of a CSV, TSV or Parquet table of which each row is one, in the order of the table.

    inputs        modality -> column of file names, relative to `root` (default: the table's folder), or of texts; an
                  empty cell means that the sample lacks the modality. Left out: every column that names existing files
    readers       modality -> how its files are read, one of `counterpoint list reader`; the default is `arrays`
    groups        columns of identities (patient, device): ids in sorted order, empty = unknown
    labels        columns: integers and words are classes; other numbers are values, empty = unknown
    split         the split to give: train or test, or a value of `split_column`
    split_column  column that names each row's split; where the table has none, identities are held out
    holdout       fraction of the identities that are in test and not in train, chosen by a hash of each
    holdout_by    column of those identities; default: the first group, else every row by itself
    strict        look at every file's size and at up to 2000 headers first, and refuse to start when any is bad; false
                  leaves bad files to the loader (`loader: {on_bad: skip}`)

    Text stands in `fields`, too, as it is. Raises DataError with every problem of the table, each with its line.
    """
    table = read_table(path)
    folder = Path(root).expanduser() if root is not None else Path(table.path).parent
    readers, groups, labels = readers or {}, groups or [], labels or []
    by = holdout_by or next(iter(groups), None)
    _check_columns(table, inputs or {}, groups, labels, split_column, holdout_by)
    if inputs is None:
        others = {*groups, *labels, by, split_column, "id"}
        inputs = _columns_of_files(table, folder, others)
    _check_readers(table, inputs, readers)
    readers = {modality: readers.get(modality) or Arrays() for modality in inputs}
    cells = _cells(table, folder, inputs, readers)
    bad_files = _check_files(table, cells, inputs, readers) if strict else []
    raise_problems(table.path, [*_check_rows(table, cells, split_column), *bad_files])
    return from_columns(
        cells=cells,
        readers=readers,
        groups={name: table.columns[name] for name in groups},
        labels={name: table.columns[name] for name in labels},
        splits=table.columns.get(split_column or ""),
        split=split,
        by=_identities(table, by),
        holdout=holdout,
        where=name_of(table.path),
        strict=strict,
        lines=table.lines,
    )


def _check_columns(table: Table, inputs, groups, labels, split_column: str | None, holdout_by) -> None:
    """Every column that is asked for and not there, in one error."""
    asked = [(f"inputs.{modality}", column) for modality, column in inputs.items()]
    asked += [("groups", column) for column in groups] + [("labels", column) for column in labels]
    asked += [("holdout_by", holdout_by)] if holdout_by else []
    asked += [("split_column", split_column)] if split_column not in (None, "split") else []
    problems = [
        f"{name_of(table.path)}: {who}: there is no column {column!r}{suggest(column, table.columns)}"
        for who, column in asked
        if column not in table.columns
    ]
    raise_all(problems)


def _columns_of_files(table: Table, folder: Path, others: set[str | None]) -> dict[str, str]:
    """Columns of which one of the first cells names an existing file, each as a modality of its own name."""
    found = {}
    for column, values in table.columns.items():
        first = [value for value in values[:1000] if value][:PROBED]
        if column not in others and any(os.path.isfile(folder / value) for value in first):
            found[column] = column
    if not found:
        raise DataError(
            f"{name_of(table.path)}: no column names existing files (columns: {', '.join(table.columns)}; looked in "
            f"{name_of(folder)}); say inputs: {{modality: column}}, and root: FOLDER if the files are elsewhere"
        )
    return found


def _check_readers(table: Table, inputs: Mapping[str, str], readers: Mapping[str, Reader]) -> None:
    problems = [f"readers.{m}: {m!r} is not a modality{suggest(m, inputs)}" for m in readers if m not in inputs]
    problems += [] if inputs else ["inputs is empty: there is nothing to read"]
    raise_all([f"{name_of(table.path)}: {problem}" for problem in problems])


def _cells(
    table: Table, folder: Path, inputs: Mapping[str, str], readers: Mapping[str, Reader]
) -> dict[str, list[str]]:
    """modality -> full path, text, or "" of every row."""
    top = os.fspath(folder)
    located = lambda cell: os.path.join(top, os.path.expanduser(cell))  # noqa: E731
    return {
        m: [located(cell) if cell and readers[m].is_file(cell) else cell for cell in table.columns[column]]
        for m, column in inputs.items()
    }


def _check_rows(table: Table, cells: Mapping[str, list[str]], split_column: str | None) -> list[tuple[int, str]]:
    problems = []
    splits = table.columns.get(split_column or "")
    for i, line in enumerate(table.lines):
        if not any(column[i] for column in cells.values()):
            problems.append((line, f"no input: {', '.join(cells)} {'is' if len(cells) == 1 else 'are'} empty"))
        if splits and not splits[i]:
            problems.append((line, f"{split_column} is empty"))
    return problems + _check_ids(table)


def _check_ids(table: Table) -> list[tuple[int, str]]:
    first: dict[str, int] = {}
    return [
        (line, f"id {value!r} is also on line {first[value]}")
        for value, line in zip(table.columns.get("id", []), table.lines)
        if value and first.setdefault(value, line) != line
    ]


def _check_files(
    table: Table, cells: Mapping[str, list[str]], inputs: Mapping[str, str], readers: Mapping[str, Reader]
) -> list[tuple[int, str]]:
    """Files that their reader does not read or that cannot be opened, by name and `stat` alone."""
    problems: list[tuple[int, str]] = []
    for modality, column in cells.items():
        reader = readers[modality]
        hint = _text_hint(modality, reader, column)
        for line, cell in zip(table.lines, column):
            if not cell or not reader.is_file(cell) or (reader.directories and os.path.isdir(cell)):
                continue
            if fault := fault_of(cell, MAX_BYTES):
                problems.append((line, f"{modality}: {name_of(cell)}: {fault}{hint}"))
            elif not reader.reads(cell):
                problems.append((line, f"{modality}: {name_of(cell)}: {no_reader(cell, reader)}"))
    return problems


def _text_hint(modality: str, reader: Reader, cells: Sequence[str]) -> str:
    if any(reader.reads(cell) for cell in cells if cell):
        return ""
    return f"; if the cells are the text itself, say readers: {{{modality}: {{use: text}}}}"


def _identities(table: Table, by: str | None) -> list[str]:
    """What is held out as a whole: the cell of the column `by`, or the row itself where there is none."""
    rows = [f"\0row {i}" for i in range(len(table))]
    return rows if by is None else [value or row for value, row in zip(table.columns[by], rows)]
