"""Momentum encoders: an exponential moving average of the towers that are trained."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn

from counterpoint.named import Named
from counterpoint.tower import resting


class MomentumTowers(nn.Module):
    """Copies of the towers that learn; a frozen tower is its own average and is not copied.

    Parameters follow by EMA; batch statistics are the copy's own, since it sees the same views in training mode.
    """

    def __init__(self, towers: nn.ModuleDict):
        super().__init__()
        learning = {name: tower for name, tower in towers.items() if any(p.requires_grad for p in tower.parameters())}
        self.towers = Named({name: deepcopy(tower) for name, tower in learning.items()})
        self._resting = {module for tower in self.towers.values() for module in resting(tower)}
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> MomentumTowers:
        # Not by the rule of a tower, which keeps in evaluation mode what does not learn: none of these learns.
        for module in self.modules():
            module.training = mode and module not in self._resting
        return self

    @torch.no_grad()
    def update(self, towers: nn.ModuleDict, decay: float) -> None:
        """Move every copied parameter to decay * own + (1 - decay) * student."""
        for name, tower in self.towers.items():
            pairs = [(m, s) for m, s in zip(tower.parameters(), towers[name].parameters()) if s.requires_grad]
            torch._foreach_lerp_([m for m, _ in pairs], [s for _, s in pairs], 1.0 - decay)
