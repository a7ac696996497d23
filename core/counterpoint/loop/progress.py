"""What a run shows while it trains: one bar on a terminal, and metrics logged every few steps."""

from __future__ import annotations

import sys
import time

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger

from counterpoint.runs.run import MetricsFile


class MetricsLogger(Logger):
    """Lightning's view of metrics.csv, and of timings.csv for what no two runs have alike."""

    TIMINGS = ("data_wait",)

    def __init__(self, metrics: MetricsFile, timings: MetricsFile):
        super().__init__()
        self.metrics, self.timings = metrics, timings

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, *args, **kwargs) -> None:
        """The recipe is in the run folder already."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        values = dict(metrics)
        epoch = int(values.pop("epoch", 0))
        timings = {name: values.pop(name) for name in self.TIMINGS if name in values}
        for file, part in ((self.metrics, values), (self.timings, timings)):
            file.append(step or 0, epoch, part)


class Progress(Callback):
    """Epoch, step, samples/s, share of time waiting for data, loss, live kNN and time left.

    The bar is redrawn on a timer; loggers get means over `every` steps. When standard error is no terminal there is
    no bar.
    """

    REFRESH = 0.25  # seconds

    def __init__(
        self, batches: int, every: int = 10, stage: str | None = None, before: int = 0, show: bool | None = None
    ):
        self.batches, self.every, self.stage, self.before = batches, every, stage, before
        self.show = sys.stderr.isatty() if show is None else show
        self.live = ""
        self._bar = None
        self._waited = self._drawn = 0.0
        self._logged = (0.0, 0.0)  # when values were last logged, and the waiting up to then

    def on_train_start(self, trainer: Trainer, module) -> None:
        self._started = self._left = time.perf_counter()
        self._logged = (self._started, self._waited)
        self._first = trainer.fit_loop.epoch_loop.batch_progress.total.ready
        if self.show and trainer.is_global_zero:
            self._bar = _bar()
            self._bar.start()
            self._task = self._bar.add_task(
                self.stage or "training", total=self.batches, completed=self._first, text=""
            )

    def on_train_epoch_start(self, trainer: Trainer, module) -> None:
        self._left = time.perf_counter()  # what callbacks do at the end of an epoch is no waiting for data

    def on_train_batch_start(self, trainer: Trainer, module, batch, batch_idx: int) -> None:
        self._waited += time.perf_counter() - self._left

    def on_train_batch_end(self, trainer: Trainer, module, outputs, batch, batch_idx: int) -> None:
        step = trainer.fit_loop.epoch_loop.batch_progress.total.ready
        if step % self.every == 0 or step in (1, self.batches):
            self._log(trainer, module, step)
        self._left = time.perf_counter()
        if self._bar is not None and self._left - self._drawn > self.REFRESH:
            self._draw(trainer, module, step)

    def _log(self, trainer: Trainer, module, step: int) -> None:
        values = module.meter.recent()
        (since, waited), now = self._logged, time.perf_counter()
        self._logged = (now, self._waited)
        share = (self._waited - waited) / max(1e-9, now - since)
        self.record(
            trainer, values | {"lr": trainer.optimizers[0].param_groups[0]["lr"], "data_wait": min(1.0, share)}, step
        )

    def record(self, trainer: Trainer, values: dict[str, float], step: int) -> None:
        """Send values to every logger, at a number of batches done in this stage; those before it count on."""
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.log_metrics({"epoch": trainer.current_epoch, **values}, self.before + step)

    def _draw(self, trainer: Trainer, module, step: int) -> None:
        self._drawn = self._left
        spent = self._left - self._started
        epochs = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else None
        epoch = min(trainer.current_epoch + 1, epochs or trainer.current_epoch + 1)
        text = f"epoch {epoch}/{epochs or '?'} {module.meter.samples / spent:.0f} samples/s"
        text += f" data {self._waited / spent:.0%} loss {float(module.last_loss):.3f}{self.live}"
        self._bar.update(self._task, completed=step, text=text)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def on_train_end(self, trainer: Trainer, module) -> None:
        if self._bar is not None:
            self._left = time.perf_counter()
            self._draw(trainer, module, self.batches)
        self._close()

    def on_exception(self, trainer: Trainer, module, exception: BaseException) -> None:
        self._close()


def _bar():
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar
    from rich.table import Column

    console = Console(stderr=True)
    whole = {"table_column": Column(no_wrap=True)}
    columns = [TextColumn("[bold]{task.description}", **whole), *([BarColumn(20)] if console.width >= 110 else [])]
    columns += [TextColumn("step"), MofNCompleteColumn(**whole), TextColumn("{task.fields[text]}", **whole)]
    return Bar(*columns, TimeRemainingColumn(), TextColumn("left"), console=console, refresh_per_second=4)
