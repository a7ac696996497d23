"""The loader: batches read by workers, of which none is waited for without end, and whose faults name the sample.

Each worker notes which sample it reads, and since when, in memory that it shares with the process that waits. A sample
that takes longer than `patience()` seconds ends the run, with the worker that hangs; so does a worker that dies.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from weakref import WeakSet

from torch.utils.data import DataLoader, get_worker_info

from counterpoint.data.collate import collate
from counterpoint.data.plan import Seeded
from counterpoint.errors import CounterpointError, DataError, TrainingError

PATIENCE, POLL = 120.0, 2.0  # seconds
FIELDS = 3  # of a worker: its process, its sample (-1: none yet), when it began with it (0: it has ended it)


def patience() -> float:
    """Seconds that one sample may take to read: $COUNTERPOINT_READING_TIMEOUT, or 120."""
    return float(os.environ.get("COUNTERPOINT_READING_TIMEOUT") or PATIENCE)


class Noting(Seeded):
    """Reads as Seeded does, and notes in shared memory what is being read."""

    def __init__(self, dataset, seed: int, workers: int):
        super().__init__(dataset, seed)
        self.verdict: str | None = None  # what is wrong, once it is known
        self.notes = multiprocessing.RawArray("q", [0, -1, 0] * max(1, workers))

    def __getitem__(self, place: tuple[int, int]):
        if (info := get_worker_info()) is None:
            return super().__getitem__(place)
        mine = FIELDS * info.id
        self.notes[mine : mine + FIELDS] = [os.getpid(), place[1], time.monotonic_ns()]
        found = super().__getitem__(place)
        self.notes[mine + 2] = 0
        return found

    def slowest(self) -> tuple[int, float] | None:
        """The worker that has been reading one sample for longest, and for how many seconds."""
        begun = {w: self.notes[FIELDS * w + 2] for w in range(len(self.notes) // FIELDS)}
        begun = {w: at for w, at in begun.items() if at}
        if not begun:
            return None
        first = min(begun, key=begun.get)
        return first, (time.monotonic_ns() - begun[first]) / 1e9

    def worker_of(self, pid: int) -> int | None:
        found = [w for w in range(len(self.notes) // FIELDS) if self.notes[FIELDS * w] == pid]
        return found[0] if found else None

    def pid_of(self, worker: int) -> int:
        return self.notes[FIELDS * worker]

    def last_sample(self, worker: int) -> str:
        """`last sample 37 (signal /data/x.wav)`."""
        index = self.notes[FIELDS * worker + 1]
        told = getattr(self.dataset, "told", lambda index: "")(index) if index >= 0 else ""
        return f"last sample {index}{f' ({told})' if told else ''}" if index >= 0 else "it had read nothing yet"


class Loader(DataLoader):
    """Batches of `dataset`, at the places that `batch_sampler` yields as [(epoch, index), ...].

    Raises TrainingError for a worker that hangs or dies, and in one line what a worker raises.
    """

    ACTIVE: WeakSet[Noting] = WeakSet()

    def __init__(self, dataset, seed: int, *, batch_sampler, workers: int, keep: bool = False, pin: bool = False):
        self.noting = Noting(dataset, seed, workers)
        self.ACTIVE.add(self.noting)
        super().__init__(
            self.noting, batch_sampler=batch_sampler, collate_fn=collate, num_workers=workers,
            persistent_workers=keep and workers > 0, pin_memory=pin, timeout=min(POLL, patience()) if workers else 0,
        )  # fmt: skip

    def __iter__(self) -> Iterator:
        return _Bounded(super().__iter__(), self.noting)


class _Bounded:
    """The iterator of a DataLoader: it is asked again for as long as its workers get on."""

    def __init__(self, iterator, noting: Noting):
        self.iterator, self.noting = iterator, noting

    def __iter__(self) -> _Bounded:
        return self

    def __len__(self) -> int:
        return len(self.iterator)

    def __next__(self):
        since = time.monotonic()
        while True:
            try:
                with named_faults(self.noting):
                    return next(self.iterator)
            except RuntimeError as error:
                if not str(error).startswith("DataLoader timed out"):
                    raise
                self._look(time.monotonic() - since)

    def _look(self, waited: float) -> None:
        """TrainingError when a worker has been at one sample for too long, or all rest and nothing comes."""
        limit, slowest = patience(), self.noting.slowest()
        if slowest is None and waited > limit:
            raise TrainingError(f"the reading workers gave nothing for {waited:.0f} s, and read nothing")
        if slowest is not None and slowest[1] > limit:
            worker, seconds = slowest
            self.noting.verdict = (
                f"worker {worker} gave nothing for {seconds:.0f} s; {self.noting.last_sample(worker)}. "
                "A slow sample may have longer: COUNTERPOINT_READING_TIMEOUT=600"
            )
            with suppress(ProcessLookupError):  # torch may raise for its death before the next line does
                os.kill(self.noting.pid_of(worker), signal.SIGKILL)  # it may not hear anything less
            raise TrainingError(self.noting.verdict)


@contextmanager
def named_faults(*noting: Noting) -> Iterator[None]:
    """What torch raises for a worker that died, anywhere in the main process, or for what it raised, in one line."""
    try:
        yield
    except Exception as error:
        if said := _died(str(error), noting or tuple(Loader.ACTIVE)):
            raise TrainingError(said) from None
        if said := _raised(error):
            raise said from None
        raise


def _died(text: str, notings) -> str | None:
    """Of `DataLoader worker (pid 17) is killed by signal: Killed`, and of its other form."""
    if not text.startswith("DataLoader worker (pid"):
        return None
    pids = [int(pid) for pid in re.findall(r"\d+", text.partition(" is killed")[0])]
    for noting in notings:
        if noting.verdict is not None:
            return noting.verdict
        for worker in filter(lambda w: w is not None, map(noting.worker_of, pids)):
            how = re.findall(r"signal: ([\w ]+)", text)
            ended = f"was ended by a signal ({how[0].strip()})" if how else "died"
            few = "; when memory is short, fewer workers hold less of it: loader.workers=1" if "Kill" in text else ""
            return f"worker {worker} {ended}; {noting.last_sample(worker)}{few}"
    return f"a reading worker died ({text.splitlines()[0][:200]})"


def _raised(error: Exception) -> Exception | None:
    """Of `Caught DataError in DataLoader worker process 0. Original Traceback ...` the error as it was raised there."""
    head, _, trace = str(error).partition("\nOriginal Traceback")
    if not re.match(r"Caught \w+ in DataLoader worker process \d+", head):
        return None
    told = re.split(r"\n(?=\S)", trace.strip())[-1]
    told = re.sub(r"^[\w.]+: ", "", told) if isinstance(error, CounterpointError) else " ".join(told.split())
    if isinstance(error, CounterpointError):
        return type(error)(told) if type(error).__init__ is Exception.__init__ else DataError(told)
    return TrainingError(f"worker {head.rpartition(' ')[2].rstrip('.')} raised {told}")
