"""What is done to a forked command before it runs (tests/forked.py): kills, full disks, records of what it saw.

Every write that counts is one under `runs`, in the folder in which the command was started.
"""

import errno
import io
import itertools
import json
import multiprocessing
import os
import signal
import sys
import time

FILES = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def end(name: str = "SIGKILL") -> None:
    """A signal to this process; `all SIGTERM`: to those that it has started, too, as a terminal or a scheduler sends it."""
    if name.startswith("all "):
        os.killpg(os.getpgid(0), signal.Signals[name[4:]])
    else:
        os.kill(os.getpid(), signal.Signals[name])


# --- at a step -------------------------------------------------------------------------------------------------------


def save_at_every_step() -> None:
    from counterpoint.runs.checkpoints import Checkpoints

    Checkpoints.EVERY = 0.0


def _in_training_step(what) -> None:
    """`what(loop, batch, number)` before every training step of this process, numbered from 0."""
    from counterpoint.loop.module import Loop

    plain, steps = Loop.training_step, itertools.count()

    def training_step(self, batch, batch_idx):
        what(self, batch, next(steps))
        return plain(self, batch, batch_idx)

    Loop.training_step = training_step


def at_step(step: int, name: str = "SIGKILL", times: int = 1, rank: int = 0) -> None:
    """A signal, or several at once, before the process learns from its batch number `step`."""

    def what(loop, batch, now):
        if now == step and loop.trainer.global_rank == rank:
            for _ in range(times):
                end(name)

    _in_training_step(what)


def raise_at_step(step: int, kind: str, text: str, rank: int = 0) -> None:
    import torch

    from counterpoint import errors

    def what(loop, batch, now):
        if now == step and loop.trainer.global_rank == rank:
            raise (getattr(torch, kind, None) or getattr(errors, kind))(text)

    _in_training_step(what)


def record_samples(path: str) -> None:
    """A line a step: stage, step of the stage, and the samples that were learnt from."""
    from counterpoint.runs.checkpoints import Checkpoints

    def what(loop, batch, now):
        stage = next(c.folder.name for c in loop.trainer.callbacks if isinstance(c, Checkpoints))
        step = loop.trainer.fit_loop.epoch_loop.batch_progress.total.ready - 1
        with open(path, "a") as file:
            file.write(json.dumps([stage, step, batch.index.tolist()]) + "\n")

    _in_training_step(what)


def at_call(place: str, name: str = "SIGKILL", times: int = 1) -> None:
    """A signal in the middle of a function, `counterpoint.fit.dry_run:try_out`."""
    import importlib

    module, attribute = place.split(":")
    owner = importlib.import_module(module)
    *owners, last = attribute.split(".")
    for part in owners:
        owner = getattr(owner, part)
    plain = getattr(owner, last)

    def called(*arguments, **named):
        for _ in range(times):
            end(name)
        return plain(*arguments, **named)

    setattr(owner, last, called)
    for other in list(sys.modules.values()):  # where it was imported by name
        if getattr(other, "__name__", "").startswith("counterpoint") and getattr(other, last, None) is plain:
            setattr(other, last, called)


# --- at an operation on files ----------------------------------------------------------------------------------------


def _under_runs(path) -> bool:
    return isinstance(path, str | bytes | os.PathLike) and os.path.abspath(os.fsdecode(path)).startswith(
        os.path.abspath("runs") + os.sep
    )


def _on_operations(what) -> None:
    """`what(number, event, path)` before every operation that changes a file under `runs`."""
    state = {"number": 0, "owner": os.getpid(), "busy": False}

    def hook(event, arguments):
        if event not in FILES or state["busy"] or os.getpid() != state["owner"]:
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & WRITES):
            return
        state["busy"] = True
        try:
            path = arguments[1] if event == "os.rename" else arguments[0]
            if _under_runs(path):
                state["number"] += 1
                what(state["number"], event, os.fsdecode(path))
        finally:
            state["busy"] = False

    sys.addaudithook(hook)


def record_operations(path: str) -> None:
    def what(number, event, name):
        with open(path, "a") as file:
            file.write(f"{number} {event} {name}\n")

    _on_operations(what)


def at_operation(number: int, name: str = "SIGKILL") -> None:
    _on_operations(lambda now, event, path: end(name) if now == number else None)


# --- at a byte -------------------------------------------------------------------------------------------------------


class _Counting:
    """A file that does `full` when `room[0]` bytes have been written to all such files together."""

    def __init__(self, file, room, full):
        self._file, self._room, self._full = file, room, full

    def write(self, data):
        size = len(memoryview(data).cast("B")) if not isinstance(data, str) else len(data)
        if size <= self._room[0]:
            self._room[0] -= size
            return self._file.write(data)
        part = data[: self._room[0]] if isinstance(data, str) else memoryview(data).cast("B")[: self._room[0]]
        self._room[0] = 0
        self._file.write(part)
        self._file.flush()
        self._full()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def writelines(self, lines):
        for line in lines:
            self.write(line)

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        self._file.__enter__()
        return self

    def __exit__(self, *error):
        return self._file.__exit__(*error)

    def __iter__(self):
        return iter(self._file)


def _limited(ending: str, room: int, full) -> None:
    left, plain = [room], io.open

    def opened(file, mode="r", *arguments, **named):
        found = plain(file, mode, *arguments, **named)
        writes = set(mode) & set("wax+")
        if writes and _under_runs(file) and ending in os.path.basename(os.fsdecode(file)):
            return _Counting(found, left, full)
        return found

    import builtins

    io.open = builtins.open = opened


def kill_after_bytes(ending: str, room: int) -> None:
    """SIGKILL when `room` bytes are in files under `runs` whose name holds `ending`."""
    _limited(ending, room, end)


def disk_full_after(ending: str, room: int) -> None:
    """The same, and the disk is full."""
    _limited(ending, room, lambda: None)


def free_space(megabytes: float) -> None:
    import shutil

    plain = shutil.disk_usage
    shutil.disk_usage = lambda path: plain(path)._replace(free=int(megabytes * 2**20))


# --- reading workers -------------------------------------------------------------------------------------------------


def worker_does(what: str, index: int, time_of_it: int = 0) -> None:
    """A worker that reads this sample for the first time, or for the one numbered so, hangs, dies or raises."""
    from counterpoint_toy.parts import Pairs

    main, plain, times = os.getpid(), Pairs.inputs, multiprocessing.Value("i", 0)

    def inputs(self, i):
        if i == index and os.getpid() != main:
            times.value += 1
            if times.value > time_of_it:
                _fail(what)
        return plain(self, i)

    Pairs.inputs = inputs


def _fail(what: str) -> None:
    if what == "hang":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(300)
    if what == "die":
        end()
    raise KeyError("no such lead")


# --- several processes -----------------------------------------------------------------------------------------------


class _Forked:
    """A process as subprocess.Popen has it."""

    def __init__(self, pid: int):
        self.pid, self.returncode = pid, None

    def poll(self):
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def terminate(self):
        self.send_signal(signal.SIGTERM)


def fork_ranks(*argv: str) -> None:
    """The second rank is forked, and runs the command anew, where Lightning would start a process."""
    from counterpoint.cli import main
    from counterpoint.fit.launcher import Launcher

    def start(self):
        os.environ.update(
            MASTER_ADDR="127.0.0.1", MASTER_PORT=str(self.cluster_environment.main_port), NODE_RANK="0", WORLD_SIZE="2"
        )
        os.environ["LOCAL_RANK"] = "1"
        pid = os.fork()
        if pid == 0:
            code = main(list(argv))
            sys.stderr.flush()
            os._exit(code)
        os.environ["LOCAL_RANK"] = "0"
        self.procs = [_Forked(pid)]

    Launcher._call_children_scripts = start
