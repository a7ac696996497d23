"""What an objective is: a module called with Outputs that returns the loss and named parts to log."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from counterpoint.batch import Encoded, Outputs, Queued, replace
from counterpoint.by_hand.outputs import ByHand
from counterpoint.errors import ComponentError
from counterpoint.kernels.autocast import no_autocast
from counterpoint.kernels.unit_rows import unit
from counterpoint.objectives.called import called, name_of, refused
from counterpoint.objectives.needs import Momentum, Needs

__all__ = ["Momentum", "Needs", "Objective", "mean"]


class Objective(nn.Module):
    """Base of every objective.

    A subclass defines `loss(outputs)` and returns `(loss, parts)`. Before that, once for all: `z` of every Encoded is
    L2-normalised when `unit` is true, and momentum, teacher and queues are detached. After it, a zero connected to
    every embedding and to every parameter of the objective is added, so that a batch without any pair gives a zero loss
    with zero gradients: distributed training waits for a gradient of every parameter.

    draws  names of the random numbers that `counterpoint.outputs(draws=...)` may give in the place of its own; the
           docstring says what they are
    """

    unit = True
    draws: tuple[str, ...] = ()

    @property
    def unit_queues(self) -> bool:
        """Whether what stands in its queues has length one."""
        return self.unit

    def needs(self) -> Needs:
        return Needs()

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        raise TypeError(f"{type(self).__name__} must define loss(outputs)")

    def enqueue(self, outputs: Outputs) -> dict[str, Encoded]:
        """What enters each queue after the loss: rows as prepared (normalised, detached)."""
        return {}

    @torch.no_grad()
    def entering(self, outputs: Outputs) -> dict[str, Queued]:
        """The rows that enter each queue after the step, with their index and the groups it needs, by queue.

        `needs().queues` says which queues there are and how many rows each holds at most.
        """
        groups = {name: outputs.batch.groups[name] for name in sorted(self.needs().groups)}
        found = self.enqueue(self.prepare(outputs)).items()
        return {
            name: Queued(e.z.detach(), outputs.ids(e), {group: ids[e.row] for group, ids in groups.items()})
            for name, e in found
        }

    def prepare(self, outputs: Outputs) -> Outputs:
        """The Outputs as `loss` and `enqueue` see them.

        In the loop the rows of a queue were normalised as they entered; of a call nobody knows, and they are here.
        """
        raw = self.unit_queues and isinstance(outputs, ByHand)
        return replace(
            outputs,
            student=[self._prepared(e) for e in outputs.student],
            momentum=[self._prepared(e, detach=True) for e in outputs.momentum],
            teacher=[self._prepared(e, detach=True) for e in outputs.teacher],
            queues={
                name: replace(queue, z=unit(queue.z.detach()) if raw else queue.z.detach())
                for name, queue in outputs.queues.items()
            },
        )

    def _prepared(self, e: Encoded, detach: bool = False) -> Encoded:
        e = e.detach() if detach else e
        return replace(e, z=unit(e.z) if self.unit else e.z)

    def forward(self, outputs: Outputs, *more, **named) -> tuple[Tensor, dict[str, Tensor]]:
        if more or named or not isinstance(outputs, Outputs):
            raise ComponentError(refused(name_of(self), (outputs, *more, *named.values())))
        with no_autocast(outputs.batch.index.device.type):
            loss, parts = called(self, outputs) if isinstance(outputs, ByHand) else self._loss(outputs)
        own = (p.sum() * 0.0 for p in self.parameters() if p.requires_grad)
        return sum(own, loss + outputs.zero()), parts

    def _loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        needs = self.needs()
        for side, wanted in (("momentum", needs.momentum), ("teacher", needs.teacher)):
            if wanted and outputs.student and not getattr(outputs, side):
                raise ComponentError(
                    f"{name_of(self)}: expected `{side}` in the outputs; got none. Outside a run: "
                    f"counterpoint.outputs(za, zb, {side}=[ka, kb])"
                )
        return self.loss(self.prepare(outputs))


def mean(terms: list[Tensor], outputs: Outputs) -> Tensor:
    """The mean of `terms`, or a connected zero when there are none."""
    return sum(terms) / len(terms) if terms else outputs.zero()
