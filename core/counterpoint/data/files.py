"""A dataset of files: every sample names one file, or one text, a modality. What `manifest`, `folder` and packs make."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from counterpoint.data.dataset import Dataset, Sample, Spec, encode_categories
from counterpoint.data.guard import name_of, one_line, raise_all, reading
from counterpoint.data.reader import Reader, assets_of
from counterpoint.data.split import select
from counterpoint.errors import DataError

SHOWN = 60  # characters of a text that an error shows
HEADERS = 2000  # files of a modality whose header is read to learn what they have in common


class Files(Dataset):
    """Samples whose inputs stand in files; holds names and columns, no open files.

    cells    modality -> one string a sample, a path or a text, or a list of them; empty = it lacks this modality
    readers  modality -> how its cells are read
    classes  label -> names of its classes, by id

    What is a text also stands in `Sample.fields`, as it is, under the modality.
    """

    def __init__(
        self,
        *,
        spec: Spec,
        cells: Mapping[str, Sequence[str | Sequence[str]]],
        readers: Mapping[str, Reader],
        groups: Mapping[str, np.ndarray],
        labels: Mapping[str, np.ndarray],
        classes: Mapping[str, list],
    ):
        self.spec, self.cells, self.readers = spec, cells, readers
        self.groups, self.labels, self.classes = groups, labels, classes

    def inputs(self, index: int) -> dict[str, Tensor | list[Tensor]]:
        found = {}
        for modality, reader in self.readers.items():
            if cell := self.cells[modality][index]:
                facts = self.spec.modalities[modality]
                found[modality] = (
                    read_cell(reader, cell, index, facts)
                    if isinstance(cell, str)
                    else [read_cell(reader, part, index, facts) for part in cell]
                )
        return found

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        for modality in sample.inputs:
            texts = [self.readers[modality].text(cell) for cell in _parts(self.cells[modality][index])]
            if None not in texts:
                sample.fields[modality] = texts[0] if len(texts) == 1 else texts
        return sample

    def files(self) -> list[str]:
        """Every file that reading a cell opens, once."""
        cells = {(m, part): None for m, column in self.cells.items() for cell in column for part in _parts(cell)}
        return list(dict.fromkeys(file for m, part in cells for file in self.readers[m].files(part)))

    def told(self, index: int) -> str:
        cells = {modality: _parts(column[index])[:1] for modality, column in self.cells.items()}
        return ", ".join(f"{m} {one_line(name_of(cell), SHOWN)}" for m, found in cells.items() for cell in found)

    def assets(self) -> dict[str, str]:
        """Text files, by name, that the encoders trained on this need beside their weights."""
        return assets_of(self.readers)


def read_cell(reader: Reader, cell: str, index: int, facts: Mapping[str, Any]) -> Tensor | list[Tensor]:
    """One cell of a sample, which has to have the facts of most; DataError names sample and file."""
    if reader.is_file(cell):
        with reading(cell, index):
            found = reader.read(cell)
            _check_facts([found] if isinstance(found, Tensor) else found, facts)
            return found
    try:
        return reader.read(cell)
    except ValueError as error:
        raise DataError(f"sample {index} {one_line(cell, SHOWN)!r}: {one_line(str(error))}") from error


def _check_facts(rows: Sequence[Tensor], facts: Mapping[str, Any]) -> None:
    """ValueError for a file that differs from most: not every header was looked at before, and none without `strict`."""
    channels, sides = facts.get("channels"), facts.get("spatial_dims")
    for x in rows:
        if sides is not None and x.ndim != 1 + sides:
            raise ValueError(f"an image of {x.ndim - 1} dimensions, most files have {sides}")
        if channels is not None and x.ndim and len(x) != channels:
            raise ValueError(f"{len(x)} channels, most files have {channels}")


def from_columns(
    *,
    cells: Mapping[str, Sequence[str | Sequence[str]]],
    readers: Mapping[str, Reader],
    groups: Mapping[str, Sequence[str]] | None = None,
    labels: Mapping[str, Sequence] | None = None,
    splits: Sequence[str] | None = None,
    split: str = "train",
    by: Sequence | None = None,
    holdout: float = 0.2,
    where: str = "data",
    strict: bool = False,
    lines: Sequence[int] | None = None,
) -> Files:
    """A dataset of columns, one entry a sample: cut into splits, its readers fitted and asked what the files have.

    cells     modality -> path or text of every sample, "" = it lacks the modality; a list = several rows
    readers   modality -> its reader
    groups, labels  name -> text of every sample, "" = unknown; ids of identities and classes are those of all splits
    splits    the split of every sample; None: `holdout` of the different values of `by` (default: the samples) is "test"
    where     the data, as an error should name it
    strict    refuse bad files among the first HEADERS, all at once; else reading them raises later
    lines     the line of every sample in `where`, for the errors
    """
    count = len(next(iter(cells.values())))
    chosen, names = select(split, splits, range(count) if by is None else by, holdout, where)
    train, _ = select(names[0], splits, range(count) if by is None else by, holdout, where)
    for modality, reader in readers.items():
        reader.fit([part for i in train for part in _parts(cells[modality][i])])
    known, problems = survey(readers, cells, strict)
    tell = lambda i: f"{where}:{lines[i]}: " if lines is not None else ""  # noqa: E731
    raise_all([tell(i) + problem for i, problem in sorted(problems)])
    identities = {name: encode_categories(values) for name, values in (groups or {}).items()}
    encoded = {name: encode_labels(values) for name, values in (labels or {}).items()}
    spec = Spec(
        size=len(chosen),
        modalities=known,
        groups={name: len(names) for name, (_, names) in identities.items()},
        labels={name: None if names is None else len(names) for name, (_, names) in encoded.items()},
        splits=names,
    )
    return Files(
        spec=spec,
        cells={modality: [column[i] for i in chosen] for modality, column in cells.items()},
        readers=readers,
        groups={name: ids[chosen] for name, (ids, _) in identities.items()},
        labels={name: values[chosen] for name, (values, _) in encoded.items()},
        classes={name: names for name, (_, names) in encoded.items() if names is not None},
    )


def _parts(cell: str | Sequence[str]) -> Sequence[str]:
    return ([cell] if cell else []) if isinstance(cell, str) else cell


def survey(
    readers: Mapping[str, Reader], cells: Mapping[str, Sequence[str | Sequence[str]]], strict: bool
) -> tuple[dict[str, dict[str, Any]], list[tuple[int, str]]]:
    """What the spec says of each modality, and (position, problem) of bad files; the readers hear it, too.

    Without `strict` bad files are no problem while there is a good one: reading them raises later.
    """
    known: dict[str, dict[str, Any]] = {}
    problems = []
    for modality, reader in readers.items():
        paths = {i: path for i, cell in enumerate(cells[modality]) for path in _parts(cell)[:1] if reader.is_file(path)}
        facts, bad = _facts(reader, paths)
        common, odd = _common(facts, paths, reader.varies)
        if len(facts) < len(paths):  # not every file was asked
            common |= {name: None for name in common if name in reader.varies}
        if facts:
            reader.expect(common)
        known[modality] = common | reader.given()
        problems += [(i, f"{modality}: {problem}") for i, problem in bad + odd if strict or not facts]
    return known, problems


def _facts(reader: Reader, paths: Mapping[int, str]) -> tuple[dict[int, dict[str, Any]], list[tuple[int, str]]]:
    """Facts by position, and the files that have none; of formats without a header one good file alone is asked."""
    headed = [i for i, path in paths.items() if not path.lower().endswith(reader.headless or ("\0",))]
    facts: dict[int, dict[str, Any]] = {}
    problems = []
    for i in (headed or list(paths))[:HEADERS]:
        try:
            with reading(paths[i]):
                facts[i] = reader.facts(paths[i])
        except DataError as error:
            problems.append((i, str(error)))
        if facts and not headed:
            break
    return facts, problems


def _common(
    facts: Mapping[int, dict[str, Any]], paths: Mapping[int, str], varies: frozenset[str]
) -> tuple[dict[str, Any], list[tuple[int, str]]]:
    """What most files have (None where it may vary and does), and the files that have something else."""
    if not facts:
        return {}, []
    fixed = {i: {k: v for k, v in one.items() if k not in varies} for i, one in facts.items()}
    most = Counter(repr(one) for one in fixed.values()).most_common(1)[0][0]
    usual = next(one for one in fixed.values() if repr(one) == most)
    odd = [
        (i, f"{name_of(paths[i])}: {_told(one, usual)}, most files have {_told(usual, one)}")
        for i, one in fixed.items()
        if repr(one) != most
    ]
    alike = [facts[i] for i, one in fixed.items() if repr(one) == most]
    return {k: _one([one.get(k) for one in alike]) for k in alike[0]}, odd


def _one(values: Sequence[Any]) -> Any:
    return values[0] if all(value == values[0] for value in values) else None


def _told(facts: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """`channels 3, rate 500`: the facts in which the two differ."""
    return ", ".join(f"{k} {v}" for k, v in facts.items() if v != other.get(k)) or "none of these"


def encode_labels(values: Sequence) -> tuple[np.ndarray, list | None]:
    """A column as int64 classes and their names, or as float64 values and None; an empty cell is unknown.

    Integers and words are classes; when any number has a fraction and all are numbers, they are values.
    """
    try:
        numbers = np.array([float("nan" if value in ("", None) else value) for value in values])
    except ValueError:
        return encode_categories(values)
    told = numbers[~np.isnan(numbers)]
    if np.all(told == np.floor(told)) and np.all(np.abs(told) < 2**53):
        return encode_categories([None if np.isnan(number) else int(number) for number in numbers])
    return numbers, None
