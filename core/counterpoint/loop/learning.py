"""What learns, and how fast: the parameters that an optimizer gets, in groups, and the schedule of their rates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from counterpoint.errors import TrainingError
from counterpoint.loop.training import Training
from counterpoint.objectives.objective import Objective
from counterpoint.towers.tower import Tower
from counterpoint.views.pipeline import Pipeline

Rates = list[tuple[float, float]]  # learning rate and weight decay of each group


def optimizer_of(
    training: Training,
    towers: Mapping[str, Tower],
    pipelines: Mapping[str, Pipeline],
    objectives: Mapping[str, Objective],
) -> tuple[Optimizer, LambdaLR, Rates]:
    """The optimizer of all that learns, its schedule, and the rates as the recipe has them.

    A view with a loss of its own has its groups apart, with its own learning rate. Raises TrainingError when nothing learns.
    """
    probe = training.optimizer([{"params": [nn.Parameter(torch.zeros(1))]}])
    lr, decay = probe.defaults["lr"], probe.defaults["weight_decay"]
    learners = [(tower, training.lr_factors.get(modality, 1.0)) for modality, tower in towers.items()]
    learners += [(pipelines, 1.0), (objectives, 1.0)]
    apart = [view for pipeline in pipelines.values() for view in pipeline.trainable]
    groups = parameter_groups(learners, lr, decay, without=[p for view in apart for p in view.parameters()])
    for view in apart:
        groups += parameter_groups([(view, 1.0)], lr if view.lr is None else view.lr, decay)
    if not groups:
        raise TrainingError("nothing learns: every encoder is frozen, and neither heads nor objectives have weights")
    rates = [(group["lr"], group["weight_decay"]) for group in groups]
    optimizer = training.optimizer(groups)
    return optimizer, LambdaLR(optimizer, lambda step: training.schedule(step, training.steps)), rates


def hold(rates: Rates, optimizer: Optimizer, scheduler: LambdaLR) -> None:
    """Set the rates of the recipe where those that a checkpoint brought are others."""
    for number, (group, (lr, decay)) in enumerate(zip(optimizer.param_groups, rates, strict=True)):
        if (group["initial_lr"], group["weight_decay"]) != (lr, decay):
            group["initial_lr"] = scheduler.base_lrs[number] = lr
            group["lr"] = lr * scheduler.lr_lambdas[number](scheduler.last_epoch)
            group["weight_decay"] = decay


def learned(optimizers: Iterable[Optimizer]) -> list[nn.Parameter]:
    """The weights that a step can have changed; those of all modules would take three times as long to find."""
    groups = (group["params"] for optimizer in optimizers for group in optimizer.param_groups)
    return [p for params in groups for p in params if p.requires_grad and p.numel()]


def parameter_groups(
    modules: list[tuple[nn.Module, float]], lr: float, decay: float, without: Iterable[nn.Parameter] = ()
) -> list[dict]:
    """Trainable parameters in a stable order, with each module's learning-rate factor; not those in `without`.

    Vectors and scalars (biases, norms, temperatures) are not decayed, since decay has no meaning for them.
    """
    groups: dict[tuple[float, bool], list] = {}
    seen: set[int] = {id(parameter) for parameter in without}
    for module, factor in modules:
        for parameter in module.parameters():
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                groups.setdefault((factor, parameter.ndim > 1), []).append(parameter)
    return [
        {"params": found, "lr": lr * factor, "weight_decay": decay if decays else 0.0}
        for (factor, decays), found in groups.items()
    ]
