"""Samples in tar archives, read from front to back.

data: {use: shards, path: "pairs/train-{000..099}.tar", inputs: {scan: png, report: txt}, groups: [patient]}
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from counterpoint.data.arrays import Arrays
from counterpoint.data.dataset import Sample, Spec, encode_categories
from counterpoint.data.files import encode_labels, read_cell, survey
from counterpoint.data.guard import name_of, raise_all
from counterpoint.data.reader import Reader, assets_of, no_reader
from counterpoint.data.shards.archives import Archives, Contents, check, contents, find
from counterpoint.data.shards.tar import Record
from counterpoint.data.split import select
from counterpoint.data.stream import Stream
from counterpoint.errors import DataError, suggest
from counterpoint.markers import Reader as ReaderCall

Column = tuple[np.ndarray, list | None]
HEAD, LEARNT_FROM = 32, 10_000  # training samples that are asked what they have; that a tokenizer is learnt from


class Shards(Stream):
    """Samples of tar archives, each with files that readers of single files read.

    archives        those of one split
    endings         modality -> ending of its files
    groups, labels  name -> values of its samples, and the names that they stand for
    """

    def __init__(
        self,
        archives: Archives,
        *,
        modalities: Mapping[str, Mapping[str, Any]],
        endings: Mapping[str, str],
        readers: Mapping[str, Reader],
        groups: Mapping[str, Column],
        labels: Mapping[str, Column],
        splits: tuple[str, ...],
        window: int,
    ):
        self.archives, self.endings, self.readers, self.window = archives, endings, readers, window
        self.parts = [len(numbers) for numbers in archives.kept]
        self.groups = {name: values for name, (values, _) in groups.items()}
        self.labels = {name: values for name, (values, _) in labels.items()}
        self.spec = Spec(
            size=sum(self.parts),
            modalities=modalities,
            groups={name: len(names) for name, (_, names) in groups.items()},
            labels={name: None if names is None else len(names) for name, (_, names) in labels.items()},
            splits=splits,
        )

    def records(self, part: int) -> Generator[Record, None, None]:
        return self.archives.records(part)

    def sample(self, record: Record, index: int) -> Sample:
        inputs, fields = {}, {}
        for modality, ending in self.endings.items():
            if ending in record.files:
                reader = self.readers[modality]
                with _as_file(record, ending) as path:
                    inputs[modality] = read_cell(reader, path, index, self.spec.modalities[modality])
                    if (text := reader.text(path)) is not None:
                        fields[modality] = text
        groups = {name: int(column[index]) for name, column in self.groups.items()}
        return Sample(inputs, groups, {name: column[index].item() for name, column in self.labels.items()}, fields)

    def files(self) -> list[str]:
        return self.archives.paths

    def told(self, index: int) -> str:
        part, number = self.place(index)
        one = self.archives.contents[part]
        return f"{Path(one.path).name}/{os.fsdecode(one.keys[self.archives.kept[part][number]])}"

    def assets(self) -> dict[str, str]:
        """Text files, by name, that the encoders trained on this need beside their weights."""
        return assets_of(self.readers)


def shards(
    *,
    path: str | dict[str, str],
    inputs: dict[str, str],
    readers: dict[str, ReaderCall] | None = None,
    groups: list[str] | None = None,
    labels: list[str] | None = None,
    split: str = "train",
    holdout: float = 0.2,
    holdout_by: str | None = None,
    window: int = 2048,
) -> Shards:
    """The samples of tar archives in the layout of WebDataset (.tar, .tar.gz): `17.png`, `17.txt` and `17.json` are one.

    path        a folder of archives, one archive, or a pattern with `*` or `{000..099}`; or split -> such a pattern
    inputs      modality -> ending of its files ("png", "seg.png"); a sample without such a file lacks the modality
    readers     modality -> how its files are read, one of `counterpoint list reader`; the default is `arrays`
    groups      names of identities (patient): each a field of a sample's .json, or a file of its own (`17.patient`)
    labels      the same for classes and values (`17.cls`): integers and words are classes, other numbers are values
    split       the split to give: train or test, or one of those that `path` names
    holdout     fraction of the identities that are in test and not in train, where `path` names no splits
    holdout_by  name of those identities; default: the first group, else every sample by itself
    window      samples that are mixed, and whose records a worker holds, at a time

    Archives are read from front to back, eight side by side and in another order each epoch; a sample keeps its number,
    so that a run may be ended anywhere and gone on with. All are gone through once before: samples are counted, and
    compressed archives read whole. What the files have is asked of the first 32 training samples, and a tokenizer is
    learnt from the first 10 000.

    Raises DataError for an archive that is damaged or cut off, and for an ending that no file has.
    """
    patterns = path if isinstance(path, dict) else {"": path}
    where = name_of(next(iter(patterns.values()), ""))
    columns = list(dict.fromkeys([*(groups or []), *(labels or []), *([holdout_by] if holdout_by else [])]))
    found = {
        name: [contents(one, inputs.values(), columns) for one in find(pattern)] for name, pattern in patterns.items()
    }
    known = [one for many in found.values() for one in many]
    check(where, inputs, columns, known)
    readers = _readers(where, inputs, readers or {})
    table = {name: [text for one in known for text in one.columns[name]] for name in columns}
    splits = (
        [name for name, many in found.items() for one in many for _ in range(len(one))]
        if isinstance(path, dict)
        else None
    )
    by = _identities(known, table.get(holdout_by or next(iter(groups or []), "")))
    chosen, names = select(split, splits, by, holdout, where)
    train, _ = select(names[0], splits, by, holdout, where)
    kept = [replace(one, columns={}) for one in known]  # workers carry them along
    archives = Archives(kept, [np.arange(len(one)) for one in kept], frozenset(inputs.values()))
    return Shards(
        archives.only(chosen),
        modalities=_learn(archives.only(train), inputs, readers),
        endings=inputs,
        readers=readers,
        groups=_encoded(table, groups, encode_categories, chosen),
        labels=_encoded(table, labels, encode_labels, chosen),
        splits=names,
        window=window,
    )


def _encoded(
    table: Mapping[str, list[str]], names: list[str] | None, encode: Callable, chosen: np.ndarray
) -> dict[str, Column]:
    """Ids or values of the samples that are chosen; the identities and classes are those of all splits."""
    found = {name: encode(table[name]) for name in names or []}
    return {name: (values[chosen], known) for name, (values, known) in found.items()}


def _identities(found: Sequence[Contents], column: list[str] | None) -> list[str]:
    """What is held out as a whole: the text of a column, or the sample itself where there is none."""
    own = [name for one in found for name in one.names()]
    return own if column is None else [value or name for value, name in zip(column, own)]


def _readers(where: str, endings: Mapping[str, str], readers: Mapping[str, Reader]) -> dict[str, Reader]:
    problems = [f"readers.{m}: {m!r} is not a modality{suggest(m, endings)}" for m in readers if m not in endings]
    problems += [] if endings else ["inputs is empty: there is nothing to read"]
    raise_all([f"{where}: {problem}" for problem in problems])
    readers = {modality: readers.get(modality) or Arrays() for modality in endings}
    unread = [(m, f"x.{ending}") for m, ending in endings.items() if not readers[m].reads(f"x.{ending}")]
    raise_all([f"{where}: inputs.{m}: {no_reader(name, readers[m])}" for m, name in unread])
    return readers


def _learn(archives: Archives, endings: Mapping[str, str], readers: Mapping[str, Reader]) -> dict[str, dict[str, Any]]:
    """What the files of each modality have, as the first training samples say; readers that learn have learnt."""
    known = {}
    for modality, ending in endings.items():
        reader = readers[modality]
        learning = type(reader).fit is not Reader.fit
        with _as_files(_first(archives, ending, LEARNT_FROM if learning else HEAD), ending) as paths:
            if learning:
                reader.fit(paths)
            facts, problems = survey({modality: reader}, {modality: paths[:HEAD]}, strict=False)
            raise_all([problem for _, problem in problems])
            fixed = reader.given()
            known[modality] = {
                n: None if n in reader.varies and n not in fixed else v for n, v in facts[modality].items()
            }
    return known


def _first(archives: Archives, ending: str, count: int) -> Iterator[Record]:
    """The first samples that have a file with the ending; each is to be read before the next one comes."""
    found = (
        record for part in range(len(archives.kept)) for record in archives.records(part) if ending in record.files
    )
    return islice(found, count)


@contextmanager
def _as_file(record: Record, ending: str) -> Iterator[str]:
    """A file with what is in the archive, while it is read; errors say where it was. No name in an archive is used."""
    with tempfile.NamedTemporaryFile(prefix="counterpoint-", suffix=f".{ending}") as file:
        file.write(record.read(ending))
        file.flush()
        with _said_of({file.name: record.named(ending)}):
            yield file.name


@contextmanager
def _as_files(records: Iterator[Record], ending: str) -> Iterator[list[str]]:
    """The same for several, each read before the next one comes."""
    with tempfile.TemporaryDirectory(prefix="counterpoint-") as folder:
        names = {}
        for number, record in enumerate(records):
            path = Path(folder, f"{number}.{ending}")
            path.write_bytes(record.read(ending))
            names[str(path)] = record.named(ending)
        with _said_of(names):
            yield list(names)


@contextmanager
def _said_of(names: Mapping[str, str]) -> Iterator[None]:
    """What a DataError says of a file, said of what it is in its archive."""
    try:
        yield
    except DataError as error:
        text = str(error)
        for path, name in names.items():
            text = text.replace(path, name)
        raise DataError(text) from error.__cause__
