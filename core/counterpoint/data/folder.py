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

from counterpoint.data.files import Arrays, Files, Layout, Texts, assemble, survey
from counterpoint.data.guard import MAX_BYTES, fault_of, name_of, raise_all, reading
from counterpoint.data.readers import readable
from counterpoint.data.split import select
from counterpoint.errors import DataError, suggest

SPLITS = ("train", "val", "valid", "validation", "dev", "test")


def folder(
    *,
    path: str,
    modality: str,
    pattern: str = "**/*",
    text: bool = False,
    label: Literal["parent"] | None = "parent",
    groups: dict[str, str] | None = None,
    split: str = "train",
    holdout: float = 0.2,
    holdout_by: str | None = None,
    key: str | None = None,
    rate: float | None = None,
    layout: Layout | None = None,
    min_length: int = 1,
    max_length: int | None = None,
    constant: bool = False,
    strict: bool = True,
) -> Files:
    """The files under a folder, in the byte order of their names; hidden files are left out.

    modality    what the files are
    pattern     which files (a glob under `path`); they must all be of one kind that has a reader
    text        the files are .txt with the text itself, not numbers
    label       parent: a label `class`, the name of the folder that the file is in; a file that lies in `path` itself
                has none
    groups      name -> regular expression searched in the path under `path`; its one parenthesis is the identity
    split       the split to give: train or test, held out by hash. Where every file is under a first folder called
                train, val, valid, validation, dev or test, those are the splits
    holdout     fraction of the identities that are in test and not in train
    holdout_by  name of the group of those identities; default: the first group, else every file by itself
    key, rate, layout, min_length, max_length, constant, strict  as in `manifest`, for the one modality

    Raises DataError with every bad file.
    """
    top = Path(path).expanduser()
    names = _names(top, pattern)
    _check_kinds(top, names, text)
    identities = {name: _matches(top, names, name, expression) for name, expression in (groups or {}).items()}
    by = holdout_by or next(iter(identities), None)
    if by is not None and by not in identities:
        raise DataError(f"{name_of(top)}: holdout_by: there is no group {by!r}{suggest(by, identities)}")
    cells = {modality: [os.path.join(top, name) for name in names]}
    faults = [(cell, fault_of(cell, MAX_BYTES)) for cell in cells[modality]] if strict else []
    raise_all([f"{name_of(cell)}: {fault}" for cell, fault in faults if fault])
    source = Texts() if text else Arrays(key, layout, None, min_length, max_length, constant)
    sources, known, problems = survey({modality: source}, cells, {} if rate is None else {modality: rate}, strict)
    raise_all([problem for _, problem in problems])
    chosen, splits = select(split, _splits(names), identities[by] if by else names, holdout, name_of(top))
    return assemble(
        cells=cells,
        sources=sources,
        known=known,
        groups=identities,
        labels=_labels(names) if label else {},
        chosen=chosen,
        splits=splits,
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


def _check_kinds(top: Path, names: Sequence[str], text: bool) -> None:
    """Files that no reader knows, or of another kind than most, are an error: they are there by accident."""
    fits = Texts.is_file if text else readable
    good = Counter(Path(name).suffix.lower() for name in names if fits(name))
    kind = good.most_common(1)[0][0] if good else (".txt" if text else ".npy")
    others = Counter(Path(name).suffix.lower() or name for name in names if not name.lower().endswith(kind))
    if others:
        counts = ", ".join(f"{count} {other}" for other, count in others.most_common(5))
        raise DataError(
            f"{name_of(top)}: {others.total()} of {len(names)} files are not {kind} ({counts}); say which to take, as in "
            f"pattern: '**/*{kind}', or let a domain pack's dataset read them"
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
    return first if set(first) <= set(SPLITS) else None


def _labels(names: Sequence[str]) -> dict[str, list[str]]:
    classes = [PurePosixPath(name).parent.name for name in names]
    return {"class": classes} if any(classes) else {}
