"""Optimizers and schedules: factories whose result the loop calls with what only it knows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch

MakeOptimizer = Callable[[list[dict]], torch.optim.Optimizer]
Factor = Callable[[int, int], float]  # (optimizer steps done, steps in the run) -> factor of the learning rate


def adamw(
    *, lr: float = 1e-3, weight_decay: float = 0.01, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
) -> MakeOptimizer:
    """AdamW (Loshchilov and Hutter, 2019)."""
    _not_negative(lr=lr, weight_decay=weight_decay)
    return lambda groups: torch.optim.AdamW(groups, lr=lr, weight_decay=weight_decay, betas=betas, eps=eps)


def adam(
    *, lr: float = 1e-3, weight_decay: float = 0.0, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
) -> MakeOptimizer:
    """Adam (Kingma and Ba, 2015), weight decay as an L2 term."""
    _not_negative(lr=lr, weight_decay=weight_decay)
    return lambda groups: torch.optim.Adam(groups, lr=lr, weight_decay=weight_decay, betas=betas, eps=eps)


def sgd(
    *, lr: float = 0.03, momentum: float = 0.9, weight_decay: float = 1e-4, nesterov: bool = False
) -> MakeOptimizer:
    """Stochastic gradient descent with momentum."""
    _not_negative(lr=lr, momentum=momentum, weight_decay=weight_decay)
    return lambda groups: torch.optim.SGD(
        groups, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov
    )


def _not_negative(**values: float) -> None:
    for name, value in values.items():
        if not value >= 0:
            raise ValueError(f"{name} is 0 or more; got {value}")


def cosine(*, warmup: float = 0.05, final: float = 0.0) -> Factor:
    """Linear warm-up over a fraction of the run, then a half cosine down to `final` (Loshchilov and Hutter, 2017)."""
    if not 0.0 <= warmup < 1.0:
        raise ValueError(f"warmup is a fraction of the run in [0, 1); got {warmup}")

    def factor(step: int, total: int) -> float:
        rise = max(1, round(warmup * total))
        if warmup and step < rise:
            return (step + 1) / rise
        progress = (step - rise) / max(1, total - rise) if warmup else step / max(1, total)
        return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))

    return factor


def constant(*, warmup: float = 0.0) -> Factor:
    """A constant learning rate after a linear warm-up over a fraction of the run."""
    if not 0.0 <= warmup < 1.0:
        raise ValueError(f"warmup is a fraction of the run in [0, 1); got {warmup}")
    return lambda step, total: min(1.0, (step + 1) / max(1, round(warmup * total)))


def parameter_groups(
    modules: list[tuple[torch.nn.Module, float]], lr: float, decay: float, without: Iterable[torch.nn.Parameter] = ()
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
