"""The shared loop: one LightningModule that trains any recipe.

One path: views, encoder and head of each micro-batch (recomputed in the backward pass when there are several), the
gather across ranks, the objectives on the whole batch. Where each service hooks in is part of the contract with
Lightning: queues are filled in `on_after_backward`, before any callback can save; momentum encoders follow in
`optimizer_step`, once an optimizer step; every generator is seeded at fixed points by (seed, step), where step counts
batches. Columns of the data set are refreshed when the plan is asked for the batches of an epoch, since Lightning may
ask before `on_train_epoch_start`; a view with parameters is a module in `pipelines`, and they join the optimizer
with those of the towers; one with a loss of its own (`TrainableView`) learns by that alone (`view_loss`).
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from counterpoint.batch import Batch, Encoded, Outputs, Queued, View, replace
from counterpoint.data.plan import Order
from counterpoint.errors import ComponentError, TrainingError
from counterpoint.kernels import as_autocast, divided, products
from counterpoint.kernels.autocast import no_autocast
from counterpoint.loop import not_finite
from counterpoint.loop.gather import active, gather
from counterpoint.loop.meter import Meter
from counterpoint.loop.micro_batch import joined, recomputed
from counterpoint.loop.optimizers import Factor, MakeOptimizer, parameter_groups
from counterpoint.loop.queue import Queue
from counterpoint.loop.view_loss import made, rest, view_losses
from counterpoint.modules import Named
from counterpoint.objectives.objective import Momentum, Objective
from counterpoint.randomness import key, seed_all
from counterpoint.refresh.refreshed import Refreshed
from counterpoint.towers.batch_statistics import counting, share
from counterpoint.towers.momentum import MomentumTowers
from counterpoint.towers.teacher import Teacher
from counterpoint.towers.tower import Tower
from counterpoint.views.generator import TrainableView
from counterpoint.views.pipeline import Pipeline

# What is set at every step.
_NOTED = {"_current_fx_name", "_entering", "_norm", "last_loss", "last_outputs", "last_parts"}


@dataclass
class Training:
    """How the loop trains: what the recipe says beside the modules."""

    optimizer: MakeOptimizer
    schedule: Factor
    batches: int  # in the whole run
    steps: int  # of the optimizer, in the whole run
    seed: int = 0
    micro_batch: int | None = None
    momentum: Momentum | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    lr_factors: Mapping[str, float] = field(default_factory=dict)


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
        self.towers = Named(towers)
        self.pipelines = Named(pipelines)
        self.objectives = Named(objectives)
        self.training_plan = training
        self.momentum = MomentumTowers(self.towers, training.momentum.dropout) if training.momentum else None
        self.teacher = teacher
        self.refreshed = refreshed
        self.queues = Named({name: self._queues_of(objective) for name, objective in self.objectives.items()})
        needs = [objective.needs() for objective in self.objectives.values()]
        self._wanted = frozenset(feature for need in needs for feature in need.features)
        self._columns = [{name for need in needs for name in getattr(need, kind)} for kind in ("groups", "labels")]
        self.layouts = {modality: pipeline.layout() for modality, pipeline in self.pipelines.items()}
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
        return Named({n: Queue(k, dim, tuple(sorted(needs.groups))) for n, k in needs.queues.items()})

    @cached_property
    def _counting(self) -> list[nn.Module]:
        return [layer for layer in counting(self) if layer.training]

    # One training step

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.check_finite()
        step = self.trainer.fit_loop.epoch_loop.total_batch_idx
        outputs = self.outputs(batch, step, self.current_epoch)
        device = self.device.type
        with products(as_autocast(device)), no_autocast(device), divided(self.trainer.world_size):
            total, parts = self.contrast(outputs)
        if any(pipeline.trainable for pipeline in self.pipelines.values()):
            taught, more = view_losses(self, batch, step)
            total, parts = total + taught, parts | more
        self.meter.add({"loss": total.detach(), **parts}, len(outputs.batch))
        self.last_loss, self.last_parts = total.detach(), parts
        kept = replace(outputs.batch, inputs={})  # the raw input of a batch is not held while the next one is encoded
        self.last_outputs = replace(
            outputs, student=[_detached(e) for e in outputs.student], momentum=[], teacher=[], batch=kept
        )
        return total

    def outputs(self, batch: Batch, step: int, epoch: int) -> Outputs:
        """Everything the objectives may look at, over all ranks."""
        sides = self.encode(batch, step)
        encoded, whole = gather([e for side in sides for e in side], batch)
        cut = _cut(encoded, [len(side) for side in sides])
        student, momentum, teacher = (
            [self._projected(e, branch, step) for e in side]
            for side, branch in zip(cut, ("student", "momentum", "teacher"))
        )
        return Outputs(
            student,
            self._with_columns(whole),
            momentum,
            teacher,
            step=step,
            epoch=epoch,
            total_steps=self.training_plan.batches,
        )

    def _projected(self, e: Encoded, branch: str, step: int) -> Encoded:
        """The Encoded of the whole batch after a head that looks at all of it; from one seed on every rank."""
        towers = {"student": self.towers, "teacher": self.teacher}
        tower = self._momentum_tower(e.modality) if branch == "momentum" else towers[branch][e.modality]
        if not tower.whole_batch:
            return e
        seed_all(key(self.training_plan.seed, "head", step, e.modality, e.view, branch))
        with nullcontext() if branch == "student" else torch.no_grad():
            projected = tower.project(e)
        return replace(
            projected, z=projected.z + e.z[:0].sum()
        )  # also where no rank had a row, connected to all weights

    def _with_columns(self, batch: Batch) -> Batch:
        """Groups that are refreshed; a group or label that no sample has, or a batch without samples: unknown."""
        batch = batch if self.refreshed is None else self.refreshed.add_to(batch)
        groups, labels = ({name: batch.index.new_full((len(batch),), -1) for name in names} for names in self._columns)
        return replace(batch, groups=groups | batch.groups, labels=labels | batch.labels)

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
        weights = self._learned()  # one norm a weight, the cheapest: the largest value costs ten times as much
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
            raise TrainingError(not_finite.said(self))
        if self._norm is not None and not math.isfinite(self._norm.item()):
            self.check_weights()  # a norm can overflow where no weight has

    def check_weights(self) -> None:
        """Stop on weights that are not finite: a gradient can be NaN, or a step too large, where the loss is finite."""
        weights = self._learned()
        if weights and not torch.stack(torch._foreach_norm(weights, float("inf"))).isfinite().all():
            raise TrainingError(
                f"the weights are not finite after step {self.trainer.global_step}, though the loss was "
                f"({not_finite.broken_weights(self)}): set trainer.gradient_clip_val: 1.0 or lower optimizer.lr; the "
                "checkpoints before this step are intact"
            )

    def _learned(self) -> list[nn.Parameter]:
        """The weights that a step can have changed; those of all modules would take three times as long to find."""
        groups = (group["params"] for optimizer in self.trainer.optimizers for group in optimizer.param_groups)
        return [p for params in groups for p in params if p.requires_grad and p.numel()]

    def order(self, order: Order, epoch: int) -> Order:
        """What the sampler may look at in an epoch: the columns that are due are made anew first."""
        if self.refreshed is None:
            return order
        self.refreshed.refresh(epoch, self.towers, self.pipelines, self.device)
        return self.refreshed.into(order)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        there = batch.index.device.type == device.type == "cpu"
        return batch if there else batch.to(device, non_blocking=True)

    # From a batch to embeddings

    def encode(self, batch: Batch, step: int) -> tuple[list[Encoded], list[Encoded], list[Encoded]]:
        """Student, momentum and teacher embeddings of every view of every modality, in one order on every rank."""
        student: list[Encoded] = []
        momentum: list[Encoded] = []
        teacher: list[Encoded] = []
        for modality in self.towers:
            first, raw = len(student), batch.inputs.get(modality)
            branches = [(student, self.towers[modality], "student")]
            if self.momentum is not None:
                branches.append((momentum, self._momentum_tower(modality), "momentum"))
            if self.teacher is not None and modality in self.teacher:
                branches.append((teacher, self.teacher[modality], "teacher"))
            there = raw is not None and len(raw) > 0
            index = batch.index[raw.row] if there else batch.index.new_zeros(0)
            whole = there and len(raw) <= (self.training_plan.micro_batch or len(raw))
            together = whole or (there and self.pipelines[modality].whole_batch)
            views = self.views(modality, raw, index, step) if together else []  # made once for all branches
            for into, tower, branch in branches:
                with nullcontext() if branch == "student" else torch.no_grad():
                    if not there:
                        into += tower.absent(self.layouts[modality], index, first)
                    elif whole:
                        into += self.embed(tower, views, step, 0, first, branch)
                    elif together:
                        into += self._views_by_micro_batches(tower, views, step, first, branch)
                    else:
                        into += self._by_micro_batches(tower, raw, index, step, first, branch)
        return student, momentum, teacher

    def _momentum_tower(self, modality: str) -> Tower:
        copies = self.momentum.towers
        return copies[modality] if modality in copies else self.towers[modality]

    def _by_micro_batches(
        self, tower: Tower, raw: View, index: Tensor, step: int, first: int, branch: str
    ) -> list[Encoded]:
        size, parts = self.training_plan.micro_batch, []
        for chunk, start in enumerate(range(0, len(raw), size)):
            # Everything by argument: a closure over a loop variable would recompute the last one, with a right loss
            # and a wrong gradient.
            rows = slice(start, start + size)
            parts.append(self._cached(self.make, tower, raw[rows], index[rows], step, chunk, first, branch))
        return joined(parts)

    def _views_by_micro_batches(
        self, tower: Tower, views: list[View], step: int, first: int, branch: str
    ) -> list[Encoded]:
        """The same where the views had to be made of all samples together: each is cut on its own."""
        size, found, chunk = self.training_plan.micro_batch, [], 0
        for number, view in enumerate(views):
            parts = []
            for start in range(0, max(1, len(view)), size):
                rows = [view[start : start + size]]
                parts.append(self._cached(self.embed, tower, rows, step, chunk, first + number, branch))
                chunk += 1
            found += joined(parts)
        return found

    @staticmethod
    def _cached(make: Callable, tower: Tower, *arguments) -> list[Encoded]:
        """What `make` makes of a micro-batch; of the student, activations are recomputed in the backward pass."""
        if arguments[-1] != "student":
            return make(tower, *arguments)
        return recomputed(make, tower, *arguments)

    def make(
        self, tower: Tower, raw: View, index: Tensor, step: int, chunk: int, first: int, branch: str = "student"
    ) -> list[Encoded]:
        """Views, encoder and head of one micro-batch, all from seeds, so that computing it again gives the same."""
        views = self.views(tower.modality, raw, index, step, getattr(tower, "learner", None))
        return self.embed(tower, views, step, chunk, first, branch)

    def views(
        self, modality: str, raw: View, index: Tensor, step: int, learner: TrainableView | None = None
    ) -> list[View]:
        """The views of some rows; ComponentError when a step made other roles than it declares.

        They are made in the precision of the data, as an evaluation prepares them, whatever the encoder's is.
        """
        with no_autocast(raw.data.device.type):
            views = made(self.pipelines[modality], learner, raw, index, self.training_plan.seed, step)
        roles = [view.role for view in views]
        if roles != self.layouts[modality]:
            raise ComponentError(
                f"views.{modality}: a step declares the roles {self.layouts[modality]} and made {roles}"
            )
        return views

    def embed(self, tower: Tower, views: list[View], step: int, chunk: int, first: int, branch: str) -> list[Encoded]:
        """Encoder and head of views numbered from `first`; dropout is a function of step, rank, chunk and branch."""
        seed_all(key(self.training_plan.seed, "model", step, self.global_rank, tower.modality, chunk, branch))
        encoded = [self._kept(tower(view, first + number, later=True)) for number, view in enumerate(views)]
        if "input" not in self._wanted or branch != "student":
            return encoded
        return [replace(e, input=view.data, input_mask=view.input_mask()) for e, view in zip(encoded, views)]

    def _kept(self, e: Encoded) -> Encoded:
        """Without the tokens, maps and layers that no objective asks for: they would be held for the whole batch."""
        names = [*(("tokens", "mask") if "tokens" not in self._wanted else ()), *({"map"} - self._wanted)]
        return replace(e, **dict.fromkeys(names), layers=e.layers if "layers" in self._wanted else ())

    # Optimizer

    def configure_optimizers(self):
        plan = self.training_plan
        probe = plan.optimizer([{"params": [nn.Parameter(torch.zeros(1))]}])
        lr, decay = probe.defaults["lr"], probe.defaults["weight_decay"]
        learners = [(tower, plan.lr_factors.get(modality, 1.0)) for modality, tower in self.towers.items()]
        learners += [(self.pipelines, 1.0), (self.objectives, 1.0)]
        apart = [view for pipeline in self.pipelines.values() for view in pipeline.trainable]
        groups = parameter_groups(learners, lr, decay, without=[p for view in apart for p in view.parameters()])
        for view in apart:
            groups += parameter_groups([(view, 1.0)], lr if view.lr is None else view.lr, decay)
        if not groups:
            raise TrainingError(
                "nothing learns: every encoder is frozen, and neither heads nor objectives have weights"
            )
        self._rates = [(group["lr"], group["weight_decay"]) for group in groups]
        optimizer = plan.optimizer(groups)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: plan.schedule(step, plan.steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_start(self) -> None:
        """A checkpoint brings the rates it was written with; where the recipe has others by now, they hold."""
        optimizer, scheduler = self.optimizers(), self.lr_schedulers()
        for number, (group, (lr, decay)) in enumerate(zip(optimizer.param_groups, self._rates, strict=True)):
            if (group["initial_lr"], group["weight_decay"]) != (lr, decay):
                group["initial_lr"] = scheduler.base_lrs[number] = lr
                group["lr"] = lr * scheduler.lr_lambdas[number](scheduler.last_epoch)
                group["weight_decay"] = decay

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


def _cut(encoded: list[Encoded], counts: list[int]) -> list[list[Encoded]]:
    ends = list(itertools.accumulate(counts))
    return [encoded[end - count : end] for end, count in zip(ends, counts)]
