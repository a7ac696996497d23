"""How long a run is: its processes, its epochs, batches and steps, and the workers that read for it."""

from __future__ import annotations

import math
import os

import torch

from counterpoint.data.guard import Skipped
from counterpoint.errors import RecipeError
from counterpoint.recipe import Recipe


def world_of(recipe: Recipe) -> int:
    """Processes in the run, known before Lightning starts them."""
    if "WORLD_SIZE" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    devices = recipe.trainer.devices
    count = len(devices) if isinstance(devices, list) else devices
    if count in ("auto", -1):
        gpus = torch.cuda.device_count() if recipe.trainer.accelerator in ("auto", "gpu", "cuda") else 0
        count = max(1, gpus)
    return int(count) * recipe.trainer.num_nodes


def length_of(recipe: Recipe, per_epoch: int) -> tuple[int, int]:
    """Batches and optimizer steps in the run; a window of accumulation starts anew each epoch."""
    options = recipe.trainer
    steps_per_epoch = math.ceil(per_epoch / options.accumulate_grad_batches)
    steps = epochs_of(recipe) * steps_per_epoch if epochs_of(recipe) > 0 else options.max_steps
    if options.max_steps >= 0:
        steps = min(steps, options.max_steps)
    epochs, rest = divmod(steps, steps_per_epoch)
    return epochs * per_epoch + rest * options.accumulate_grad_batches, steps


def epochs_of(recipe: Recipe) -> int:
    """Lightning's max_epochs: -1 when max_steps ends the run. RecipeError when nothing does."""
    options = recipe.trainer
    if options.max_epochs == -1 and options.max_steps < 0:
        raise RecipeError(
            [
                f"{recipe.where('trainer.max_epochs')}: -1 is a run without end, and the schedule has to know its length; "
                "set trainer.max_steps, or max_epochs with max_time"
            ]
        )
    return options.max_epochs or (100 if options.max_steps < 0 else -1)


def skipped_of(recipe: Recipe, dataset) -> Skipped:
    """What counts unreadable samples: the first is raised, or up to a tenth of the data left out."""
    return Skipped(size=len(dataset), limit=0.1 if recipe.loader.on_bad == "skip" else 0.0)


def workers_of(recipe: Recipe, dataset) -> int:
    """Reading workers: none for data in memory; results do not depend on their number."""
    if recipe.loader.workers != "auto":
        return recipe.loader.workers
    return 0 if dataset.spec.in_memory else max(0, min(8, (os.cpu_count() or 1) - 1))
