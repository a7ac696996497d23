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

PATIENCE, POLL, LAST, SOON = 120.0, 2.0, 60, 2.0  # seconds
FIELDS = 3  # of a worker: its process, its sample (-1: none yet), when it began with it (0: it has ended it)


def patience() -> float:
    """Seconds that one sample may take to read: $COUNTERPOINT_READING_TIMEOUT, or 120."""
    return float(os.environ.get("COUNTERPOINT_READING_TIMEOUT") or PATIENCE)


class Noting(Seeded):
    """Reads as Seeded does, and notes in shared memory what is being read."""

    def __init__(self, dataset, seed: int, workers: int):
        super().__init__(dataset, seed)
        self.verdict: str | None = None  # what is wrong, once it is known
        self.ended: dict[int, int | None] = {}  # process of a worker that has died -> its exit code
        self.notes = multiprocessing.RawArray("q", [0, -1, 0] * max(1, workers))

    def __getitem__(self, place: tuple[int, int]):
        if (info := get_worker_info()) is None:
            return super().__getitem__(place)
        mine = FIELDS * info.id
        self.notes[mine : mine + FIELDS] = [os.getpid(), place[1], time.monotonic_ns()]
        found = super().__getitem__(place)
        self.notes[mine + 2] = 0
        return found

    def slowest(self) -> tuple[int, int] | None:
        """The worker that has been reading one sample for longest, and when it began."""
        begun = {w: self.notes[FIELDS * w + 2] for w in range(len(self.notes) // FIELDS)}
        begun = {w: at for w, at in begun.items() if at}
        if not begun:
            return None
        first = min(begun, key=begun.get)
        return first, begun[first]

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
            persistent_workers=keep and workers > 0, pin_memory=pin, timeout=_poll() if workers else 0,
            worker_init_fn=_outlive,
        )  # fmt: skip

    def __iter__(self) -> Iterator:
        before = signal.getsignal(signal.SIGCHLD)
        found = Bounded(super().__iter__(), self.noting)
        with suppress(ValueError):  # not in the main thread
            # Torch raises for a dead worker wherever the process is, also within a step; asking for the next batch tells
            # it as well, and between two steps a checkpoint can still be written.
            signal.signal(signal.SIGCHLD, before)
        return found


class Bounded:
    """The iterator of a DataLoader: it is asked again for as long as its workers get on."""

    def __init__(self, iterator, noting: Noting):
        self.iterator, self.noting = iterator, noting

    def __iter__(self) -> Bounded:
        return self

    def __len__(self) -> int:
        return len(self.iterator)

    def __next__(self):
        waited, last = 0.0, None
        while True:
            try:
                with named_faults(self.noting):
                    return self._next()
            except RuntimeError as error:
                if not str(error).startswith("DataLoader timed out"):
                    raise
            # Waits are counted, not read from a clock: it goes on while a process is suspended.
            slowest = self.noting.slowest()
            waited, last = (waited + _poll(), last) if slowest == last else (0.0, slowest)
            self._look(slowest, waited)

    def _next(self):
        try:
            return next(self.iterator)
        except RuntimeError:
            self.noting.ended = self._dead()
            raise
        except (ConnectionError, EOFError):
            # A worker died while it handed a batch over; the system may not have said so yet.
            start = time.monotonic()
            while not (dead := self._dead()) and time.monotonic() < start + SOON:
                time.sleep(0.01)
            self.noting.ended = dead
            if not dead:
                raise
            raise RuntimeError(f"DataLoader worker (pid(s) {', '.join(map(str, dead))}) exited unexpectedly") from None

    def _dead(self) -> dict[int, int | None]:
        """Process -> exit code of the workers that have ended."""
        return {w.pid: w.exitcode for w in getattr(self.iterator, "_workers", ()) if not w.is_alive()}

    def _look(self, slowest: tuple[int, int] | None, waited: float) -> None:
        """TrainingError when a worker has been at one sample for too long, or all rest and nothing comes."""
        limit = patience()
        if slowest is None and waited >= 5 * limit:
            raise TrainingError(f"the reading workers gave nothing for {waited:.0f} s, and read nothing")
        if slowest is not None and waited >= limit:
            worker, _ = slowest
            self.noting.verdict = (
                f"worker {worker} gave nothing for {waited:.0f} s; {self.noting.last_sample(worker)}. "
                "A slow sample may have longer: COUNTERPOINT_READING_TIMEOUT=600"
            )
            with suppress(ProcessLookupError):  # torch may raise for its death before the next line does
                os.kill(self.noting.pid_of(worker), signal.SIGKILL)  # it may not hear anything less
            raise TrainingError(self.noting.verdict)


def _poll() -> float:
    return min(POLL, patience())


def _outlive(worker: int) -> None:
    """A worker goes on for a minute after SIGTERM, which often goes to all processes of a run: the first one decides."""
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(LAST))


def end_workers() -> None:
    """At the end of the process: those that hang would be waited for."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # else torch raises for it
    for process in multiprocessing.active_children():
        process.kill()


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
        for worker in filter(lambda w: w is not None, map(noting.worker_of, pids)):
            if noting.verdict is not None:
                return noting.verdict
            code = noting.ended.get(noting.pid_of(worker)) or 0
            ended = f"was ended by {signal.Signals(-code).name}" if code < 0 else "died"
            few = "when memory is short, fewer workers hold less of it: loader.workers=1"
            return f"worker {worker} {ended}; {noting.last_sample(worker)}; {few}"
    return f"a reading worker died ({text.splitlines()[0][:200]})"


def _raised(error: Exception) -> Exception | None:
    """Of `Caught DataError in DataLoader worker process 0. Original Traceback ...` the error as it was raised there."""
    head, _, trace = str(error).partition("\nOriginal Traceback")
    if not re.match(r"Caught \w+ in DataLoader worker process \d+", head):
        return None
    told = re.split(r"\n(?=\S)", trace.strip())[-1]
    told = re.sub(r"^[\w.]+: ", "", told) if isinstance(error, CounterpointError) else " ".join(told.split())
    if isinstance(error, CounterpointError):
        return type(error)(told) if type(error).__init__ is CounterpointError.__init__ else DataError(told)
    return TrainingError(f"worker {head.rpartition(' ')[2].rstrip('.')} raised {told}")
