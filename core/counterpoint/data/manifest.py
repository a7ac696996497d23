"""A table of your own recordings: a row a sample, naming its files, its texts, whose it is, and what it is.

data: {use: manifest, path: recordings.csv, inputs: {ecg: file}, groups: [patient]}
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from counterpoint.data.files import Arrays, Files, Layout, Texts, assemble, survey
from counterpoint.data.guard import MAX_BYTES, fault_of, name_of, raise_all
from counterpoint.data.readers import no_reader, readable
from counterpoint.data.split import select
from counterpoint.data.table import Table, raise_problems, read_table
from counterpoint.errors import DataError, suggest

PROBED = 50  # cells of a column that are tried as file names when `inputs` is left out


def manifest(
    *,
    path: str,
    inputs: dict[str, str] | None = None,
    text: dict[str, str] | None = None,
    groups: list[str] | None = None,
    labels: list[str] | None = None,
    split: str = "train",
    split_column: str | None = "split",
    holdout: float = 0.2,
    holdout_by: str | None = None,
    root: str | None = None,
    keys: dict[str, str] | None = None,
    rate: dict[str, float] | None = None,
    layout: Layout | None = None,
    min_length: int = 1,
    max_length: int | None = None,
    constant: bool = False,
    strict: bool = True,
) -> Files:
    """The samples of a CSV, TSV or Parquet table of which each row is one, in the order of the table.

    inputs        modality -> column of file names, relative to `root` (default: the table's folder); an empty cell
                  means that the sample lacks the modality. Left out: every column that names existing files
    text          modality -> column whose cells are the text itself, or names of .txt files
    groups        columns of identities (patient, device): ids in sorted order, empty = unknown
    labels        columns: integers and words are classes; other numbers are values, empty = unknown
    split         the split to give: train or test, or a value of `split_column`
    split_column  column that names each row's split; where the table has none, identities are held out
    holdout       fraction of the identities that are in test and not in train, chosen by a hash of each
    holdout_by    column of those identities; default: the first group, else every row by itself
    keys          modality -> array of the .npz, or column of the table, that its files hold it under
    rate          modality -> sampling rate in Hz
    layout        channels_first: arrays are (C, L); time_first: (L, C). Arrays (L,) become (1, L). Left out: channels
                  first, and more channels than samples are refused
    min_length, max_length  bounds of an array's last dimension, in samples
    constant      accept arrays whose values are all equal
    strict        look at every file's size and at up to 2000 headers first, and refuse to start when any is bad; false
                  leaves bad files to the loader (`loader: {on_bad: skip}`)

    Arrays come as float32 (C, L); texts as the ids of ByT5, and the text itself in `fields`. Raises DataError with
    every problem of the table, each with its line.
    """
    table = read_table(path)
    folder = Path(root).expanduser() if root is not None else Path(table.path).parent
    text, groups, labels = text or {}, groups or [], labels or []
    by = holdout_by or next(iter(groups), None)
    _check_columns(table, inputs or {}, text, groups, labels, split_column, holdout_by)
    if inputs is None:
        others = {*text.values(), *groups, *labels, by, split_column, "id"}
        inputs = _columns_of_files(table, folder, others, needed=not text)
    _check_modalities(table, inputs, text, keys or {}, rate or {})
    cells = _cells(table, folder, inputs, text)
    bad_files = _check_files(table, cells, inputs, text) if strict else []
    raise_problems(table.path, [*_check_rows(table, cells, split_column), *bad_files])
    sources: dict[str, Arrays | Texts] = {
        m: Arrays((keys or {}).get(m), layout, None, min_length, max_length, constant) for m in inputs
    } | {m: Texts() for m in text}
    sources, known, problems = survey(sources, cells, rate or {}, strict)
    raise_problems(table.path, [(table.lines[i], problem) for i, problem in problems])
    chosen, splits = select(
        split, table.columns.get(split_column or ""), _identities(table, by), holdout, name_of(table.path)
    )
    return assemble(
        cells=cells,
        sources=sources,
        known=known,
        groups={name: table.columns[name] for name in groups},
        labels={name: table.columns[name] for name in labels},
        chosen=chosen,
        splits=splits,
    )


def _check_columns(table: Table, inputs, text, groups, labels, split_column: str | None, holdout_by) -> None:
    """Every column that is asked for and not there, in one error."""
    asked = [(f"inputs.{modality}", column) for modality, column in inputs.items()]
    asked += [(f"text.{modality}", column) for modality, column in text.items()]
    asked += [("groups", column) for column in groups] + [("labels", column) for column in labels]
    asked += [("holdout_by", holdout_by)] if holdout_by else []
    asked += [("split_column", split_column)] if split_column not in (None, "split") else []
    problems = [
        f"{name_of(table.path)}: {who}: there is no column {column!r}{suggest(column, table.columns)}"
        for who, column in asked
        if column not in table.columns
    ]
    raise_all(problems)


def _columns_of_files(table: Table, folder: Path, others: set[str | None], needed: bool) -> dict[str, str]:
    """Columns of which one of the first cells names an existing file, each as a modality of its own name."""
    found = {}
    for column, values in table.columns.items():
        first = [value for value in values[:1000] if value][:PROBED]
        if column not in others and any(os.path.isfile(folder / value) for value in first):
            found[column] = column
    if needed and not found:
        raise DataError(
            f"{name_of(table.path)}: no column names existing files (columns: {', '.join(table.columns)}; looked in "
            f"{name_of(folder)}); say inputs: {{modality: column}}, and root: FOLDER if the files are elsewhere"
        )
    return found


def _check_modalities(table: Table, inputs, text, keys, rate) -> None:
    problems = [f"{m!r} is both in inputs and in text" for m in sorted(set(inputs) & set(text))]
    for parameter, named in (("keys", keys), ("rate", rate)):
        problems += [
            f"{parameter}.{m}: {m!r} is not a modality of files{suggest(m, inputs)}" for m in named if m not in inputs
        ]
    problems += ["inputs and text are both empty: there is nothing to read"] if not inputs and not text else []
    raise_all([f"{name_of(table.path)}: {problem}" for problem in problems])


def _cells(table: Table, folder: Path, inputs: Mapping[str, str], text: Mapping[str, str]) -> dict[str, list[str]]:
    """modality -> full path, text, or "" of every row."""
    top = os.fspath(folder)
    located = lambda cell: os.path.join(top, os.path.expanduser(cell)) if cell else ""  # noqa: E731
    cells = {m: [located(cell) for cell in table.columns[column]] for m, column in inputs.items()}
    for m, column in text.items():
        cells[m] = [located(cell) if Texts.is_file(cell) else cell for cell in table.columns[column]]
    return cells


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


def _check_files(table: Table, cells: Mapping[str, list[str]], inputs, text) -> list[tuple[int, str]]:
    """Files that no reader knows or that cannot be opened, by name and `stat` alone."""
    problems: list[tuple[int, str]] = []
    for modality, column in cells.items():
        hint = "" if modality in text else _text_hint(modality, inputs[modality], column)
        for line, cell in zip(table.lines, column):
            if not cell or (modality in text and not Texts.is_file(cell)):
                continue
            if fault := fault_of(cell, MAX_BYTES):
                problems.append((line, f"{modality}: {name_of(cell)}: {fault}{hint}"))
            elif not readable(cell):
                problems.append((line, f"{modality}: {name_of(cell)}: {no_reader(cell)}"))
    return problems


def _text_hint(modality: str, column: str, cells: Sequence[str]) -> str:
    if any(readable(cell) for cell in cells if cell):
        return ""
    return f"; if the cells are the text itself, say text: {{{modality}: {column}}}"


def _identities(table: Table, by: str | None) -> list[str]:
    """What is held out as a whole: the cell of the column `by`, or the row itself where there is none."""
    rows = [f"\0row {i}" for i in range(len(table))]
    return rows if by is None else [value or row for value, row in zip(table.columns[by], rows)]
