"""The Lightning Trainer of a run: its callbacks, loggers and strategy."""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict

import torch
from lightning.pytorch import Trainer, loggers
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from counterpoint.errors import RecipeError, suggest
from counterpoint.evaluate.knn import KNN
from counterpoint.fit.assembly import Assembly
from counterpoint.fit.launcher import DDP
from counterpoint.fit.length import epochs_of, skipped_of, world_of
from counterpoint.loop.module import Loop
from counterpoint.loop.monitor import Geometry, LiveKNN, SkippedSamples
from counterpoint.loop.progress import MetricsLogger, Progress
from counterpoint.loop.steps import shorten
from counterpoint.recipe import Recipe
from counterpoint.runs.checkpoints import AtomicCheckpointIO, Checkpoints
from counterpoint.runs.ranks import is_first_rank
from counterpoint.runs.run import Run

LOGGERS = {"tensorboard": "TensorBoardLogger", "wandb": "WandbLogger", "mlflow": "MLFlowLogger", "comet": "CometLogger",
           "neptune": "NeptuneLogger", "csv": "CSVLogger"}  # fmt: skip


def build_trainer(
    assembly: Assembly, run: Run, stage: str | None, loop: Loop, per_epoch: int, before: int, say: Callable[[str], None]
) -> Trainer:
    """The trainer of one stage, `before` batches into the run; RecipeError for options that Lightning refuses."""
    recipe = assembly.recipe
    _quiet()
    _forget_absent_gpus()
    options = asdict(recipe.trainer) | {"max_epochs": epochs_of(recipe)}
    options["profiler"] = options["profiler"] or Unprofiled()
    progress = Progress(loop.training_plan.batches, options.pop("log_every_n_steps"), stage, before)
    skipped = SkippedSamples(skipped_of(recipe, assembly.dataset), run.folder / "skipped.txt", say)
    epochs = math.ceil(loop.training_plan.batches / per_epoch)
    own = [progress, Geometry(progress), skipped, *_live_knn(assembly, progress, epochs, say)]
    callbacks = [*own, *(call.build() for call in recipe.callbacks)]
    try:
        trainer = Trainer(
            **options | {"strategy": _strategy(recipe)},
            callbacks=[*callbacks, Checkpoints(run.checkpoints(stage or "train"))],
            logger=_loggers(recipe, run),
            plugins=[AtomicCheckpointIO(belonging(run, stage))],
            use_distributed_sampler=False, enable_progress_bar=False, enable_model_summary=False,
            enable_checkpointing=True,  # Checkpoints is one of Lightning's kind
            default_root_dir=str(run.folder), num_sanity_val_steps=0,
        )  # fmt: skip
    except (MisconfigurationException, ImportError, ValueError, TypeError) as error:
        raise RecipeError([f"{recipe.where('trainer')}: {' '.join(str(error).split())}"]) from error
    return shorten(trainer)


def belonging(run: Run, stage: str | None) -> dict[str, str]:
    """What a checkpoint says of whose it is. The run's, whatever its folder is called by now."""
    facts = run.facts()
    return {name: str(facts.get(name)) for name in ("name", "created")} | {"stage": stage or "train"}


def _strategy(recipe: Recipe) -> str | DDP:
    """DDP without broadcasting buffers at every step: queues and per-sample state are equal on all ranks already."""
    unused = recipe.trainer.strategy == "ddp_find_unused_parameters_true"
    if (unused or recipe.trainer.strategy in ("auto", "ddp")) and world_of(recipe) > 1:
        return DDP(broadcast_buffers=False, find_unused_parameters=unused)
    return recipe.trainer.strategy


def _loggers(recipe: Recipe, run: Run) -> list:
    found = [MetricsLogger(*run.logs())]
    for name in recipe.loggers if is_first_rank() else []:
        made = getattr(loggers, LOGGERS.get(name, name), None)
        if made is None:
            raise RecipeError([f"{recipe.where('loggers')}: unknown logger {name!r}{suggest(name, LOGGERS)}"])
        here = {"save_dir": str(run.folder), "name": "", "version": name} if name in ("tensorboard", "csv") else {}
        try:
            found.append(made(**here))
        except ImportError as error:
            raise RecipeError([f"{recipe.where('loggers')}: {name}: {error}"]) from error
    return found


def _live_knn(assembly: Assembly, progress: Progress, epochs: int, say: Callable[[str], None]) -> list[LiveKNN]:
    """A live score when the recipe asks for kNN at the end."""
    found = [knn for call in assembly.recipe.evaluate if isinstance(knn := call.build(), KNN)]
    return [LiveKNN(progress, knn, assembly.dataset, assembly.pipelines, epochs, say) for knn in found[:1]]


class Unprofiled(PassThroughProfiler):
    """Lightning's default, without the generator that it enters at every hook."""

    _nothing = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager:
        return self._nothing


def _forget_absent_gpus() -> None:
    """Lightning has torch ask NVML whether there is a GPU, which every step of an optimizer does: 0.1 ms without a driver.

    It does so lest asking CUDA itself spoils a later fork; without a GPU there is nothing to spoil.
    """
    if not torch.cuda.is_available():
        os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)


def _quiet() -> None:
    """Lightning's advice is for its own users; what matters here is said by this project."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning.*")
    warnings.filterwarnings("ignore", module="torch.utils.data.*")
