"""Views that learn by a loss of their own: it reaches them through the encoder, and reaches nothing else.

The views are made a second time, with the parameters of the one that learns, and the encoder sees them with constant
parameters in evaluation mode: neither its weights nor its batch statistics move. Micro-batches are recomputed in the
backward pass as for the objective. Whether a view learns in a step is a function of the number of optimizer steps done,
so that a resumed run goes on as it would have; where it rests its gradient is zero for other processes, which wait for
it, and none for the optimizer. One process holds the whole model here: parameters that are sharded cannot be constants.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call

from counterpoint.batch import Batch, Encoded, Outputs, View
from counterpoint.loop.gather import gather
from counterpoint.randomness import key, seed_all
from counterpoint.towers.tower import Tower
from counterpoint.views.generator import TrainableView
from counterpoint.views.pipeline import Pipeline

if TYPE_CHECKING:
    from counterpoint.loop.module import Loop


def made(pipeline: Pipeline, learner: TrainableView | None, *arguments) -> list[View]:
    """The views of a pipeline: for the objective, with trainable views as constants; for `learner`, with all others so."""
    views = pipeline.trainable
    if not views:
        return pipeline(*arguments)
    learning = set() if learner is None else set(learner.parameters())
    apart = {p for view in views for p in view.parameters()} if learner is None else set(pipeline.parameters())
    return _with_constants(pipeline, apart - learning, *arguments)


def rest(pipelines: Iterable[Pipeline], done: int) -> None:
    """No gradient for the views that do not learn in the optimizer step number `done`: momentum would move them."""
    for pipeline in pipelines:
        for view in pipeline.trainable:
            if done % view.every:
                for parameter in view.parameters():
                    parameter.grad = None


def view_losses(loop: Loop, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum of the losses of all trainable views, connected to each, and their parts to log."""
    total, logged = torch.zeros((), device=loop.device), {}
    for modality, pipeline in loop.pipelines.items():
        views = pipeline.trainable
        for number, view in enumerate(views):
            total = total + sum(p.sum() * 0.0 for p in view.parameters() if p.requires_grad)
            if loop.trainer.global_step % view.every == 0:
                loss, parts = _own_loss(loop, modality, view, number, batch, step)
                name = f"view/{modality}" if len(views) == 1 else f"view/{modality}.{number}"
                total = total + loss
                logged |= {name: loss.detach(), **{f"{name}/{k}": part.detach() for k, part in parts.items()}}
    return total, logged


def _own_loss(loop: Loop, modality: str, view: TrainableView, number: int, batch: Batch, step: int):
    tower = _Through(loop.towers[modality], view)
    encoded, whole = gather(_encoded(loop, tower, batch, step), batch)
    if not any(len(e.row) for e in encoded):
        return torch.zeros((), device=loop.device), {}
    if tower.whole_batch:
        encoded = [tower.project(e) for e in encoded]
    plan = loop.training_plan
    seed_all(key(plan.seed, "view loss", modality, number, step))
    outputs = Outputs(encoded, loop._with_columns(whole), step=step, epoch=loop.current_epoch, total_steps=plan.batches)
    with torch.autocast(loop.device.type, enabled=False):
        return view.own_loss(outputs)


def _encoded(loop: Loop, tower: _Through, batch: Batch, step: int) -> list[Encoded]:
    """The views of this rank, as the tower sees them."""
    raw, micro = batch.inputs.get(tower.modality), loop.training_plan.micro_batch
    if raw is None or not len(raw):
        absent = tower.tower.absent(loop.layouts[tower.modality], batch.index.new_zeros(0), 0)
        return [e.detach() for e in absent]
    index = batch.index[raw.row]
    if micro is None or len(raw) <= micro:
        return loop.make(tower, raw, index, step, 0, 0)
    if loop.pipelines[tower.modality].whole_batch:
        views = loop.views(tower.modality, raw, index, step, tower.learner)
        return loop._views_by_micro_batches(tower, views, step, 0, "student")
    return loop._by_micro_batches(tower, raw, index, step, 0, "student")


class _Through(nn.Module):
    """A tower with constant parameters in evaluation mode, as the loop calls a tower, for one view to learn through."""

    def __init__(self, tower: Tower, learner: TrainableView):
        super().__init__()
        self.tower, self.modality, self.whole_batch = tower, tower.modality, tower.whole_batch
        self.__dict__["learner"] = learner  # not a part of it: its parameters are no constants

    def forward(self, view: View, number: int, later: bool = False) -> Encoded:
        with _evaluating(self.tower):
            return _with_constants(self.tower, set(self.tower.parameters()), view, number, later)

    def project(self, e: Encoded) -> Encoded:
        head = _Projection(self.tower)
        with _evaluating(self.tower):
            return _with_constants(head, set(head.parameters()), e)


class _Projection(nn.Module):
    def __init__(self, tower: Tower):
        super().__init__()
        self.tower = tower

    def forward(self, e: Encoded) -> Encoded:
        return self.tower.project(e)


def _with_constants(module: nn.Module, constants: set[nn.Parameter], *arguments):
    """What `module` makes of the arguments when no gradient reaches these of its parameters."""
    values = {name: p.detach() for name, p in module.named_parameters() if p in constants}
    return functional_call(module, values, arguments)


@contextmanager
def _evaluating(tower: Tower):
    modes = {module: module.training for module in tower.modules()}
    tower.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
