"""Run alone: one step of a batch of 256 with a micro-batch or without; prints the memory it took, saves the gradients."""

import sys
from pathlib import Path

import torch

from building import loop
from counterpoint.batch import Batch, View
from counterpoint.heads.projection import MLP
from counterpoint.objectives.info_nce import InfoNCE
from counterpoint.towers.tower import Tower
from counterpoint_toy.parts import conv


def resident(field: str) -> int:
    """Bytes of memory now (VmRSS) or at most so far (VmHWM)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def main(micro: str, path: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    made = {"signal": Tower("signal", conv(channels=2, width=32), MLP(width=32, dim=16))}
    module = loop({"nce": InfoNCE()}, modalities=("signal",), micro=int(micro) or None, made=made)
    data = torch.randn(256, 2, 1024, generator=torch.Generator().manual_seed(1))
    batch = Batch({"signal": View("signal", data, torch.arange(256))}, torch.arange(256))
    before = resident("VmRSS")
    loss, _ = module.contrast(module.forward_pass.outputs(batch, 0, 0))
    loss.backward()
    print(resident("VmHWM") - before)
    torch.save({name: p.grad for name, p in module.named_parameters()}, path)


if __name__ == "__main__":
    main(*sys.argv[1:])
