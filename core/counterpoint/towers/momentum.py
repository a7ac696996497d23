"""Momentum encoders: an exponential moving average of the towers that are trained."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn

from counterpoint.modules import NamedModules
from counterpoint.towers.tower import Tower, resting

# What differs in training by batch statistics alone: a tower knows then what to do with a view of one row.
STATISTICS = (nn.modules.batchnorm._BatchNorm, Tower)


class MomentumTowers(nn.Module):
    """Copies of the towers that learn; a frozen tower is its own average and is not copied.

    Parameters follow by EMA; batch statistics are the copy's own, since it sees the same views in training mode. With
    `dropout` False all but the layers of batch statistics are in evaluation mode.
    """

    def __init__(self, towers: nn.ModuleDict, dropout: bool = True):
        super().__init__()
        self.dropout = dropout
        learning = {name: tower for name, tower in towers.items() if any(p.requires_grad for p in tower.parameters())}
        self.towers = NamedModules({name: deepcopy(tower) for name, tower in learning.items()})
        self._resting = {module for tower in self.towers.values() for module in resting(tower)}
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> MomentumTowers:
        # Not by the rule of a tower, which keeps in evaluation mode what does not learn: none of these learns.
        for module in self.modules():
            awake = module not in self._resting and (self.dropout or isinstance(module, STATISTICS))
            module.training = mode and awake
        return self

    @torch.no_grad()
    def update(self, towers: nn.ModuleDict, decay: float) -> None:
        """Move every copied parameter to decay * own + (1 - decay) * student."""
        for name, tower in self.towers.items():
            pairs = [(m, s) for m, s in zip(tower.parameters(), towers[name].parameters()) if s.requires_grad]
            torch._foreach_lerp_([m for m, _ in pairs], [s for _, s in pairs], 1.0 - decay)
