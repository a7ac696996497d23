"""What holds for every dataset."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from counterpoint.data.dataset import Sample, Spec, reads_together
from counterpoint.errors import DataError
from counterpoint.randomness import seed_host
from counterpoint.testing.finding import Broken, Untried

LOOKED_AT = 5  # samples, spread over the dataset


def _samples(dataset: Any) -> Iterator[tuple[int, Sample]]:
    """The samples that can be read, of a few; the others are the data's fault."""
    for index in sorted({k * (len(dataset) - 1) // max(1, LOOKED_AT - 1) for k in range(LOOKED_AT)}):
        seed_host(index)
        try:
            yield index, dataset[index]
        except DataError:
            continue


def is_as_long_as_it_says(dataset: Any) -> None:
    spec = getattr(dataset, "spec", None)
    if not isinstance(spec, Spec) or len(dataset) != spec.size:
        raise Broken(
            "its spec does not say its length",
            expected=f"spec: a Spec, with size = {len(dataset)}",
            got=type(spec).__name__ if not isinstance(spec, Spec) else f"size = {spec.size}",
            mend="set self.spec = Spec(size=..., modalities=...) in __init__",
        )


def gives_samples_with_tensors(dataset: Any) -> None:
    if next(_samples(dataset), None) is None:
        raise Untried(f"none of {LOOKED_AT} samples can be read")
    for index, sample in _samples(dataset):
        if not isinstance(sample, Sample):
            raise Broken(
                f"sample {index} is no Sample",
                expected="Sample(inputs={modality: tensor}, groups, labels)",
                got=type(sample).__name__,
                mend="derive from counterpoint.data.dataset.Dataset and define inputs(index)",
            )
        unknown = sample.inputs.keys() - dataset.spec.modalities.keys()
        parts = [p for value in sample.inputs.values() for p in (value if isinstance(value, list) else [value])]
        wrong = sorted({type(p).__name__ for p in parts if not isinstance(p, Tensor)})
        if unknown or wrong:
            raise Broken(
                f"the inputs of sample {index} are not what the spec says",
                expected=f"tensors, or lists of tensors, of {', '.join(dataset.spec.modalities)}",
                got=", ".join([*wrong, *(f"the modality {name!r}" for name in sorted(unknown))]),
                mend="return torch.from_numpy(array) under the names of spec.modalities",
            )


def gives_groups_and_labels_of_their_types(dataset: Any) -> None:
    """Groups are identities from 0, -1 unknown; labels are classes below their number, or floats."""
    spec = dataset.spec
    for index, sample in _samples(dataset):
        for name, value in sample.groups.items():
            if name not in spec.groups or type(value) is not int or not value >= -1:
                raise _column(index, "group", name, value, f"an int from 0, -1 = unknown, of {dict(spec.groups)}")
        for name, value in sample.labels.items():
            classes = spec.labels.get(name)
            good = type(value) is int and -1 <= value < classes if classes else isinstance(value, int | float)
            if name not in spec.labels or not good:
                wanted = f"an int below {classes}, -1 = unknown" if classes else "a float, NaN = unknown"
                raise _column(index, "label", name, value, f"{wanted}, of {dict(spec.labels)}")


def _column(index: int, kind: str, name: str, value: Any, expected: str) -> Broken:
    return Broken(
        f"{kind} {name!r} of sample {index} is not what the spec says",
        expected=expected,
        got=f"{value!r} ({type(value).__name__})",
        mend=f"int(...) or float(...) of numpy's numbers; name it in Spec({kind}s=...) with how many there are",
    )


def refuses_an_index_beyond_its_end(dataset: Any) -> None:
    for index in (len(dataset), -len(dataset) - 1):
        try:
            dataset[index]
        except IndexError:
            continue
        except Exception as error:
            got = type(error).__name__
        else:
            got = "a sample"
        raise Broken(
            f"index {index} of {len(dataset)} is not refused as it should be",
            expected="IndexError: iteration ends there",
            got=got,
            mend="raise IndexError, as counterpoint.data.dataset.Dataset does",
        )


def can_be_sent_to_a_worker(dataset: Any) -> None:
    """Pickled and read elsewhere, a sample is the same for the same seed."""
    try:
        there = pickle.loads(pickle.dumps(dataset))
    except Exception as error:
        raise Broken(
            "it cannot be pickled",
            expected="pickle.dumps(dataset): workers get a copy",
            got=f"{type(error).__name__}: {error}".partition("\n")[0],
            mend="keep no open file, lock, lambda or local function in it: open files when a sample is read",
        ) from error
    for index, sample in _samples(dataset):
        seed_host(index)
        if not _equal(sample.inputs, there[index].inputs):
            raise Broken(
                f"sample {index} is another one in a worker",
                expected="the same for the same state of python's, numpy's and torch's generators",
                got="other inputs from a pickled copy",
                mend="keep no generator of its own, nor state that reading moves: draw from the global ones",
            )


def reads_many_samples_as_it_reads_one(dataset: Any) -> None:
    """What `inputs_of` gives for several samples is what `inputs` gives for each, without a random number."""
    if not reads_together(type(dataset)):
        return
    index = [i for i, _ in _samples(dataset)]
    for places in (index, index[::-1], index):  # drawn numbers would differ from one call to the next
        found = dataset.inputs_of(torch.tensor(places, dtype=torch.int64))
        if found is not None and not all(
            _equal({m: rows[n] for m, rows in found.items()}, dataset.inputs(i)) for n, i in enumerate(places)
        ):
            raise Broken(
                "inputs_of(index) gives other inputs than inputs(index)",
                expected="{modality: (n, ...)}, row for row what one sample gives, and nothing of chance in it",
                got=f"others for the samples {places}",
                mend="leave inputs_of out where samples differ in length, lack a modality, or are read with chance",
            )


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return (
            isinstance(b, Tensor)
            and a.dtype == b.dtype
            and a.shape == b.shape
            and bool(torch.equal(a, b) or a.isnan().any())
        )
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[name], b[name]) for name in a)
    return len(a) == len(b) and all(map(_equal, a, b))


def checks(dataset: Any) -> Iterator:
    yield from (
        is_as_long_as_it_says,
        gives_samples_with_tensors,
        gives_groups_and_labels_of_their_types,
        refuses_an_index_beyond_its_end,
        can_be_sent_to_a_worker,
        reads_many_samples_as_it_reads_one,
    )
