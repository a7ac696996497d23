"""The processes of a run: which of them writes, and rows of all of them."""

from __future__ import annotations

import os
import sys

import torch
import torch.distributed as dist
from torch import Tensor


def is_first_rank() -> bool:
    """Whether this is the process that writes; known before Lightning starts the others."""
    names = ("RANK",) if "RANK" in os.environ else ("LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    return not any(int(os.environ.get(name) or 0) for name in names)


def say(text: str) -> None:
    """A line of talk, on standard error, from the first rank alone."""
    if is_first_rank():
        print(text, file=sys.stderr, flush=True)


def active() -> bool:
    """Whether several processes train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """The number of this process among those that train together."""
    return dist.get_rank() if active() else 0


def all_gather(local: Tensor, counts: list[int]) -> Tensor:
    """Rows of every rank in order of rank; counts: rows of each."""
    most = max(counts)
    padded = local.new_zeros(most, *local.shape[1:])
    padded[: len(local)] = local
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded.contiguous())
    return torch.cat([part[:count] for part, count in zip(parts, counts)])
