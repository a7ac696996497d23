"""Tar archives as one row of samples: which there are, what is in them, and those that a split keeps."""

from __future__ import annotations

import glob
import json
import os
import re
from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np

from counterpoint.data.guard import fault_of, name_of, one_line, raise_all
from counterpoint.data.shards.tar import SUFFIXES, Record, Span, is_plain, read_tar
from counterpoint.data.within import Within
from counterpoint.errors import DataError, suggest

JSON = "json"
NOWHERE = Span(-1, -1)
SHOWN = 12  # endings that an error names


def find(pattern: str) -> list[str]:
    """The archives of a folder, of a pattern with `*` or `{000..099}`, or the one of that name; DataError for none."""
    top = os.path.expanduser(pattern)
    if os.path.isdir(top):
        found = sorted(path for path in glob.glob(os.path.join(glob.escape(top), "*")) if _is_archive(path))
        if not found:
            raise DataError(f"{name_of(pattern)}: no file in it ends in {', '.join(SUFFIXES)}")
        return found
    found = [path for one in _braces(top) for path in (sorted(glob.glob(one)) if glob.has_magic(one) else [one])]
    if not found:
        raise DataError(f"{name_of(pattern)}: no such file")
    for path in found:
        if fault := fault_of(path) or ("" if _is_archive(path) else f"expected one of {', '.join(SUFFIXES)}"):
            raise DataError(f"{name_of(path)}: {fault}")
    return found


def _is_archive(path: str) -> bool:
    return path.lower().endswith(SUFFIXES)


def _braces(pattern: str) -> list[str]:
    """`a-{08..10}.tar` -> `a-08.tar`, `a-09.tar`, `a-10.tar`."""
    if (found := re.search(r"\{(\d+)\.\.(\d+)\}", pattern)) is None:
        return [pattern]
    first, last = found.groups()
    numbers = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    return [one for n in numbers for one in _braces(pattern[: found.start()] + n + pattern[found.end() :])]


@dataclass(frozen=True)
class Contents:
    """What is in one archive, sample by sample.

    changed  when the archive was, in ns
    keys     names of the samples, bytes (n,)
    columns  name -> text of every sample, "" = none
    spans    ending -> int64 (n, 2): offset and size of each sample's file, -1 = none; empty for a compressed archive
    endings  how many samples have a file with an ending
    fields   names of the fields of their .json, where columns were wanted
    """

    path: str
    changed: int
    keys: np.ndarray
    columns: dict[str, list[str]]
    spans: dict[str, np.ndarray]
    endings: Counter[str]
    fields: frozenset[str]

    def __len__(self) -> int:
        return len(self.keys)

    def names(self) -> list[str]:
        """A name of each sample that no other archive has."""
        return [f"{Path(self.path).name}/{os.fsdecode(key)}" for key in self.keys.tolist()]


def contents(path: str, wanted: Iterable[str], columns: Sequence[str]) -> Contents:
    """Go through an archive; of its files only those that say a column are read. DataError for a damaged one."""
    return _contents(path, os.stat(path).st_mtime_ns, frozenset(wanted), tuple(columns))


@lru_cache(maxsize=4096)  # another split is of the same archives
def _contents(path: str, changed: int, wanted: frozenset[str], columns: tuple[str, ...]) -> Contents:
    keys: dict[str, None] = {}
    values: dict[str, list[str]] = {name: [] for name in columns}
    spans: dict[str, list[Span]] = {ending: [] for ending in wanted if is_plain(path)}
    endings, fields = Counter(), set()
    for record in read_tar(path, frozenset([JSON, *columns]) if columns else frozenset()):
        if record.key in keys:
            raise DataError(
                f"{name_of(path)}: the files of {name_of(record.key)!r} are not next to each other; write it with tar --sort=name"
            )
        keys[record.key] = None
        endings.update(record.files.keys())
        told = _fields(record) if columns else {}
        fields.update(told)
        for name, column in values.items():
            column.append(_value(record, name, told))
        for ending, places in spans.items():
            places.append(record.files.get(ending, NOWHERE))
    names = np.array([os.fsencode(key) for key in keys], dtype=np.bytes_)
    places = {ending: np.array(found, dtype=np.int64).reshape(-1, 2) for ending, found in spans.items()}
    return Contents(path, changed, names, values, places, endings, frozenset(fields))


def _fields(record: Record) -> Mapping:
    if JSON not in record.files:
        return {}
    try:
        found = json.loads(record.read(JSON))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{record.named(JSON)}: no JSON: {one_line(str(error))}") from error
    if not isinstance(found, dict):
        raise DataError(f"{record.named(JSON)}: expected an object with fields; got a {type(found).__name__}")
    return found


def _value(record: Record, name: str, told: Mapping) -> str:
    """The text of a column: a file with that ending, or a field of the sample's .json."""
    if name in record.files:
        try:
            return record.read(name).decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise DataError(f"{record.named(name)}: not utf-8 text") from error
    value = told.get(name)
    if value is not None and not isinstance(value, str | int | float):
        raise DataError(f"{record.named(JSON)}: {name!r} is a {type(value).__name__}, expected a text or a number")
    return "" if value is None or value != value else str(value).strip()


def check(where: str, endings: Mapping[str, str], columns: Sequence[str], found: Sequence[Contents]) -> None:
    """DataError for a modality whose ending no file has, and for a column that no sample has."""
    there, fields = sum((one.endings for one in found), Counter()), set().union(*(one.fields for one in found))
    counts = ", ".join(f"{name} ({count})" for name, count in there.most_common(SHOWN)) or "none"
    problems = [
        f"inputs.{modality}: no file ends in .{ending}{suggest(ending, there)}; endings: {counts}"
        for modality, ending in endings.items()
        if ending not in there
    ]
    known = sorted(fields | there.keys())
    problems += [
        f"no sample has {name!r}, neither in its .json nor as a file{suggest(name, known)}"
        for name in columns
        if not any(value for one in found for value in one.columns[name])
    ]
    raise_all([f"{where}: {problem}" for problem in problems])


class Archives:
    """Samples of archives, numbered through.

    kept  of each archive the numbers of the samples that count, int64 in rising order
    """

    def __init__(self, contents: Sequence[Contents], kept: Sequence[np.ndarray], wanted: frozenset[str]):
        self.contents, self.kept, self.wanted = contents, kept, wanted

    @property
    def paths(self) -> list[str]:
        return [one.path for one in self.contents]

    def only(self, chosen: np.ndarray) -> Archives:
        """Those of which the places, among all that are kept, are in `chosen`."""
        edges = np.r_[0, np.cumsum([len(numbers) for numbers in self.kept])]
        mask = np.zeros(edges[-1], dtype=bool)
        mask[chosen] = True
        kept = [numbers[mask[a:b]] for numbers, a, b in zip(self.kept, edges, edges[1:])]
        there = [i for i, numbers in enumerate(kept) if len(numbers)]
        return Archives([self.contents[i] for i in there], [kept[i] for i in there], self.wanted)

    def records(self, part: int) -> Generator[Record, None, None]:
        """The samples of an archive that count; DataError when it is no longer what it was."""
        one, last = self.contents[part], -1
        if fault_of(one.path) or os.stat(one.path).st_mtime_ns != one.changed:
            raise DataError(
                f"{name_of(one.path)}: {fault_of(one.path) or 'it has changed since its samples were counted'}"
            )
        if one.spans:
            yield from self._found(one, self.kept[part])
            return
        records = read_tar(one.path, self.wanted)
        try:
            for number in self.kept[part].tolist():
                record = next(islice(records, number - last - 1, None), None)
                if record is None:
                    raise DataError(f"{name_of(one.path)}: it has changed since its samples were counted")
                last = number
                yield record
        finally:
            records.close()

    def _found(self, one: Contents, kept: np.ndarray) -> Generator[Record, None, None]:
        with Within(one.path) as file:
            for number in kept.tolist():
                places = {ending: Span(*spans[number].tolist()) for ending, spans in one.spans.items()}
                files = {ending: place for ending, place in places.items() if place != NOWHERE}
                yield Record(one.path, os.fsdecode(one.keys[number]), file, files)
