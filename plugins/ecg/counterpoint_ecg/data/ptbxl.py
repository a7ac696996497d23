"""The layout of PTB-XL: 12-lead ECGs of ten seconds as WFDB records, beside a table of what physicians found in them.

data: {use: ecg.ptbxl, path: ptb-xl-1.0.3}
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from counterpoint.data.files import Files, from_columns
from counterpoint.data.guard import name_of
from counterpoint.data.table import Table, raise_problems, read_table
from counterpoint.errors import DataError, suggest
from counterpoint.markers import Reader
from counterpoint_ecg.readers.signal import Signal

SPLIT_OF_FOLD = {str(fold): "train" for fold in range(1, 9)} | {"9": "val", "10": "test"}
MAX_CODES = 4096  # characters of a cell of statements


def ptbxl(
    *,
    path: str,
    split: Literal["train", "val", "test"] = "train",
    rate: Literal[100, 500] = 100,
    reader: Reader | None = None,
    strict: bool = True,
) -> Files:
    """PTB-XL: modality "ecg", float32 (12, 1000) at 100 Hz in mV; group "patient"; labels "superclass" and "sex".

    path    the folder with ptbxl_database.csv, scp_statements.csv and the records
    split   by the authors' folds, which keep a patient together: 1 to 8 train, 9 val, 10 test
    rate    which of the two copies of a record: 100 or 500 Hz
    reader  how they are read (default `ecg.signal`, as they are)
    strict  read up to 2000 headers first, and refuse to start when any is bad

    The superclass (NORM, MI, STTC, CD, HYP) is the one of the most likely diagnostic statement; where two are equally
    likely, or none is diagnostic, it is unknown. Raises DataError naming table and line for missing columns, folds that
    are none, statements that cannot be read, and records outside the folder.
    Source: Wagner et al., "PTB-XL", Scientific Data 7 (2020); superclasses and folds: its tables 1 and 5.
    """
    root = Path(path).expanduser()
    table = _table(root / "ptbxl_database.csv", ("patient_id", "strat_fold", "scp_codes", "sex", _column(rate)))
    classes = _superclasses(root / "scp_statements.csv")
    rows = [_row(root, table, i, _column(rate), classes) for i in range(len(table))]
    raise_problems(table.path, [(line, row) for line, row in zip(table.lines, rows) if isinstance(row, str)])
    records, patients, sexes, superclasses, splits = (list(column) for column in zip(*rows))
    return from_columns(
        cells={"ecg": records},
        readers={"ecg": reader or Signal()},
        groups={"patient": patients},
        labels={"superclass": superclasses, "sex": sexes},
        splits=splits,
        split=split,
        where=name_of(table.path),
        strict=strict,
        lines=table.lines,
    )


def _column(rate: int) -> str:
    return "filename_hr" if rate == 500 else "filename_lr"


def _table(path: Path, columns: Sequence[str]) -> Table:
    table = read_table(str(path))
    for name in columns:
        if name not in table.columns:
            raise DataError(f"{name_of(path)}: there is no column {name!r}{suggest(name, table.columns)}")
    return table


def _superclasses(path: Path) -> dict[str, str]:
    """Diagnostic statement -> its superclass. The statements are in a first column that has no name."""
    table = _table(path, ("diagnostic", "diagnostic_class"))
    statements = table.columns[next(iter(table.columns))]
    pairs = zip(statements, table.columns["diagnostic"], table.columns["diagnostic_class"])
    return {statement: kind for statement, diagnostic, kind in pairs if diagnostic in ("1", "1.0") and kind}


def _row(root: Path, table: Table, i: int, column: str, classes: Mapping[str, str]) -> tuple[str, ...] | str:
    """Record, patient, sex, superclass and split of a row, or what is wrong with it."""
    cell = {name: values[i] for name, values in table.columns.items()}
    record, fold = PurePosixPath(cell[column]), cell["strat_fold"].removesuffix(".0")
    if not cell[column] or record.is_absolute() or ".." in record.parts:
        return f"{column}: {cell[column]!r} is no path inside the folder"
    if fold not in SPLIT_OF_FOLD:
        return f"strat_fold: {cell['strat_fold']!r}, expected 1 to 10"
    try:
        superclass = _superclass(_statements(cell["scp_codes"]), classes)
    except ValueError as error:
        return f"scp_codes: {error}"
    patient = cell["patient_id"].removesuffix(".0")
    return f"{root / record}.hea", patient, cell["sex"], superclass, SPLIT_OF_FOLD[fold]


def _statements(text: str) -> dict[str, float]:
    """Statement -> likelihood in percent, of a cell such as `{'NORM': 100.0, 'SR': 0.0}`; it is never evaluated."""
    try:
        found = ast.literal_eval(text) if len(text) <= MAX_CODES else None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and type(value) in (int, float) for name, value in found.items()
    ):
        raise ValueError(f"{text[:40]!r} is no table of statements, such as {{'NORM': 100.0}}")
    return found


def _superclass(statements: Mapping[str, float], classes: Mapping[str, str]) -> str:
    """The superclass of the most likely statement, or nothing when it is not a single one."""
    likely = [(value, classes[name]) for name, value in statements.items() if name in classes]
    best = {kind for value, kind in likely if value == max(likely)[0]}
    return best.pop() if len(best) == 1 else ""
