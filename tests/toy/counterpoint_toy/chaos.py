"""A callback that ends its own process, for the tests of resuming."""

import os
import signal

from lightning.pytorch import Callback

from counterpoint.runs.checkpoints import Checkpoints


class Chaos(Callback):
    """Saves after every batch; sends the signal TOY_SIGNAL to its process in batch TOY_STEP, when these are set (of TOY_RANK, 0)."""

    def on_fit_start(self, trainer, module):
        for callback in trainer.callbacks:
            if isinstance(callback, Checkpoints):
                callback.EVERY = 0.0

    def on_train_batch_end(self, trainer, module, *rest):
        step = trainer.fit_loop.epoch_loop.batch_progress.total.ready
        if str(step) == os.environ.get("TOY_STEP") and str(trainer.global_rank) == os.environ.get("TOY_RANK", "0"):
            os.kill(os.getpid(), signal.Signals[os.environ["TOY_SIGNAL"]])
