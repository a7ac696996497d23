"""Callbacks."""

from lightning.pytorch import Callback


class Count(Callback):
    """Counts the batches of a run, for whoever looks at `Count.seen`."""

    seen = 0

    def on_train_batch_end(self, trainer, module, *rest):
        Count.seen += 1
