"""Objectives. Dimensions: N aligned rows of two views, D width of `z`."""

import torch
from torch import Tensor

from counterpoint.batch import Outputs
from counterpoint.markers import Size
from counterpoint.objectives.objective import Momentum, Needs, Objective, mean


class Pull(Objective):
    """Views of a sample are pulled together, and those of other samples apart by up to `margin`.

    L = mean_i |q_i - k_i|^2 + mean_ij max(0, margin - |q_i - k_j|^2), i and j of other sources. A running mean of each
    sample's distance is kept in a buffer and logged.
    """

    def __init__(self, *, size: Size, margin: float = 1.0):
        super().__init__()
        self.margin = margin
        self.register_buffer("seen", torch.zeros(size))

    def needs(self) -> Needs:
        return Needs(pairs="all", batch=2, groups=frozenset({"source"}))

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        terms = []
        for pair in outputs.pairs():
            near = (pair.q - pair.k).square().sum(-1)  # (N,)
            source = outputs.batch.groups["source"][pair.row]
            far = torch.cdist(pair.q, pair.k).square()  # (N, N)
            other = source[:, None] != source
            push = (self.margin - far).clamp(min=0)[other].mean() if other.any() else near.sum() * 0
            terms.append(near.mean() + push)
            if self.training:
                self.seen[outputs.batch.index[pair.row]] = near.detach().to(self.seen)
        return mean(terms, outputs), {"seen": self.seen.mean()}


class Follow(Objective):
    """Each view is pulled to what the momentum encoders make of the others, which learn nothing by it."""

    def needs(self) -> Needs:
        return Needs(pairs="all", momentum=Momentum(0.9))

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        pairs = outputs.pairs(keys="momentum")
        return mean([(pair.q - pair.k.detach()).square().sum(-1).mean() for pair in pairs], outputs), {}
