"""The steps of an epoch with less between them: Lightning's order of events, of which only those are told that are heard.

Lightning tells every callback, the module, the strategy and the precision plugin of some thirty events a step, each
through a profiler: 0.2 ms a step for what nobody hears. Where training is plain (`_is_plain`: one process, no loss
scaling, no validation, no profiler, one optimizer step a batch), a step here does what Lightning's does, with the same
progress and the same arithmetic, and checkpoints of one go on in the other. Where it is not, and in the first step after
a restart, Lightning's own code runs. So it does in versions of Lightning that this was not tried with.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import lightning
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.plugins.precision import DoublePrecision, HalfPrecision, MixedPrecision, Precision
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

TRIED = ("2.6",)  # versions of Lightning

# In Lightning's order within a step; callbacks hear each before the module does.
HOOKS = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)
UNTOLD = ("on_train_batch_start", "on_before_batch_transfer", "on_after_batch_transfer", "backward",
          "configure_gradient_clipping")  # what a module that overrides it has to be told by Lightning  # fmt: skip


def shorten(trainer: Trainer) -> Trainer:
    """The trainer, before it is used, with steps of this kind."""
    if ".".join(lightning.__version__.split(".")[:2]) in TRIED:
        own = trainer.fit_loop.epoch_loop
        trainer.fit_loop.epoch_loop = Steps(trainer, own.min_steps, own.max_steps)
    return trainer


class Steps(_TrainingEpochLoop):
    """Lightning's epoch, with a shorter way through a step of plain training."""

    def on_run_start(self, data_fetcher) -> None:
        super().on_run_start(data_fetcher)
        self._listeners = {name: self._listeners_to(name) for name in HOOKS}
        self._plain = self._is_plain()

    def _listeners_to(self, hook: str) -> list[Callable]:
        trainer, module = self.trainer, self.trainer.lightning_module
        found = [c for c in trainer.callbacks if _overrides(c, hook, Callback)]
        own = [getattr(module, hook)] if _overrides(module, hook, LightningModule) else []
        return [*(partial(getattr(c, hook), trainer, module) for c in found), *own]

    def _is_plain(self) -> bool:
        trainer, precision = self.trainer, self.trainer.precision_plugin
        unscaled = type(precision) in (Precision, DoublePrecision, HalfPrecision) or (
            type(precision) is MixedPrecision and precision.scaler is None
        )
        return (
            unscaled
            and type(trainer.strategy) is SingleDeviceStrategy
            and isinstance(trainer.profiler, PassThroughProfiler)
            and not trainer.enable_validation
            and trainer.accumulate_grad_batches == 1  # in this epoch
            and not any(config.reduce_on_plateau for config in trainer.lr_scheduler_configs)
            and not any(_overrides(trainer.lightning_module, name, LightningModule) for name in UNTOLD)
        )

    def advance(self, data_fetcher) -> None:
        if not self._plain or self.restarting:
            super().advance(data_fetcher)
            return
        trainer, progress, connector = self.trainer, self.batch_progress, self.trainer._logger_connector
        batch, _, _ = next(data_fetcher)
        number = self.batch_idx + 1
        progress.is_last_batch = data_fetcher.done
        batch = trainer.precision_plugin.convert_input(batch)
        batch = trainer.lightning_module.transfer_batch_to_device(batch, trainer.strategy.root_device, 0)
        progress.increment_ready()
        connector.on_batch_start(batch)
        self._tell("on_train_batch_start", batch, number)
        progress.increment_started()
        loss = self._learn(batch, number)
        progress.increment_processed()
        self._update_learning_rates("step", update_plateau_schedulers=False)
        if self._num_ready_batches_reached():
            self._update_learning_rates("epoch", update_plateau_schedulers=False)
        self._tell("on_train_batch_end", {"loss": loss}, batch, number)
        if self._results:  # something was logged
            connector.on_batch_end()
        self._results.batch = self._results.batch_size = None
        progress.increment_completed()
        if self._results:
            connector.update_train_step_metrics()

    def _learn(self, batch, number: int) -> Tensor:
        """The step of the optimizer on one batch; returns the loss."""
        trainer, module, optimizer = self.trainer, self.trainer.lightning_module, self.trainer.optimizers[0]
        progress, precision = self.automatic_optimization.optim_progress.optimizer, trainer.precision_plugin
        losses: list[Tensor] = []

        @torch.enable_grad()
        def closure() -> Tensor:
            with precision.train_step_context():
                loss = module.training_step(batch, number)
            progress.zero_grad.increment_ready()
            self._tell("on_before_zero_grad", optimizer)
            progress.zero_grad.increment_started()
            module.optimizer_zero_grad(trainer.current_epoch, number, optimizer)
            progress.zero_grad.increment_completed()
            self._tell("on_before_backward", loss)
            module.backward(loss)
            self._tell("on_after_backward")
            self._tell("on_before_optimizer_step", optimizer)
            if trainer.gradient_clip_val is not None:
                module.configure_gradient_clipping(
                    optimizer, trainer.gradient_clip_val, trainer.gradient_clip_algorithm
                )
            losses[:] = [loss.detach()]
            return losses[0]

        progress.step.increment_ready()
        module.optimizer_step(trainer.current_epoch, number, optimizer, closure)
        progress.step.increment_completed()
        return losses[0]

    def on_advance_end(self, data_fetcher) -> None:
        if not self._plain:
            super().on_advance_end(data_fetcher)
            return
        self._batches_that_stepped += 1
        self._save_loggers_on_train_batch_end()
        if not self._is_training_done and self.trainer.received_sigterm:
            raise SIGTERMException

    def _tell(self, hook: str, *arguments) -> None:
        if not (listeners := self._listeners[hook]):
            return
        module = self.trainer.lightning_module
        before, module._current_fx_name = module._current_fx_name, hook  # whoever logs is asked where
        for listener in listeners:
            listener(*arguments)
        module._current_fx_name = before


def _overrides(thing: Callback | LightningModule, name: str, kind: type) -> bool:
    return getattr(getattr(thing, name), "__func__", None) is not getattr(kind, name)
