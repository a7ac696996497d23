"""A table of text cells from a CSV, TSV or Parquet file, with the line each row stands on."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from counterpoint.data.guard import check_file, name_of, raise_all, reading
from counterpoint.data.numbers import parquet
from counterpoint.errors import DataError


@dataclass
class Table:
    """Columns of stripped text, "" = missing; `lines` are the rows' line numbers, in a Parquet file row numbers."""

    path: str
    columns: dict[str, list[str]]
    lines: list[int]
    problems: list[tuple[int, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.lines)


def raise_problems(where: str, problems: Sequence[tuple[int, str]]) -> None:
    """Raise one DataError with every (line, problem), in the order of the lines."""
    raise_all([f"{name_of(where)}:{line}: {problem}" for line, problem in sorted(problems)])


def read_table(path: str) -> Table:
    """The table in a .csv, .tsv or .parquet; DataError when there is none, or when it has no rows.

    A .csv may be separated by commas, semicolons or tabs: whichever its header has most of.
    """
    full = Path(path).expanduser()
    check_file(full)
    reader = _READERS.get(full.suffix.lower())
    if reader is None:
        raise DataError(f"{name_of(full)}: a manifest is one of {', '.join(_READERS)}; got {full.suffix!r}")
    with reading(full):
        table = reader(full)
    raise_problems(table.path, table.problems)
    if not table.lines:
        raise DataError(f"{name_of(full)}: has no rows")
    return table


def _read_text(path: Path) -> Table:
    with path.open(encoding="utf-8-sig", newline="") as file:
        mark = _delimiter(path, file.readline())
        file.seek(0)
        rows = csv.reader(file, delimiter=mark, strict=True)
        names = [name.strip() for name in next(rows, [])]
        table = Table(str(path), {name: [] for name in names}, [], _header_problems(names))
        try:
            _add_rows(table, names, rows)
        except csv.Error as error:
            table.problems.append((rows.line_num, str(error)))
    return table


def _add_rows(table: Table, names: list[str], rows) -> None:
    line, columns = rows.line_num, [table.columns[name] for name in names]
    for row in rows:
        start, line = line + 1, rows.line_num  # a quoted cell may hold line breaks
        if len(row) == len(names):
            table.lines.append(start)
            for column, cell in zip(columns, row):
                column.append(cell.strip())
        elif row:
            table.problems.append((start, f"{len(row)} cells, the header has {len(names)}"))


def _delimiter(path: Path, header: str) -> str:
    return "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=header.count)


def _header_problems(names: list[str]) -> list[tuple[int, str]]:
    return [(1, f"two columns are called {name!r}") for name in sorted(set(names)) if names.count(name) > 1]


def _read_parquet(path: Path) -> Table:
    table = parquet().read_table(path, use_threads=False)
    columns = {name: [_cell(value) for value in table.column(name).to_pylist()] for name in table.column_names}
    return Table(str(path), columns, list(range(1, table.num_rows + 1)))


def _cell(value) -> str:
    return "" if value is None or value != value else str(value).strip()


_READERS: dict[str, Callable[[Path], Table]] = {".csv": _read_text, ".tsv": _read_text, ".parquet": _read_parquet}
