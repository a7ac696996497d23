"""From a recipe to a run: check everything, train every stage, score against baselines, keep it all in one folder."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import warnings
from pathlib import Path

import torch

from counterpoint.assembly import Assembly, assemble
from counterpoint.data.guard import Skipped
from counterpoint.errors import RecipeError, RunError, TrainingError
from counterpoint.named import Named
from counterpoint.recipe import Recipe, load
from counterpoint.run import ROOT, MetricsFile, Run, now, versions

LOGGERS = {"tensorboard": "TensorBoardLogger", "wandb": "WandbLogger", "mlflow": "MLFlowLogger", "comet": "CometLogger",
           "neptune": "NeptuneLogger", "csv": "CSVLogger"}  # fmt: skip


def say(text: str) -> None:
    """A line of talk, on standard error, from the first rank alone."""
    if is_first_rank():
        print(text, file=sys.stderr, flush=True)


def is_first_rank() -> bool:
    """Whether this is the process that writes; known before Lightning starts the others."""
    names = ("RANK",) if "RANK" in os.environ else ("LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    return not any(int(os.environ.get(name) or 0) for name in names)


def fit(recipe: Recipe, *, root: Path = ROOT, run: Run | None = None) -> Run:
    """Train a recipe in a new run folder, or go on in `run`; returns the run, with its scores written.

    Raises RecipeError, DataError, RunError or TrainingError for what the user can mend, and Stopped on a signal.
    """
    stages = recipe.stage_recipes()
    assemblies = assemble(stages[0][1])
    resumed = run is not None
    run = (run or _create(recipe, root)).lock() if is_first_rank() else run or Run(root / "other-rank")
    if resumed:
        _check_data(run, assemblies)
    elif is_first_rank():
        _describe(run, recipe, assemblies)
    facts = run.facts() if resumed else {}
    done, batches, weights = facts.get("stages_done", []), facts.get("batches", 0), None
    for number, (stage, stage_recipe) in enumerate(stages):
        if stage in done:
            continue
        assembly = assemblies if number == 0 else assemble(stage_recipe)
        if number:
            _start_from(assembly, weights or _weights_of(run, stages[number - 1][0]))
        batches += _train(assembly, run, stage if len(stages) > 1 else None, batches)
        done, weights = [*done, stage], Named(assembly.towers).state_dict()
        if is_first_rank():
            _finish_stage(run, assembly, done, batches, last=number == len(stages) - 1)
    return run


def _create(recipe: Recipe, root: Path) -> Run:
    return Run.create(recipe.name or Path(recipe.source).stem, root)


def _describe(run: Run, recipe: Recipe, assembly: Assembly) -> None:
    run.write("recipe.yaml", recipe.as_yaml())
    providers = {call.component.provider.distribution for call in recipe.calls()}
    run.note(
        name=run.name, created=now(), state="training", seed=recipe.seed, recipe=str(recipe.source),
        versions=versions(providers), given=assembly.given, torch_threads=torch.get_num_threads(),
    )  # fmt: skip


def _check_data(run: Run, assembly: Assembly) -> None:
    """RunError when the data are others than when the run began: the order of samples would be another one."""
    then = run.facts().get("given", {})
    now = json.loads(json.dumps(assembly.given, default=str))
    changed = [
        f"{modality}.{name} {then.get(modality, {}).get(name)} -> {now.get(modality, {}).get(name)}"
        for modality in {**then, **now}
        for name in {**then.get(modality, {}), **now.get(modality, {})}
        if then.get(modality, {}).get(name) != now.get(modality, {}).get(name)
    ]
    if changed:
        raise RunError(
            f"{run.folder}: the data have changed since the run began ({', '.join(changed)}); start a new run"
        )


def _weights_of(run: Run, stage: str) -> dict:
    from safetensors.torch import load_file

    return load_file(run.folder / "stages" / f"{stage}.safetensors")


def _start_from(assembly: Assembly, before: dict) -> None:
    """The towers of the stage before, where names and shapes agree."""
    towers = Named(assembly.towers)
    own = towers.state_dict()
    towers.load_state_dict(own | {k: v for k, v in before.items() if k in own and own[k].shape == v.shape})


def _finish_stage(run: Run, assembly: Assembly, done: list[str], batches: int, last: bool) -> None:
    from counterpoint.export import save_towers

    if last:
        save_towers(assembly.towers, run.weights)
    else:
        (run.folder / "stages").mkdir(exist_ok=True)
        save_towers(assembly.towers, run.folder / "stages" / f"{done[-1]}.safetensors")
    run.note(stages_done=done, batches=batches, **({"state": "trained"} if last else {}))


# One stage


def _train(assembly: Assembly, run: Run, stage: str | None, before: int) -> int:
    """Train one stage, `before` batches into the run; returns the number of batches in it."""
    from counterpoint.checkpoints import newest

    _quiet()
    recipe, plan, loop = _loop(assembly)
    folder = run.checkpoints(stage or "train")
    resume = newest(folder, say) if folder.is_dir() else None
    trainer = _trainer(assembly, run, stage, loop, len(plan), before)
    progress = trainer.fit_loop.epoch_loop.batch_progress
    plan.position, plan.world, plan.rank = lambda: progress.total.ready, trainer.world_size, trainer.global_rank
    step = int(resume.stem.removeprefix("step-")) if resume is not None else None
    say(_start_line(assembly, run, stage, plan, step, trainer))
    if is_first_rank():
        MetricsFile(run.folder / "metrics.csv").cut(before + (step or 0))
    try:
        trainer.fit(loop, _loader(recipe, assembly, plan), ckpt_path=resume)
    except RuntimeError as error:
        if reason := _reason(error, recipe, loop, run):
            raise TrainingError(reason) from None
        raise
    loop.check_finite()
    return progress.total.ready


def _reason(error: RuntimeError, recipe: Recipe, loop, run: Run) -> str | None:
    """What the user can do about an error of torch's, when that is known."""
    text = str(error)
    again = f"counterpoint fit --resume {run.folder if is_first_rank() else 'latest'}"
    if isinstance(error, torch.OutOfMemoryError):
        size = recipe.loader.micro_batch or recipe.loader.batch
        return (
            f"out of memory at {loop.trainer.global_step} steps; the checkpoint is intact. Go on with a smaller "
            f"micro-batch: {again} loader.micro_batch={max(1, size // 2)} ({text.splitlines()[0]})"
        )
    if "not used in producing the loss" in text:
        unused = [name for name, p in loop.named_parameters() if p.requires_grad and p.grad is None]
        return (
            f"with several processes every weight that learns must take part in the loss; {', '.join(unused[:8])}: not used. "
            "Freeze them with tune, or set trainer.strategy: ddp_find_unused_parameters_true, which is slower"
        )
    if "by peer" in text:
        return f"another process of this run has died; go on with: {again}"
    return None


def _loop(assembly: Assembly):
    from counterpoint.data.plan import Order, Plan
    from counterpoint.loop import Loop, Training

    recipe = assembly.recipe
    world = _world(recipe)
    order = Order(
        len(assembly.dataset), min(recipe.loader.batch, len(assembly.dataset)), max(2, 2 * world),
        getattr(assembly.dataset, "groups", {}),
    )  # fmt: skip
    plan = Plan(recipe.loader.sampler.build(), order, recipe.seed, world)
    batches, steps = _length(recipe, len(plan))
    training = Training(
        recipe.optimizer.build(), recipe.schedule.build(), batches, steps, recipe.seed, recipe.loader.micro_batch,
        assembly.momentum, recipe.weights, {m: choice.lr for m, choice in recipe.tune.items()},
    )  # fmt: skip
    if recipe.compile:
        for tower in assembly.towers.values():
            tower.encoder.compile(dynamic=True)
    _warn(assembly)
    return recipe, plan, Loop(assembly.towers, assembly.pipelines, assembly.objectives, training)


def _warn(assembly: Assembly) -> None:
    micro = assembly.recipe.loader.micro_batch
    for modality, tower in assembly.towers.items():
        if micro and micro < assembly.recipe.loader.batch and tower.has_batch_statistics():
            say(
                f"note: the {modality} encoder normalises by batch statistics, which are those of each micro-batch of {micro}"
            )


def _world(recipe: Recipe) -> int:
    """Processes in the run, known before Lightning starts them."""
    if "WORLD_SIZE" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    devices = recipe.trainer.devices
    count = len(devices) if isinstance(devices, list) else devices
    if count in ("auto", -1):
        gpus = torch.cuda.device_count() if recipe.trainer.accelerator in ("auto", "gpu", "cuda") else 0
        count = max(1, gpus)
    return int(count) * recipe.trainer.num_nodes


def _length(recipe: Recipe, per_epoch: int) -> tuple[int, int]:
    """Batches and optimizer steps in the run; a window of accumulation starts anew each epoch."""
    options = recipe.trainer
    steps_per_epoch = math.ceil(per_epoch / options.accumulate_grad_batches)
    steps = _epochs(recipe) * steps_per_epoch if _epochs(recipe) > 0 else options.max_steps
    if options.max_steps >= 0:
        steps = min(steps, options.max_steps)
    epochs, rest = divmod(steps, steps_per_epoch)
    return epochs * per_epoch + rest * options.accumulate_grad_batches, steps


def _epochs(recipe: Recipe) -> int:
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


def _loader(recipe: Recipe, assembly: Assembly, plan):
    from torch.utils.data import DataLoader

    from counterpoint.data.collate import collate
    from counterpoint.data.plan import Seeded

    workers = workers_of(recipe, assembly.dataset)
    return DataLoader(
        Seeded(assembly.dataset, recipe.seed),
        batch_sampler=plan, collate_fn=collate, num_workers=workers, persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )  # fmt: skip


def skipped_of(recipe: Recipe, dataset) -> Skipped:
    """What counts unreadable samples: the first is raised, or up to a tenth of the data left out."""
    return Skipped(size=len(dataset), limit=0.1 if recipe.loader.on_bad == "skip" else 0.0)


def workers_of(recipe: Recipe, dataset) -> int:
    """Reading workers: none for data in memory; results do not depend on their number."""
    if recipe.loader.workers != "auto":
        return recipe.loader.workers
    return 0 if dataset.spec.in_memory else max(0, min(8, (os.cpu_count() or 1) - 1))


def _trainer(assembly: Assembly, run: Run, stage: str | None, loop, per_epoch: int, before: int):
    from dataclasses import asdict

    from lightning.pytorch import Trainer

    from counterpoint.checkpoints import AtomicCheckpointIO, Checkpoints
    from counterpoint.monitor import Geometry, SkippedSamples
    from counterpoint.progress import Progress

    recipe = assembly.recipe
    options = asdict(recipe.trainer)
    options["max_epochs"] = _epochs(recipe)
    progress = Progress(loop.training_plan.batches, options.pop("log_every_n_steps"), stage, before)
    watched = _live_knn(assembly, progress, math.ceil(loop.training_plan.batches / per_epoch))
    skipped = SkippedSamples(skipped_of(recipe, assembly.dataset), run.folder / "skipped.txt", say)
    callbacks = [progress, Geometry(progress), skipped, *watched, *(call.build() for call in recipe.callbacks)]
    return Trainer(
        **options | {"strategy": _strategy(recipe)},
        callbacks=[*callbacks, Checkpoints(run.checkpoints(stage or "train"))],
        logger=_loggers(recipe, run),
        plugins=[AtomicCheckpointIO()],
        use_distributed_sampler=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=any(_is_model_checkpoint(c) for c in callbacks),
        default_root_dir=str(run.folder), num_sanity_val_steps=0,
    )  # fmt: skip


def _is_model_checkpoint(callback) -> bool:
    from lightning.pytorch.callbacks import Checkpoint

    return isinstance(callback, Checkpoint)


def _strategy(recipe: Recipe):
    """DDP without broadcasting buffers at every step: queues and per-sample state are equal on all ranks already."""
    unused = recipe.trainer.strategy == "ddp_find_unused_parameters_true"
    if (unused or recipe.trainer.strategy in ("auto", "ddp")) and _world(recipe) > 1:
        from lightning.pytorch.strategies import DDPStrategy

        return DDPStrategy(broadcast_buffers=False, find_unused_parameters=unused)
    return recipe.trainer.strategy


def _loggers(recipe: Recipe, run: Run) -> list:
    from lightning.pytorch import loggers

    from counterpoint.progress import MetricsLogger

    found = [MetricsLogger(MetricsFile(run.folder / "metrics.csv"))]
    for name in recipe.loggers if is_first_rank() else []:
        made = getattr(loggers, LOGGERS.get(name, name))
        found.append(
            made(save_dir=str(run.folder), name="", version=name) if name in ("tensorboard", "csv") else made()
        )
    return found


def _live_knn(assembly: Assembly, progress, epochs: int) -> list:
    from counterpoint.evaluate.knn import KNN
    from counterpoint.monitor import LiveKNN

    for call in assembly.recipe.evaluate:
        evaluator = call.build()
        if isinstance(evaluator, KNN):
            return [LiveKNN(progress, evaluator, assembly.dataset, assembly.pipelines, epochs)]
    return []


def _start_line(assembly: Assembly, run: Run, stage: str | None, plan, step: int | None, trainer) -> str:
    name = f"{run.folder}, stage {stage}" if stage else str(run.folder)
    if step is not None:
        epoch, batch = divmod(step, len(plan))
        return f"resuming {name} at step {step} (epoch {epoch}, batch {batch} of {len(plan)})"
    learning = sum(p.numel() for tower in assembly.towers.values() for p in tower.parameters() if p.requires_grad)
    device = trainer.strategy.root_device.type
    epochs = math.ceil(_length(assembly.recipe, len(plan))[0] / len(plan))
    return (
        f"training {name}: {len(assembly.dataset)} samples of {assembly.recipe.data.name}, "
        f"{learning / 1e6:.2g} M parameters learn, {epochs} epochs of {len(plan)} batches, on {device}"
    )


def _quiet() -> None:
    """Lightning's advice is for its own users; what matters here is said by this project."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning.*")
    warnings.filterwarnings("ignore", module="torch.utils.data.*")


def resume(run: Run, overrides: list[str], allow_changes: bool) -> Recipe:
    """The recipe of a run to go on with; overrides other than of speed are refused unless allowed."""
    free = ("loader.workers=", "loader.micro_batch=")
    changed = [text for text in overrides if not text.startswith(free)]
    if changed and not allow_changes:
        raise RunError(f"{run.folder}: {', '.join(changed)} would change the run; pass --allow-changes to do it anyway")
    if not run.recipe.is_file():
        raise RunError(f"{run.folder}: there is no recipe.yaml to go on with")
    recipe = load(run.recipe, overrides)
    if changed and is_first_rank():  # so that the next resume and the encoder's loading know of it
        run.write("recipe.yaml", recipe.as_yaml())
    return recipe
