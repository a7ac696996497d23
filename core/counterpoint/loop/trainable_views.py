"""Views with parameters, where some of them are to be constants.

Whether a view learns in a step is a function of the number of optimizer steps done, so that a resumed run goes on as it
would have; where it rests its gradient is zero for other processes, which wait for it, and none for the optimizer.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.func import functional_call

from counterpoint.batch import View
from counterpoint.views.generator import TrainableView
from counterpoint.views.pipeline import Pipeline


def made(pipeline: Pipeline, learner: TrainableView | None, *arguments) -> list[View]:
    """The views of a pipeline: for the objective, with trainable views as constants; for `learner`, with all others so."""
    views = pipeline.trainable
    if not views:
        return pipeline(*arguments)
    learning = set() if learner is None else set(learner.parameters())
    apart = {p for view in views for p in view.parameters()} if learner is None else set(pipeline.parameters())
    return with_constants(pipeline, apart - learning, *arguments)


def rest(pipelines: Iterable[Pipeline], done: int) -> None:
    """No gradient for the views that do not learn in the optimizer step number `done`: momentum would move them."""
    for pipeline in pipelines:
        for view in pipeline.trainable:
            if done % view.every:
                for parameter in view.parameters():
                    parameter.grad = None


def with_constants(module: nn.Module, constants: set[nn.Parameter], *arguments):
    """What `module` makes of the arguments when no gradient reaches these of its parameters."""
    values = {name: p.detach() for name, p in module.named_parameters() if p in constants}
    return functional_call(module, values, arguments)
