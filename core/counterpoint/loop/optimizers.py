"""Optimizers and schedules: factories whose result the loop calls with what only it knows."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

MakeOptimizer = Callable[[list[dict]], torch.optim.Optimizer]
Factor = Callable[[int, int], float]  # (optimizer steps done, steps in the run) -> factor of the learning rate


def adamw(
    *, lr: float = 1e-3, weight_decay: float = 0.01, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
) -> MakeOptimizer:
    """AdamW (Loshchilov and Hutter, 2019)."""
    _not_negative(lr=lr, weight_decay=weight_decay)
    options = {"lr": lr, "weight_decay": weight_decay, "betas": betas, "eps": eps}
    return lambda groups: _in_one_pass(torch.optim.AdamW, groups, options)


def adam(
    *, lr: float = 1e-3, weight_decay: float = 0.0, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
) -> MakeOptimizer:
    """Adam (Kingma and Ba, 2015), weight decay as an L2 term."""
    _not_negative(lr=lr, weight_decay=weight_decay)
    options = {"lr": lr, "weight_decay": weight_decay, "betas": betas, "eps": eps}
    return lambda groups: _in_one_pass(torch.optim.Adam, groups, options)


def sgd(
    *, lr: float = 0.03, momentum: float = 0.9, weight_decay: float = 1e-4, nesterov: bool = False
) -> MakeOptimizer:
    """Stochastic gradient descent with momentum."""
    _not_negative(lr=lr, momentum=momentum, weight_decay=weight_decay)
    options = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "nesterov": nesterov}
    return lambda groups: _in_one_pass(torch.optim.SGD, groups, options)


def _in_one_pass(kind: type[torch.optim.Optimizer], groups: list[dict], options: dict) -> torch.optim.Optimizer:
    """The optimizer with torch's fused kernel for weights on the CPU: one pass over memory in the place of many.

    Elsewhere torch chooses. A checkpoint says which form wrote it, and a run is gone on with in that one. The kernel reads
    weights, gradients and state as they lie in memory, and does not look whether they lie alike.
    """
    if not all(_is_dense_on_cpu(p) for group in groups for p in group["params"]):
        return kind(groups, **options)
    optimizer = kind(groups, **options, fused=True)
    optimizer._step_supports_amp_scaling = False  # else Lightning refuses to clip: on a CPU no gradient is scaled
    optimizer.register_step_pre_hook(_gradients_as_weights)
    optimizer.register_load_state_dict_post_hook(_state_as_weights)
    return optimizer


def _is_dense_on_cpu(p: torch.Tensor) -> bool:
    """Whether a weight fills a stretch of host memory: a new tensor like it then lies as it does."""
    return (
        p.device.type == "cpu" and p.is_floating_point() and torch.empty_like(p, device="meta").stride() == p.stride()
    )


def _gradients_as_weights(optimizer: torch.optim.Optimizer, *call) -> None:
    for group in optimizer.param_groups:
        for p in group["params"]:
            if p.grad is not None and p.grad.layout != torch.strided:  # of an embedding that is asked for sparse ones
                p.grad = p.grad.to_dense()
            if p.grad is not None and p.grad.stride() != p.stride():
                p.grad = torch.empty_like(p).copy_(p.grad)


def _state_as_weights(optimizer: torch.optim.Optimizer) -> None:
    """What a checkpoint brings may lie otherwise."""
    for p, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == p.shape and value.stride() != p.stride():
                state[name] = torch.empty_like(p).copy_(value)


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
