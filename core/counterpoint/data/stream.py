"""Data that is read from front to back: what a dataset is whose samples cannot be had in any order at once.

A sample keeps its place for good, part after part, so that all that goes by places (order, resumption, what is known of a
sample) holds as for any dataset: a worker that is asked for a place reads on to it. An epoch takes the parts in random
order, some side by side, and mixes them by stretches; a worker holds the stretches that it is in, and nothing before.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from counterpoint.data.dataset import Dataset, Sample
from counterpoint.errors import DataError


@dataclass(frozen=True)
class Stretches:
    """In which order a stream is read at little cost.

    parts     number of samples of each part, in the order of their places
    together  parts that are read side by side
    length    samples of a part that are held, and mixed with those of the others
    """

    parts: Sequence[int]
    together: int
    length: int

    def starts(self) -> np.ndarray:
        """int64 (P + 1,): the place of each part's first sample, and the end."""
        return np.r_[0, np.cumsum(np.asarray(self.parts, dtype=np.int64))]

    def blocks(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Places that may be mixed freely, block after block: the next stretch of each of the parts that are open."""
        starts, parts = self.starts(), rng.permutation(len(self.parts))
        for chosen in (parts[i : i + self.together] for i in range(0, len(parts), self.together)):
            longest = max(self.parts[part] for part in chosen)
            for begin in range(0, longest, self.length):
                ends = [(starts[p] + begin, min(starts[p] + begin + self.length, starts[p + 1])) for p in chosen]
                yield np.concatenate([np.arange(a, max(a, b)) for a, b in ends])


class Stream(Dataset):
    """Base of datasets that are read from front to back, part by part (a shard, a file, a cursor).

    A subclass sets `spec`, whose size is the sum of `parts`, and says how the records of a part come, and what sample a
    record is. Records come in the same order whenever a part is read again; what costs time (decoding) belongs in
    `sample`, since every worker passes over the records of the others.

    parts     number of samples of each part, which stays as it is while a run lasts
    window    samples that are mixed, and whose records a worker holds, at a time
    together  parts that are read side by side, of which come the samples of a window
    """

    parts: Sequence[int]
    window: int = 2048
    together: int = 8

    def records(self, part: int) -> Generator[Any, None, None]:
        """The records of a part, one a sample, from its first; closed when no more are wanted."""
        raise TypeError(f"{type(self).__name__} must define records(part)")

    def sample(self, record: Any, index: int) -> Sample:
        """The sample that a record is; raises DataError naming it."""
        raise TypeError(f"{type(self).__name__} must define sample(record, index)")

    def stretches(self) -> Stretches:
        together = min(self.together, len(self.parts))
        return Stretches(self.parts, together, max(1, self.window // together))

    def place(self, index: int) -> tuple[int, int]:
        """Part of a sample, and its number in it."""
        starts = self._reading().starts
        part = int(np.searchsorted(starts, index, side="right")) - 1
        return part, index - int(starts[part])

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of a dataset of {len(self)}")
        return self.sample(self._reading().record(*self.place(index)), index)

    def _reading(self) -> _Reading:
        if getattr(self, "_open", None) is None or self._open.process != os.getpid():
            self._open = _Reading(self)  # what another process has open is its own: they would share one position
        return self._open

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_open"}


class _Reading:
    """The parts of a stream that one process has open."""

    def __init__(self, stream: Stream):
        self.process, self.stream, self.stretches = os.getpid(), stream, stream.stretches()
        self.starts = self.stretches.starts()
        self.open: OrderedDict[int, _Part] = OrderedDict()

    def record(self, part: int, number: int) -> Any:
        if part not in self.open or not self.open[part].has(number):
            self._close(part)
            self.open[part] = _Part(self.stream.records(part), part, self.stretches)
        self.open.move_to_end(part)
        if len(self.open) > 2 * self.stretches.together:  # those before, which a batch may still want, and those now
            self._close(next(iter(self.open)))
        return self.open[part].record(number)

    def _close(self, part: int) -> None:
        if part in self.open:
            self.open.pop(part).records.close()


class _Part:
    """One part: how far it is read, and the records of the stretch that was last asked for."""

    def __init__(self, records: Generator[Any, None, None], part: int, stretches: Stretches):
        self.records, self.part, self.stretches = records, part, stretches
        self.next, self.first, self.held = 0, 0, {}
        self.fault: Exception | None = None

    def has(self, number: int) -> bool:
        return number >= self.next or number in self.held

    def record(self, number: int) -> Any:
        first = number - number % self.stretches.length
        if first != self.first:
            self.first, self.held = first, {}
        while self.next <= number:
            record = self._read()
            if self.next > first:
                self.held[self.next - 1] = record
        return self.held[number]

    def _read(self) -> Any:
        """The next record; after a fault nothing more can be had of the part, and nothing is read again."""
        if self.fault is not None:
            raise self.fault.with_traceback(None)
        try:
            record = next(self.records)
        except StopIteration:
            count = self.stretches.parts[self.part]
            self.fault = DataError(f"part {self.part} of the stream ended after {self.next} of {count} samples")
            raise self.fault from None
        except Exception as error:
            self.fault = error
            raise
        self.next += 1
        return record
