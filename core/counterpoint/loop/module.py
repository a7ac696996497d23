"""The shared loop, as Lightning calls it: one LightningModule that trains any recipe.

A step is the forward pass (`forward`), the objectives on the whole batch, and what follows from them. Where each service
hooks in is part of the contract with Lightning: queues are filled in `on_after_backward`, before any callback can save;
momentum encoders follow in `optimizer_step`, once an optimizer step; every generator is seeded at fixed points by
(seed, step), where step counts batches. Columns of the data set are refreshed when the plan is asked for the batches of
an epoch, since Lightning may ask before `on_train_epoch_start`; a view with parameters is a module in `pipelines`, and
they join the optimizer with those of the towers; one with a loss of its own (`TrainableView`) learns by that alone
(`view_loss`).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from functools import cached_property

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from counterpoint.batch import Batch, Encoded, Outputs, Queued, replace
from counterpoint.data.plan import Order
from counterpoint.errors import TrainingError
from counterpoint.kernels import as_autocast, divided, products
from counterpoint.kernels.autocast import no_autocast
from counterpoint.loop import not_finite
from counterpoint.loop.forward import ForwardPass
from counterpoint.loop.learning import hold, learned, optimizer_of
from counterpoint.loop.meter import Meter
from counterpoint.loop.queue import Queue
from counterpoint.loop.trainable_views import rest
from counterpoint.loop.training import Training
from counterpoint.loop.view_loss import view_losses
from counterpoint.modules import NamedModules
from counterpoint.objectives.objective import Objective
from counterpoint.randomness import key, seed_all
from counterpoint.refresh.refreshed import Refreshed
from counterpoint.runs.ranks import active
from counterpoint.towers.batch_statistics import counting, share
from counterpoint.towers.momentum import MomentumTowers
from counterpoint.towers.teacher import Teacher
from counterpoint.towers.tower import Tower
from counterpoint.views.pipeline import Pipeline

# What is set at every step.
_NOTED = {"_current_fx_name", "_entering", "_norm", "last_loss", "last_outputs", "last_parts"}


class Loop(LightningModule):
    """Trains towers (one a modality) on pipelines of views by named objectives."""

    def __init__(
        self,
        towers: Mapping[str, Tower],
        pipelines: Mapping[str, Pipeline],
        objectives: Mapping[str, Objective],
        training: Training,
        teacher: Teacher | None = None,
        refreshed: Refreshed | None = None,
    ):
        super().__init__()
        self.towers = NamedModules(towers)
        self.pipelines = NamedModules(pipelines)
        self.objectives = NamedModules(objectives)
        self.training_plan = training
        self.momentum = MomentumTowers(self.towers, training.momentum.dropout) if training.momentum else None
        self.teacher = teacher
        self.refreshed = refreshed
        self.queues = NamedModules({name: self._queues_of(objective) for name, objective in self.objectives.items()})
        needs = [objective.needs() for objective in self.objectives.values()]
        self.forward_pass = ForwardPass(self.towers, self.pipelines, needs, training, self.momentum, teacher, refreshed)
        self.meter = Meter()
        self._entering: list[tuple[Queue, Queued]] = []
        self.last_loss: Tensor | None = None
        self.last_parts: dict[str, Tensor] = {}
        self._norm: Tensor | None = None  # of the weights after the last step of the optimizer
        self.last_outputs: Outputs | None = None  # of the last batch, for callbacks; without gradients

    def __setattr__(self, name: str, value) -> None:
        """What is set at every step is looked at no further: it is neither module nor parameter."""
        if name in _NOTED:
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def _queues_of(self, objective: Objective) -> nn.ModuleDict:
        needs = objective.needs()
        dim = next(iter(self.towers.values())).dim
        return NamedModules({n: Queue(k, dim, tuple(sorted(needs.groups))) for n, k in needs.queues.items()})

    @cached_property
    def _counting(self) -> list[nn.Module]:
        return [layer for layer in counting(self) if layer.training]

    # One training step

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.check_finite()
        step = self.trainer.fit_loop.epoch_loop.total_batch_idx
        outputs = self.forward_pass.outputs(batch, step, self.current_epoch)
        device = self.device.type
        with products(as_autocast(device)), no_autocast(device), divided(self.trainer.world_size):
            total, parts = self.contrast(outputs)
        if any(pipeline.trainable for pipeline in self.pipelines.values()):
            taught, more = view_losses(self.forward_pass, batch, step, self.current_epoch, self.trainer.global_step)
            total, parts = total + taught, parts | more
        self.meter.add({"loss": total.detach(), **parts}, len(outputs.batch))
        self.last_loss, self.last_parts = total.detach(), parts
        kept = replace(outputs.batch, inputs={})  # the raw input of a batch is not held while the next one is encoded
        self.last_outputs = replace(
            outputs, student=[_detached(e) for e in outputs.student], momentum=[], teacher=[], batch=kept
        )
        return total

    def contrast(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of the objectives and the parts to log; what enters the queues is kept for later."""
        terms, logged, self._entering = [], {}, []
        several = len(self.objectives) > 1
        for name, objective in self.objectives.items():
            queues = self.queues[name]
            seen = replace(outputs, queues={queue: module.rows() for queue, module in queues.items()})
            seed_all(key(self.training_plan.seed, "objective", name, outputs.step))
            loss, parts = objective(seen)
            weight = self.training_plan.weights.get(name, 1.0)
            terms.append(loss if weight == 1.0 else weight * loss)
            if several:
                logged[f"loss/{name}"] = loss.detach()
            logged |= {f"{name}/{part}" if several else part: value.detach() for part, value in parts.items()}
            self._keep(objective, seen, queues)
        return sum(terms[1:], terms[0]), logged  # each is connected to every embedding: see Objective

    @torch.no_grad()
    def _keep(self, objective: Objective, outputs: Outputs, queues: nn.ModuleDict) -> None:
        if not len(queues):
            return
        self._entering += [(queues[name], rows) for name, rows in objective.entering(outputs).items()]

    def on_after_backward(self) -> None:
        # Not in training_step: the values are still needed by the backward pass. Not in on_train_batch_end of this
        # module: callbacks run before it, so that a checkpoint would miss the push.
        for queue, rows in self._entering:
            queue.push(rows)
        self._entering = []

    def on_before_optimizer_step(self, optimizer) -> None:
        rest(self.pipelines.values(), self.trainer.global_step)

    def optimizer_step(self, *args, **kwargs) -> None:
        super().optimizer_step(*args, **kwargs)
        weights = learned(
            self.trainer.optimizers
        )  # one norm a weight, the cheapest: the largest value costs ten times as much
        self._norm = torch.stack(torch._foreach_norm(weights, 2)).sum() if weights else None
        if self.momentum is not None:
            progress = self.trainer.global_step / max(1, self.training_plan.steps)
            self.momentum.update(self.towers, self.training_plan.momentum.at(progress))
        if active():
            share(self._counting)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:
        """As the optimizer's own, without what profilers are told each time."""
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = None

    def check_finite(self) -> None:
        """Stop on a loss, or on weights, that were not finite; looked at one step later, when no device has to wait."""
        if self.last_loss is not None and not math.isfinite(self.last_loss.item()):
            raise TrainingError(self._why_not_finite())
        if self._norm is not None and not math.isfinite(self._norm.item()):
            self.check_weights()  # a norm can overflow where no weight has

    def _why_not_finite(self) -> str:
        dataset = getattr(self.trainer.train_dataloader, "dataset", None)
        return not_finite.said(
            self.last_loss, self.last_parts, self.objectives, self.last_outputs, self.forward_pass, dataset
        )

    def check_weights(self) -> None:
        """Stop on weights that are not finite: a gradient can be NaN, or a step too large, where the loss is finite."""
        weights = learned(self.trainer.optimizers)
        if weights and not torch.stack(torch._foreach_norm(weights, float("inf"))).isfinite().all():
            raise TrainingError(
                f"the weights are not finite after step {self.trainer.global_step}, though the loss was "
                f"({not_finite.broken_weights(self.named_parameters())}): set trainer.gradient_clip_val: 1.0 or lower optimizer.lr; the "
                "checkpoints before this step are intact"
            )

    def order(self, order: Order, epoch: int) -> Order:
        """What the sampler may look at in an epoch: the columns that are due are made anew first."""
        if self.refreshed is None:
            return order
        self.refreshed.refresh(epoch, self.towers, self.pipelines, self.device)
        return self.refreshed.into(order)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        there = batch.index.device.type == device.type == "cpu"
        return batch if there else batch.to(device, non_blocking=True)

    def configure_optimizers(self):
        parts = (self.towers, self.pipelines, self.objectives)
        optimizer, scheduler, self._rates = optimizer_of(self.training_plan, *parts)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_start(self) -> None:
        """A checkpoint brings the rates it was written with; where the recipe has others by now, they hold."""
        hold(self._rates, self.optimizers(), self.lr_schedulers())

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["meter"] = self.meter.state()

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self.meter.load(checkpoint.get("meter"))

    def on_train_epoch_end(self) -> None:
        if mean := self.meter.epoch():  # for callbacks that watch a metric, such as EarlyStopping
            self.log_dict({"loss": mean["loss"]}, batch_size=1, logger=False)


Loop.training_step.__signature__ = inspect.signature(Loop.training_step)  # Lightning asks for it at every step


def _detached(e: Encoded) -> Encoded:
    return replace(
        e,
        z=e.z.detach(),
        h=e.h.detach(),
        tokens=None,
        mask=None,
        map=None,
        heads={},
        input=None,
        input_mask=None,
        layers=(),
    )
