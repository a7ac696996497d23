"""Checkpoints: written whole or not at all, verified when read, taken only between optimizer steps."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer

from counterpoint.errors import RunError, Stopped


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the final name, syncs, then renames; reads only data, and only after its checksums hold."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path, storage_options=None) -> None:
        path = Path(path)
        part = path.with_name(f".{path.name}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
            _sync_folder(path.parent)
        except (OSError, RuntimeError) as error:
            part.unlink(missing_ok=True)
            free = shutil.disk_usage(path.parent).free / 2**20 if path.parent.exists() else 0
            raise RunError(f"cannot write {path}: {error}; {free:.0f} MB are free there") from None

    def load_checkpoint(self, path, map_location=None, weights_only=None) -> dict[str, Any]:
        verify(Path(path))
        try:
            return torch.load(path, map_location=map_location or "cpu", weights_only=True)
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise RunError(f"{path}: refused; checkpoints are data, and this one asks for more ({reason})") from None


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def verify(path: Path) -> None:
    """RunError unless every checksum in the file holds (torch writes a CRC-32 a record)."""
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except FileNotFoundError:
        raise RunError(f"{path}: there is no such checkpoint") from None
    except Exception as error:
        raise RunError(f"{path} is damaged or incomplete ({error})") from None
    if bad is not None:
        raise RunError(f"{path} is damaged (crc of {bad})")


def newest(folder: Path, say=lambda text: None) -> Path | None:
    """The newest good checkpoint of a folder; damaged ones are named and passed over, left-overs swept."""
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)
    found = sorted(folder.glob("step-*.ckpt"), key=lambda p: int(re.findall(r"\d+", p.stem)[-1]), reverse=True)
    for path in found:
        try:
            verify(path)
            return path
        except RunError as error:
            say(f"ignored {error}")
    return None


class Checkpoints(Callback):
    """Saves between optimizer steps: every `EVERY` seconds, at the end, and on SIGINT or SIGTERM.

    Saving takes at most a twentieth of the time: when a save is slow, the next one waits.
    """

    KEEP = 2
    EVERY = 30.0

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self._saved_at, self._cost = time.monotonic(), 0.0
        self._signal: int | None = None
        self._handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._saved_at = time.monotonic()
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._handlers[number] = signal.signal(number, self._receive)
            except ValueError:  # not in the main thread: a notebook's or a test's
                return

    def _receive(self, number: int, frame) -> None:
        if self._signal is not None:  # asked twice: stop at once
            raise KeyboardInterrupt
        self._signal = number

    def on_train_batch_end(self, trainer: Trainer, module, outputs, batch, batch_idx: int) -> None:
        if trainer.fit_loop._should_accumulate():  # the gradients of a started window are in no checkpoint
            return
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
        step, started = trainer.fit_loop.epoch_loop.batch_progress.total.ready, time.monotonic()
        path = self.folder / f"step-{step:08d}.ckpt"
        trainer.save_checkpoint(path)
        if trainer.is_global_zero:
            for old in sorted(self.folder.glob("step-*.ckpt"))[: -self.KEEP]:
                old.unlink(missing_ok=True)
        self._saved_at = time.monotonic()
        self._cost = self._saved_at - started if self.EVERY else 0.0
        return step

    def on_train_end(self, trainer: Trainer, module) -> None:
        self.save(trainer)
        self._restore()

    def on_exception(self, trainer: Trainer, module, exception: BaseException) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}
