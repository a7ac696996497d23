"""Which form of the kernel a device gets, and in which precision it multiplies."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

_products: ContextVar[torch.dtype] = ContextVar("products", default=torch.float32)


@contextmanager
def products(dtype: torch.dtype) -> Iterator[None]:
    """Within it, the Triton form multiplies in `dtype` (float32, or bfloat16) and adds up in float32.

    A CPU multiplies in float32 all the same: there, torch gives the products of bfloat16 in bfloat16, and logits of 50 to
    100 (a temperature of 0.01 to 0.02) that are rounded so turn the gradient by some percent.
    """
    token = _products.set(dtype)
    try:
        yield
    finally:
        _products.reset(token)


def as_autocast(device: str) -> torch.dtype:
    """bfloat16 where autocast is on with it, else float32: what a loss may multiply in when its encoders did."""
    on = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.bfloat16
    return torch.bfloat16 if on else torch.float32


def products_dtype() -> torch.dtype:
    return _products.get()


def fused_for(z: Tensor) -> ModuleType | None:
    """The Triton form, for float32 on CUDA where Triton is there; None: the tiled form in torch."""
    return _fused(z.device.type) if z.is_cuda and z.dtype == torch.float32 else None


@cache
def _fused(device: str) -> ModuleType | None:
    """Tried once a process: a kernel that this device or this Triton cannot run costs its speed, not the training."""
    log = logging.getLogger("counterpoint.kernels")
    try:
        from counterpoint.kernels import fused

        with torch.enable_grad(), torch.autocast(device, enabled=False):
            fused.check(device)
    except Exception as error:  # a compiler may raise anything
        log.warning("contrast on %s: tiles in torch, Triton fails (%s)", device, " ".join(str(error).split())[:200])
        return None
    log.info("contrast on %s: Triton", device)
    return fused
