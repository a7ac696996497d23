"""The running batch statistics of towers whose weights no training made, such as an average."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from counterpoint.data.guard import Skipped
from counterpoint.data.loader import Loader
from counterpoint.data.plan import Order, shuffle
from counterpoint.fit.length import workers_of
from counterpoint.randomness import key
from counterpoint.recipe import Recipe
from counterpoint.towers.tower import resting
from counterpoint.views.pipeline import Pipeline


def layers_of(tower: nn.Module) -> list[nn.Module]:
    """The layers that keep running statistics of their batches and that learn; those of frozen parts rest."""
    still = resting(tower)
    has = lambda m: getattr(m, "track_running_stats", False) and hasattr(m, "reset_running_stats")  # noqa: E731
    return [module for module in tower.modules() if has(module) and module not in still]


@torch.no_grad()
def recomputed(towers: Mapping[str, nn.Module], pipelines: Mapping[str, Pipeline], dataset, recipe: Recipe) -> None:
    """Take the running statistics anew, as the mean over one epoch of training views; nothing else moves.

    Batches are of the recipe's size and in random order: of sorted samples each would know a part of the variance.
    """
    layers = {name: found for name, tower in towers.items() if (found := layers_of(tower))}
    if not layers:
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    momenta = [(layer, layer.momentum) for found in layers.values() for layer in found]
    for tower in towers.values():
        tower.eval().to(device)
    for layer, _ in momenta:
        layer.reset_running_stats()
        layer.training, layer.momentum = True, None  # None: the plain mean over batches
    for batch in _batches(dataset, recipe):
        for name in layers.keys() & batch.inputs.keys():
            raw = batch.inputs[name].to(device)
            for view in pipelines[name](raw, batch.index.to(device)[raw.row], recipe.seed, 0):
                if len(view) > 1:  # one row has no variance
                    towers[name](view, 0)
    for layer, momentum in momenta:
        layer.training, layer.momentum = False, momentum


def _batches(dataset, recipe: Recipe):
    order = Order.of(dataset, recipe.loader.batch)
    places = shuffle()(order, np.random.default_rng(key(recipe.seed, "statistics")))
    epoch = [[(0, int(i)) for i in batch] for batch in places]
    skipped = Skipped(size=len(dataset), limit=0.1 if recipe.loader.on_bad == "skip" else 0.0)
    workers = workers_of(recipe, dataset)
    for batch in Loader(dataset, 0, batch_sampler=epoch, workers=workers):
        skipped(batch)
        yield batch
