"""Views that learn by a loss of their own: it reaches them through the encoder, and reaches nothing else.

The views are made a second time, with the parameters of the one that learns, and the encoder sees them with constant
parameters in evaluation mode: neither its weights nor its batch statistics move. Micro-batches are recomputed in the
backward pass as for the objective. One process holds the whole model here: parameters that are sharded cannot be constants.
"""

from __future__ import annotations

from contextlib import contextmanager

import torch
from torch import Tensor, nn

from counterpoint.batch import Batch, Encoded, Outputs, View
from counterpoint.loop.forward import ForwardPass
from counterpoint.loop.gather import gather
from counterpoint.loop.trainable_views import with_constants
from counterpoint.randomness import key, seed_all
from counterpoint.towers.tower import Tower
from counterpoint.views.generator import TrainableView


def view_losses(
    forward: ForwardPass, batch: Batch, step: int, epoch: int, done: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum of the losses of all trainable views, connected to each, and their parts to log.

    done  optimizer steps so far
    """
    total, logged = torch.zeros((), device=batch.index.device), {}
    for modality, pipeline in forward.pipelines.items():
        views = pipeline.trainable
        for number, view in enumerate(views):
            total = total + sum(p.sum() * 0.0 for p in view.parameters() if p.requires_grad)
            if done % view.every == 0:
                loss, parts = _own_loss(forward, modality, view, number, batch, step, epoch)
                name = f"view/{modality}" if len(views) == 1 else f"view/{modality}.{number}"
                total = total + loss
                logged |= {name: loss.detach(), **{f"{name}/{k}": part.detach() for k, part in parts.items()}}
    return total, logged


def _own_loss(
    forward: ForwardPass, modality: str, view: TrainableView, number: int, batch: Batch, step: int, epoch: int
):
    tower = _Through(forward.towers[modality], view)
    encoded, whole = gather(_encoded(forward, tower, batch, step), batch)
    if not any(len(e.row) for e in encoded):
        return torch.zeros((), device=batch.index.device), {}
    if tower.whole_batch:
        encoded = [tower.project(e) for e in encoded]
    seed_all(key(forward.seed, "view loss", modality, number, step))
    columns = forward.with_columns(whole)
    outputs = Outputs(encoded, columns, step=step, epoch=epoch, total_steps=forward.batches)
    with torch.autocast(batch.index.device.type, enabled=False):
        return view.own_loss(outputs)


def _encoded(forward: ForwardPass, tower: _Through, batch: Batch, step: int) -> list[Encoded]:
    """The views of this rank, as the tower sees them."""
    raw = batch.inputs.get(tower.modality)
    if raw is None or not len(raw):
        absent = tower.tower.absent(forward.layouts[tower.modality], batch.index.new_zeros(0), 0)
        return [e.detach() for e in absent]
    index = batch.index[raw.row]
    views = forward.views_together(tower.modality, raw, index, step, tower.learner)
    return forward.see(tower, raw, index, step, 0, "student", views)


class _Through(nn.Module):
    """A tower with constant parameters in evaluation mode, as the loop calls a tower, for one view to learn through."""

    def __init__(self, tower: Tower, learner: TrainableView):
        super().__init__()
        self.tower, self.modality, self.whole_batch = tower, tower.modality, tower.whole_batch
        self.__dict__["learner"] = learner  # not a part of it: its parameters are no constants

    def forward(self, view: View, number: int, later: bool = False) -> Encoded:
        with _evaluating(self.tower):
            return with_constants(self.tower, set(self.tower.parameters()), view, number, later)

    def project(self, e: Encoded) -> Encoded:
        head = _Projection(self.tower)
        with _evaluating(self.tower):
            return with_constants(head, set(head.parameters()), e)


class _Projection(nn.Module):
    def __init__(self, tower: Tower):
        super().__init__()
        self.tower = tower

    def forward(self, e: Encoded) -> Encoded:
        return self.tower.project(e)


@contextmanager
def _evaluating(tower: Tower):
    modes = {module: module.training for module in tower.modules()}
    tower.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
