"""A folder of files, one a sample, with the class in the name of the folder that a file is in.

data: {use: folder, path: recordings, modality: ecg, groups: {patient: "(p[0-9]+)_"}}
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from counterpoint.data.arrays import Arrays
from counterpoint.data.files import Files, from_columns
from counterpoint.data.guard import MAX_BYTES, fault_of, name_of, raise_all, reading
from counterpoint.data.reader import Reader, no_reader
from counterpoint.errors import DataError, suggest
from counterpoint.markers import Reader as ReaderCall

SPLITS = ("train", "val", "valid", "validation", "dev", "test")


def folder(
    *,
    path: str,
    modality: str,
    reader: ReaderCall | None = None,
    pattern: str = "**/*",
    label: Literal["parent"] | None = "parent",
    groups: dict[str, str] | None = None,
    split: str = "train",
    holdout: float = 0.2,
    holdout_by: str | None = None,
    strict: bool = True,
) -> Files:
    """The files under a folder, in the byte order of their names; hidden files are left out.

    modality    what the files are
    reader      how they are read, one of `counterpoint list reader`; the default is `arrays`
    pattern     which files (a glob under `path`); the reader must read them all
    label       parent: a label `class`, the name of the folder that the file is in; a file that lies in `path` itself
                has none
    groups      name -> regular expression searched in the path under `path`; its one parenthesis is the identity
    split       the split to give: train or test, held out by hash. Where every file is under a first folder called
                train, val, valid, validation, dev or test, those are the splits; the only one beside train is "test"
    holdout     fraction of the identities that are in test and not in train
    holdout_by  name of the group of those identities; default: the first group, else every file by itself
    strict      look at every file first, and refuse to start when any is bad; false leaves bad files to the loader

    Raises DataError with every bad file.
    """
    top, reader = Path(path).expanduser(), reader or Arrays()
    names = _names(top, pattern)
    _check_kinds(top, names, reader)
    identities = {name: _matches(top, names, name, expression) for name, expression in (groups or {}).items()}
    by = holdout_by or next(iter(identities), None)
    if by is not None and by not in identities:
        raise DataError(f"{name_of(top)}: holdout_by: there is no group {by!r}{suggest(by, identities)}")
    cells = [os.path.join(top, name) for name in names]
    faults = [(cell, fault_of(cell, MAX_BYTES)) for cell in cells] if strict else []
    raise_all([f"{name_of(cell)}: {fault}" for cell, fault in faults if fault])
    return from_columns(
        cells={modality: cells},
        readers={modality: reader},
        groups=identities,
        labels=_labels(names) if label else {},
        splits=_splits(names),
        split=split,
        by=identities[by] if by else names,
        holdout=holdout,
        where=name_of(top),
        strict=strict,
    )


def _names(top: Path, pattern: str) -> list[str]:
    """Paths under `top` of the files that match, with slashes, in byte order."""
    if not top.is_dir():
        raise DataError(f"{name_of(top)}: {fault_of(top) or 'is a file, not a directory'}")
    with reading(top):
        found = [path.relative_to(top) for path in top.glob(pattern) if not path.is_dir()]
    names = sorted((p.as_posix() for p in found if not any(part.startswith(".") for part in p.parts)), key=os.fsencode)
    if not names:
        raise DataError(f"{name_of(top)}: no file matches pattern {pattern!r}")
    return names


def _check_kinds(top: Path, names: Sequence[str], reader: Reader) -> None:
    """Files that the reader does not read are an error: they are there by accident, or the reader is another."""
    suffix = lambda name: PurePosixPath(name).suffix.lower() or name  # noqa: E731
    good = Counter(suffix(name) for name in names if reader.reads(name))
    if not good and len({suffix(name) for name in names}) == 1:
        raise DataError(f"{name_of(top)}: {no_reader(names[0], reader)}")
    kind = good.most_common(1)[0][0] if good else next(iter(reader.suffixes))
    notes = set(reader.headless) - {kind}  # a notes.txt among recordings is no recording
    others = Counter(suffix(name) for name in names if not reader.reads(name) or suffix(name) in notes)
    if others:
        counts = ", ".join(f"{count} {other}" for other, count in others.most_common(5))
        raise DataError(
            f"{name_of(top)}: {others.total()} of {len(names)} files are not {kind} ({counts}); say which to take, as in "
            f"pattern: '**/*{kind}', or another `reader`"
        )


def _matches(top: Path, names: Sequence[str], group: str, expression: str) -> list[str]:
    """What the parenthesis of `expression` matched in every name."""
    try:
        search = re.compile(expression).search
    except re.error as error:
        raise DataError(f"{name_of(top)}: groups.{group}: {expression!r} is no regular expression: {error}") from error
    if re.compile(expression).groups != 1:
        raise DataError(f"{name_of(top)}: groups.{group}: {expression!r} must have one parenthesis, as in '(p[0-9]+)_'")
    found = [search(name) for name in names]
    raise_all(
        [f"{name_of(top / n)}: groups.{group}: {expression!r} is not in it" for n, m in zip(names, found) if not m]
    )
    return [match[1] or "" for match in found]


def _splits(names: Sequence[str]) -> list[str] | None:
    """The split that each file's first folder names, or None when not every one does."""
    first = [PurePosixPath(name).parts[0] for name in names]
    if not set(first) <= set(SPLITS):
        return None
    others = set(first) - {"train"}
    return ["test" if name in others else name for name in first] if len(others) == 1 else first


def _labels(names: Sequence[str]) -> dict[str, list[str]]:
    classes = [PurePosixPath(name).parent.name for name in names]
    return {"class": classes} if any(classes) else {}
