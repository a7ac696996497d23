"""How a loop trains, beside the modules that it trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from counterpoint.loop.optimizers import Factor, MakeOptimizer
from counterpoint.objectives.objective import Momentum


@dataclass
class Training:
    """How the loop trains: what the recipe says beside the modules."""

    optimizer: MakeOptimizer
    schedule: Factor
    batches: int  # in the whole run
    steps: int  # of the optimizer, in the whole run
    seed: int = 0
    micro_batch: int | None = None
    momentum: Momentum | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    lr_factors: Mapping[str, float] = field(default_factory=dict)
