"""Run alone: the loop's contrast of N pairs, forward and backward; prints the memory it took beyond its inputs."""

import sys

import torch
from torch.nn.functional import normalize

from building import loop
from counterpoint.by_hand.outputs import outputs
from counterpoint.objectives.clip import CLIP
from counterpoint.objectives.info_nce import InfoNCE
from memory import resident

WIDTH = 256


def main(name: str, pairs: str) -> None:
    torch.set_num_threads(1)
    module = loop({"nce": {"clip": CLIP, "info_nce": InfoNCE}[name]()})
    random = torch.Generator().manual_seed(0)
    signal, words = (normalize(torch.randn(int(pairs), WIDTH, generator=random), dim=1) for _ in range(2))
    seen = outputs({"signal": signal.requires_grad_(), "words": words.requires_grad_()})
    before = resident("VmRSS")
    loss, _ = module.contrast(seen)
    loss.backward()
    assert loss.isfinite() and signal.grad.isfinite().all() and words.grad.isfinite().all()
    print(resident("VmHWM") - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
