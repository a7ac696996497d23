"""A dataset of files: every sample names one file, or one text, a modality. What `manifest` and `folder` make.

Arrays are channels first, time last: (C, L), or (C, H, W) and so on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from counterpoint.data import readers
from counterpoint.data.dataset import Dataset, Sample, Spec, encode_categories
from counterpoint.data.guard import check_array, name_of, reading
from counterpoint.data.text import BYTE_VOCABULARY, read_text, text_ids, text_of
from counterpoint.errors import DataError

Layout = Literal["channels_first", "time_first"]
HEADERS = 2000  # files of a modality whose header is read to learn whether their lengths are one


@dataclass(frozen=True)
class Arrays:
    """How the files of one modality become float32 tensors (C, L).

    key       name of the array in a .npz, of the column in a table
    layout    channels_first: (C, L); time_first: (L, C); None: channels first, but more channels than samples are
              refused, because that is how the other layout looks
    shape     what every file must have, None = any
    constant  accept arrays whose values are all equal
    """

    key: str | None = None
    layout: Layout | None = None
    shape: tuple[int | None, ...] | None = None
    min_length: int = 1
    max_length: int | None = None
    constant: bool = False

    def read(self, path: str) -> Tensor:
        array = self._channels_first(readers.read(path, self.key))
        self._refuse_turned(array.shape, path)
        with np.errstate(over="ignore"):  # what does not fit in float32 is infinite, and refused for that
            array = np.ascontiguousarray(array, dtype=np.float32)
        check_array(
            array,
            path,
            shape=self.shape,
            min_length=self.min_length,
            max_length=self.max_length,
            constant=self.constant,
        )
        return torch.from_numpy(array)

    def shape_of(self, path: str) -> tuple[int, ...]:
        """The shape that `read` would give, from the header."""
        shape = readers.shape_of(path, self.key)
        shape = (shape[-1], *shape[:-1]) if self.layout == "time_first" and len(shape) > 1 else shape
        shape = (1, *shape) if len(shape) < 2 else shape
        self._refuse_turned(shape, path)
        return shape

    def _channels_first(self, array: np.ndarray) -> np.ndarray:
        if array.ndim < 2:
            return array.reshape(1, -1)
        return np.moveaxis(array, -1, 0) if self.layout == "time_first" else array

    def _refuse_turned(self, shape: Sequence[int], path: str) -> None:
        if self.layout is None and shape[0] > shape[-1]:
            raise DataError(
                f"{name_of(path)}: {shape[0]} channels of length {shape[-1]}; "
                "say layout: time_first if the file is (time, channels), layout: channels_first if this is right"
            )


@dataclass(frozen=True)
class Texts:
    """How the cells of one modality become token ids: the text itself, or the name of a .txt file."""

    def read(self, cell: str) -> Tensor:
        return text_ids(read_text(cell) if self.is_file(cell) else cell)

    @staticmethod
    def is_file(cell: str) -> bool:
        return cell.lower().endswith(".txt") and "\n" not in cell


class Files(Dataset):
    """Samples whose inputs stand in files; holds names and columns, no open files.

    cells    modality -> one string a sample: a path or a text; empty = the sample lacks this modality
    sources  modality -> how its cells are read
    classes  label -> names of its classes, by id

    Text modalities give the ids of ByT5, and the text itself in `Sample.fields`.
    """

    def __init__(
        self,
        *,
        spec: Spec,
        cells: Mapping[str, Sequence[str]],
        sources: Mapping[str, Arrays | Texts],
        groups: Mapping[str, np.ndarray],
        labels: Mapping[str, np.ndarray],
        classes: Mapping[str, list],
    ):
        self.spec, self.cells, self.sources = spec, cells, sources
        self.groups, self.labels, self.classes = groups, labels, classes

    def inputs(self, index: int) -> dict[str, Tensor | list[Tensor]]:
        found = {}
        for modality, source in self.sources.items():
            if cell := self.cells[modality][index]:
                with reading(cell, index):
                    found[modality] = source.read(cell)
        return found

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        for modality, ids in sample.inputs.items():
            if isinstance(self.sources[modality], Texts):
                sample.fields[modality] = text_of(ids)
        return sample


def survey(
    sources: Mapping[str, Arrays | Texts], cells: Mapping[str, Sequence[str]], rate: Mapping[str, float], strict: bool
) -> tuple[dict[str, Arrays | Texts], dict[str, dict[str, Any]], list[tuple[int, str]]]:
    """Sources that know their channels, what the spec says of each modality, and (position, problem) of bad files.

    Without `strict` bad files are no problem while there is a good one: reading them raises later.
    """
    known: dict[str, dict[str, Any]] = {}
    found, problems = dict(sources), []
    for modality, source in sources.items():
        if isinstance(source, Texts):
            known[modality] = {"vocabulary": BYTE_VOCABULARY, "length": None}
            continue
        shapes, bad = _shapes(source, cells[modality])
        shape, odd = _majority(shapes, cells[modality])
        known[modality] = _known(shapes, sum(map(bool, cells[modality])))
        found[modality] = replace(source, shape=shape)
        problems += [(i, f"{modality}: {problem}") for i, problem in bad + odd if strict or not shapes]
        if modality in rate:
            known[modality]["rate"] = rate[modality]
    return found, known, problems


def _shapes(arrays: Arrays, paths: Sequence[str]) -> tuple[dict[int, tuple[int, ...]], list[tuple[int, str]]]:
    """Shapes by position, and the files that have none.

    Headers of up to HEADERS files; of formats without a header one file alone, because it must be read.
    """
    named = [i for i, path in enumerate(paths) if path]
    headed = [i for i in named if not paths[i].lower().endswith(readers.HEADLESS)]
    shapes: dict[int, tuple[int, ...]] = {}
    problems = []
    for i in (headed or named)[:HEADERS]:
        try:
            shapes[i] = arrays.shape_of(paths[i])
        except DataError as error:
            problems.append((i, str(error)))
        if shapes and not headed:
            break
    return shapes, problems


def _majority(
    shapes: dict[int, tuple[int, ...]], paths: Sequence[str]
) -> tuple[tuple[int | None, ...] | None, list[tuple[int, str]]]:
    """The channels and number of dimensions that most files have, as a shape, and the files that have others."""
    if not shapes:
        return None, []
    (channels, ndim), _ = Counter((shape[0], len(shape)) for shape in shapes.values()).most_common(1)[0]
    odd = [
        (
            i,
            f"{name_of(paths[i])}: {shape[0]} channels (shape {shape}), most files have {channels} in {ndim} dimensions",
        )
        for i, shape in shapes.items()
        if (shape[0], len(shape)) != (channels, ndim)
    ]
    for i, _ in odd:
        del shapes[i]
    return (channels, *[None] * (ndim - 1)), odd


def _known(shapes: Mapping[int, tuple[int, ...]], files: int) -> dict[str, Any]:
    if not shapes:
        return {}
    lengths = {shape[-1] for shape in shapes.values()}
    one = len(lengths) == 1 and len(shapes) == files
    return {"channels": next(iter(shapes.values()))[0], "length": lengths.pop() if one else None}


def encode_labels(values: Sequence[str]) -> tuple[np.ndarray, list | None]:
    """A column as int64 classes and their names, or as float64 values and None; an empty cell is unknown.

    Integers and words are classes; when any number has a fraction and all are numbers, they are values.
    """
    try:
        numbers = np.array([float(value or "nan") for value in values])
    except ValueError:
        return encode_categories(values)
    told = numbers[~np.isnan(numbers)]
    if np.all(told == np.floor(told)) and np.all(np.abs(told) < 2**53):
        return encode_categories([None if np.isnan(number) else int(number) for number in numbers])
    return numbers, None


def assemble(
    *,
    cells: Mapping[str, Sequence[str]],
    sources: Mapping[str, Arrays | Texts],
    known: Mapping[str, Mapping[str, Any]],
    groups: Mapping[str, Sequence[str]],
    labels: Mapping[str, Sequence[str]],
    chosen: np.ndarray,
    splits: tuple[str, ...],
) -> Files:
    """The Files at the positions `chosen`; ids of groups and classes are those of the whole table, in every split."""
    identities = {name: encode_categories(values) for name, values in groups.items()}
    encoded = {name: encode_labels(values) for name, values in labels.items()}
    spec = Spec(
        size=len(chosen),
        modalities=known,
        groups={name: len(names) for name, (_, names) in identities.items()},
        labels={name: None if names is None else len(names) for name, (_, names) in encoded.items()},
        splits=splits,
    )
    return Files(
        spec=spec,
        cells={modality: [column[i] for i in chosen] for modality, column in cells.items()},
        sources=sources,
        groups={name: ids[chosen] for name, (ids, _) in identities.items()},
        labels={name: values[chosen] for name, (values, _) in encoded.items()},
        classes={name: names for name, (_, names) in encoded.items() if names is not None},
    )
