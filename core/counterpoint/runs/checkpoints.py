"""Checkpoints: written whole or not at all, verified when read, taken only between optimizer steps."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from counterpoint.errors import CounterpointError, RunError, Stopped
from counterpoint.runs import sealed
from counterpoint.runs.atomic import cannot_write, megabytes, replacing, sweep
from counterpoint.runs.interrupts import Interrupted
from counterpoint.runs.ranks import is_first_rank

PARTS = (
    "state_dict",
    "optimizer_states",
    "lr_schedulers",
    "loops",
    "epoch",
    "global_step",
)  # of Lightning's checkpoints
ROOM = 1 << 16  # bytes of a checkpoint beside its tensors
KEEP = 2  # of a stage


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the final name, syncs, then renames; reads only data, and only after its checksum holds.

    belongs: whose checkpoints they are, which is part of the file and compared when it is read
    """

    def __init__(self, belongs: Mapping[str, str] | None = None):
        super().__init__()
        self.belongs = dict(belongs or {})

    def save_checkpoint(self, checkpoint: dict[str, Any], path, storage_options=None) -> None:
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._check_room(checkpoint, path.parent)
            with replacing(path) as file:
                sealed.save(checkpoint, file, self.belongs)
        except (OSError, RuntimeError) as error:  # torch's writer makes a RuntimeError of a full disk
            raise RunError(cannot_write(path, error.__context__ or error)) from None

    @staticmethod
    def _check_room(checkpoint: dict[str, Any], folder: Path) -> None:
        needed, free = size_of(checkpoint) + ROOM, shutil.disk_usage(folder).free
        if needed > free:
            raise RunError(
                f"checkpoint needs {megabytes(needed)}, {megabytes(free)} free in {folder}; those before it are kept"
            )

    def load_checkpoint(self, path, map_location=None, weights_only=None) -> dict[str, Any]:
        path = Path(path)
        check(path, self.belongs)
        try:
            found = torch.load(path, map_location=map_location or "cpu", weights_only=True)
        except Exception as error:
            raise RunError(f"{path}: refused: {_asked_for(error)}; checkpoints are data") from None
        if not isinstance(found, dict) or any(part not in found for part in PARTS):
            raise RunError(f"{path}: refused: it is not what training writes")
        return found


def _asked_for(error: Exception) -> str:
    """`it needs os.system`, of torch's words for a pickle that names what is no data."""
    text = str(error)
    names = re.findall(r"GLOBAL ([\w.]+)", text)
    return f"it needs {names[0]}" if names else " ".join(text.split())[:200]


def size_of(value: Any, seen: set[int] | None = None) -> int:
    """Bytes of all different tensors in a nest of mappings and sequences; of views, of all that they are views of."""
    seen = set() if seen is None else seen
    if isinstance(value, torch.Tensor):
        storage = value.untyped_storage()
        fresh = storage.data_ptr() not in seen
        seen.add(storage.data_ptr())
        return storage.nbytes() if fresh else 0
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return sum(size_of(part, seen) for part in parts)


def check(path: Path, belongs: Mapping[str, str]) -> None:
    """RunError unless a checkpoint is whole and of the run and stage in `belongs` ({}: of any)."""
    facts = sealed.verify(path)
    if other := {name: facts.get(name) for name in belongs if facts.get(name) != belongs[name]}:
        told = ", ".join(f"{name} {value}, not {belongs[name]}" for name, value in other.items())
        raise RunError(f"{path} is of another run ({told})")


def newest(
    folder: Path, say: Callable[[str], None] = lambda text: None, belongs: Mapping[str, str] | None = None
) -> Path | None:
    """The newest good checkpoint of a folder; others are named and passed over, left-overs of writes swept."""
    swept = sweep(folder) if is_first_rank() else []
    ignored = [f"{path.name} (incomplete: the process was ended while it was written)" for path in swept]
    using = None
    for path in sorted(folder.glob("step-*.ckpt"), key=step_of, reverse=True):
        try:
            check(path, belongs or {})
            using = path
            break
        except RunError as error:
            ignored.append(str(error))
    for text in ignored:
        say(f"ignored {text}{f'; using {using.name}' if using else ''}")
    return using


def step_of(path: Path) -> int:
    return int(re.findall(r"\d+", path.stem)[-1])


def drop_old(folder: Path, step: int) -> None:
    """Beyond `step` there are only those that were passed over, as damaged, when the run was gone on with."""
    found = sorted(folder.glob("step-*.ckpt"), key=step_of)
    good = [path for path in found if step_of(path) <= step]
    for old in {*found} - {*good[-KEEP:]}:
        old.unlink(missing_ok=True)


class Checkpoints(Checkpoint):
    """Saves between optimizer steps: every `EVERY` seconds, at the end, and on SIGINT or SIGTERM.

    Saving takes at most a twentieth of the time: when a save is slow, the next one waits. After the last batch of an
    epoch it waits for everything else that happens at the end of one, so that a checkpoint of a step comes after
    whatever is logged and decided there, and nothing of it is done twice or never. (Lightning calls callbacks of the class
    `Checkpoint` after all others, and after those that stop early.)
    """

    EVERY = 30.0

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self._saved_at, self._cost = time.monotonic(), 0.0
        self._signal: int | None = None
        self._handlers: dict[int, Any] = {}
        self._owner = os.getpid()
        self._done = self._saved = -1

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._saved_at = time.monotonic()
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._handlers[number] = signal.signal(number, self._receive)
            except ValueError:  # not in the main thread: a notebook's or a test's
                return

    def _receive(self, number: int, frame) -> None:
        if os.getpid() != self._owner:  # a reading worker, which ends with this process
            return
        if self._signal is not None:  # asked twice: stop at once
            raise Interrupted(number)
        self._signal = number

    def on_train_batch_end(self, trainer: Trainer, module, outputs, batch, batch_idx: int) -> None:
        if not trainer.fit_loop.epoch_loop._num_ready_batches_reached():
            self._between_steps(trainer)

    def on_train_epoch_end(self, trainer: Trainer, module) -> None:
        # After the last epoch `on_train_end` comes next: its checkpoint of the same step counts that epoch as done.
        if not trainer.fit_loop.done:
            self._between_steps(trainer)

    def _between_steps(self, trainer: Trainer) -> None:
        if trainer.fit_loop._should_accumulate():  # the gradients of a started window are in no checkpoint
            return
        self._done = _batches(trainer)
        number, due = self._agreed(trainer)
        if number:
            raise Stopped(number, self.save(trainer))
        if due:
            self.save(trainer)

    def _agreed(self, trainer: Trainer) -> tuple[int, bool]:
        """The signal that any rank was sent (0: none), and whether the first rank finds a checkpoint due."""
        due = time.monotonic() - self._saved_at >= max(self.EVERY, 20 * self._cost)
        if trainer.world_size == 1:
            return self._signal or 0, due
        votes = torch.tensor([self._signal or 0, due and trainer.is_global_zero], device=trainer.strategy.root_device)
        torch.distributed.all_reduce(votes, torch.distributed.ReduceOp.MAX)
        number, due = votes.tolist()
        return number, bool(due)

    def save(self, trainer: Trainer) -> int:
        """Write a checkpoint, then drop all but the newest; returns the number of batches done."""
        trainer.lightning_module.check_finite()  # a good checkpoint is never overwritten by one that is not
        trainer.lightning_module.check_weights()
        step, started = _batches(trainer), time.monotonic()
        path = self.folder / f"step-{step:08d}.ckpt"
        trainer.save_checkpoint(path)
        if trainer.is_global_zero:
            drop_old(self.folder, step)
        self._saved_at, self._saved = time.monotonic(), step
        self._cost = self._saved_at - started if self.EVERY else 0.0
        return step

    def on_train_end(self, trainer: Trainer, module) -> None:
        step = self.save(trainer)
        number, _ = self._agreed(trainer)
        self._restore()
        if number:  # it came after the last step
            raise Stopped(number, step)

    def on_exception(self, trainer: Trainer, module, exception: BaseException) -> None:
        self._restore()
        if (
            isinstance(exception, Exception)
            and trainer.world_size == 1
            and self._saved < self._done == _batches(trainer)
        ):
            with suppress(
                CounterpointError
            ):  # what ended the run, such as a file that cannot be read, is no fault of its state
                self.save(trainer)

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}


def _batches(trainer: Trainer) -> int:
    return trainer.fit_loop.epoch_loop.batch_progress.total.ready
