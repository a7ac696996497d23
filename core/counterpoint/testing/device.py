"""Whether a module moves to another device whole."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from counterpoint.testing.finding import Broken


def check_moves(module: nn.Module) -> None:
    """Every tensor in it is a parameter or a buffer: others stay behind when it moves, and are in no checkpoint."""
    for name, part in module.named_modules():
        for attribute, value in vars(part).items():
            held = value if isinstance(value, list | tuple) else [value]
            if any(isinstance(item, Tensor) and item.numel() for item in held):
                raise Broken(
                    "a tensor in it does not move with it to another device",
                    expected="parameters and buffers",
                    got=f"the plain attribute {'.'.join(filter(None, [name, attribute]))}",
                    mend="self.register_buffer(name, tensor); persistent=False where a checkpoint can do without",
                )


def other_device() -> torch.device | None:
    """A GPU, where there is one."""
    return torch.device("cuda") if torch.cuda.is_available() else None
