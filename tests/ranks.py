"""Run by torchrun (or alone): trains the same global batches and writes the gradients of every step.

In the second batch, the samples that the first of two ranks gets have no words; in the third, they cannot be read. Words
have a second view, of some of the samples. A view of the signals learns by a loss of its own, in every other step. The head of the signals whitens the whole batch; the teacher sees words alone.
"""

import os
import sys

import numpy as np
import torch

from building import Gradients, loop, towers, train
from counterpoint.data.plan import cut
from counterpoint.errors import DataError
from counterpoint.heads.whitening import Whitening
from counterpoint.kernels import softmax
from counterpoint.loop.optimizers import sgd
from counterpoint.objectives.info_nce import InfoNCE
from counterpoint.objectives.moco import MoCo
from counterpoint.randomness import seed_all
from counterpoint.refresh.kmeans import KMeans
from counterpoint.refresh.refreshed import Refreshed
from counterpoint.towers.teacher import Teacher
from counterpoint.towers.tower import Tower
from counterpoint.views.autotcl import AutoTCL
from counterpoint.views.generator import ViewGenerator
from counterpoint.views.pipeline import Pipeline
from counterpoint_toy.parts import Drop, Follow, Noise, Pairs, Remember

WITHOUT_WORDS, UNREADABLE = range(8, 12), range(16, 19)


class HalfOfThem(Pairs):
    def inputs(self, index):
        if index in UNREADABLE:
            raise DataError(f"sample {index}: truncated")
        found = super().inputs(index)
        if index in WITHOUT_WORDS:
            del found["words"]
        return found


class Some(ViewGenerator):
    """The view, and a second one of about half of its samples."""

    def layout(self, roles):
        return [role for role in roles for _ in range(2)]

    def forward(self, view, draw):
        return [view, view[draw.chance(0.5)]]


def main(path: str, size: str) -> None:
    size, softmax.DENSE = int(size), 100  # the larger contrasts in tiles, which the ranks divide
    plain, calls = softmax.by_parts, []
    softmax.by_parts = lambda *given: calls.append(1) or plain(*given)
    torch.set_num_threads(1)
    world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    objectives = {
        "nce": InfoNCE(temperature=0.3, learnable=True, positives="subject"),
        "moco": MoCo(temperature=0.3, queue=16, momentum=0.9, modalities=["signal", "words"]),
        "remember": Remember(size=size),
        "follow": Follow(),
    }
    teacher = Teacher({"words": towers(("words",), dim=5)["words"]})
    data, rules = HalfOfThem(size=size), {"cluster": KMeans(clusters=4, of="signal", every=None)}
    made = towers()
    made["signal"] = Tower("signal", made["signal"].encoder, Whitening(width=16, dim=8, groups=8))
    made["signal"].head.whiten.eps = 1.0  # of few rows, covariances are near singular: rounding would be all there is
    refreshed = Refreshed(rules, data, skip=1.0)
    module = loop(objectives, optimizer=sgd(lr=0.1, momentum=0.0), made=made, teacher=teacher, refreshed=refreshed)
    seen = Gradients()
    seed_all(3)
    taught = AutoTCL(channels=2, hidden=6, depth=1, every=2, sparsity=0.5)
    module.pipelines["signal"] = Pipeline("signal", [taught, Noise(sigma=0.2)])
    module.pipelines["words"] = Pipeline("words", [Drop(rate=0.2), Some()])
    module.forward_pass.layouts = {modality: pipeline.layout() for modality, pipeline in module.pipelines.items()}
    in_order = lambda order, rng: cut(np.arange(order.size), order)  # noqa: E731
    train(module, data, batch=8, callbacks=[seen], world=world, rank=rank, sampler=in_order)
    state = {name: value for name, value in module.state_dict().items() if isinstance(value, torch.Tensor)}
    torch.save({"gradients": seen.seen, "state": state, "divided": len(calls)}, f"{path}.{rank}")


if __name__ == "__main__":
    main(*sys.argv[1:])
