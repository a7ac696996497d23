"""Running batch statistics, alike on every process."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn


def counting(module: nn.Module) -> list[nn.Module]:
    """The layers whose running statistics each process counts by itself: of its own rows, not of the gathered ones."""
    layers = [m for m in module.modules() if not isinstance(m, nn.SyncBatchNorm)]
    return [m for m in layers if getattr(m, "running_var", None) is not None]


@torch.no_grad()
def share(layers: list[nn.Module]) -> None:
    """Average the running statistics of layers over all processes.

    So they are those of the whole batch; and a checkpoint, which the first process writes, holds what all of them have.
    """
    _reduce([b for m in layers for b in (m.running_mean, m.running_var)], dist.ReduceOp.SUM, dist.get_world_size())
    _reduce([m.num_batches_tracked for m in layers if m.num_batches_tracked is not None], dist.ReduceOp.MAX, 1)


def _reduce(buffers: list[Tensor], how, count: int) -> None:
    if not buffers:
        return
    together = torch.cat([buffer.flatten() for buffer in buffers])
    dist.all_reduce(together, how)
    together = together / count if count > 1 else together
    for buffer, part in zip(buffers, together.split([buffer.numel() for buffer in buffers])):
        buffer.copy_(part.view_as(buffer))
