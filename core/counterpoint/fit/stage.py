"""One stage of a run: from an assembly to towers that have learnt, by Lightning's trainer."""

from __future__ import annotations

import math

import torch

from counterpoint.data.loader import Loader
from counterpoint.data.plan import Order, Plan
from counterpoint.errors import TrainingError
from counterpoint.fit.assembly import Assembly
from counterpoint.fit.initial_weights import Finished, begin
from counterpoint.fit.length import length_of, workers_of, world_of
from counterpoint.fit.remedies import remedy
from counterpoint.fit.trainer import belonging, build_trainer
from counterpoint.loop.module import Loop
from counterpoint.loop.training import Training
from counterpoint.modules import NamedModules
from counterpoint.refresh.refreshed import Refreshed
from counterpoint.runs.checkpoints import drop_old, newest, step_of
from counterpoint.runs.ranks import is_first_rank, say
from counterpoint.runs.run import Run


def train_stage(assembly: Assembly, finished: Finished, stage: str | None, before: int) -> int:
    """Train one stage, `before` batches into the run; returns the number of batches in it."""
    run = finished.run
    folder = run.checkpoints(stage or "train")
    resume = newest(folder, say, belonging(run, stage)) if folder.is_dir() else None
    if resume is not None and is_first_rank():
        drop_old(folder, step_of(resume))  # what was ended may have had no time for it
    if resume is None and any(folder.glob("*.ckpt")):
        say("no good checkpoint is left: starting again from the first step")
    if resume is None:
        begin(assembly, finished, say)
    plan, loop = loop_of(assembly)  # after it began: momentum encoders are copies of what is there now
    trainer = build_trainer(assembly, run, stage, loop, len(plan), before, say)
    progress = trainer.fit_loop.epoch_loop.batch_progress
    plan.position, plan.world, plan.rank = lambda: progress.total.ready, trainer.world_size, trainer.global_rank
    step = step_of(resume) if resume is not None else None
    say(_start_line(assembly, run, stage, plan, step, trainer))
    if is_first_rank():
        for log in run.logs():
            log.cut(before + (step or 0))
    try:
        trainer.fit(loop, loader_of(assembly, plan), ckpt_path=resume)
    except (RuntimeError, MemoryError, ValueError) as error:
        if reason := remedy(error, assembly.recipe, loop, run):
            raise TrainingError(reason) from None
        raise
    loop.check_finite()
    return progress.total.ready


def loop_of(assembly: Assembly) -> tuple[Plan, Loop]:
    """The order of samples and the loop that trains an assembly."""
    recipe = assembly.recipe
    world = world_of(recipe)
    order = Order.of(assembly.dataset, recipe.loader.batch, world)
    refreshed = Refreshed(
        assembly.refresh, assembly.dataset, seed=recipe.seed, workers=workers_of(recipe, assembly.dataset),
        skip=1.0 if recipe.loader.on_bad == "skip" else 0.0, seen_by=assembly.seen_by,
    )  # fmt: skip
    plan = Plan(recipe.loader.sampler.build(), refreshed.into(order), recipe.seed, world)
    batches, steps = length_of(recipe, len(plan))
    training = Training(
        recipe.optimizer.build(), recipe.schedule.build(), batches, steps, recipe.seed, recipe.loader.micro_batch,
        assembly.momentum, recipe.weights, {m: choice.lr for m, choice in recipe.tune.items()},
    )  # fmt: skip
    if recipe.compile:
        for tower in [*assembly.towers.values(), *(assembly.teacher.towers.values() if assembly.teacher else ())]:
            tower.encoder.compile(dynamic=True)
    _warn(assembly)
    loop = Loop(assembly.towers, assembly.pipelines, assembly.objectives, training, assembly.teacher, refreshed)
    plan.refreshed = loop.order
    return plan, loop


def _warn(assembly: Assembly) -> None:
    if assembly.recipe.teacher is not None and assembly.teacher is None and "teacher" not in assembly.seen_by:
        say("note: no objective asks what the teacher sees; it is not used")
    micro = assembly.recipe.loader.micro_batch
    for modality, tower in assembly.towers.items():
        if micro and micro < assembly.recipe.loader.batch and tower.has_batch_statistics():
            say(
                f"note: the {modality} encoder normalises by batch statistics, which are those of each micro-batch of {micro}"
            )


def loader_of(assembly: Assembly, plan: Plan) -> Loader:
    """What reads the batches of a plan."""
    recipe, dataset = assembly.recipe, assembly.dataset
    workers = workers_of(recipe, dataset)
    return Loader(dataset, recipe.seed, batch_sampler=plan, workers=workers, keep=True, pin=torch.cuda.is_available())


def _start_line(assembly: Assembly, run: Run, stage: str | None, plan, step: int | None, trainer) -> str:
    name = f"{run.folder}, stage {stage}" if stage else str(run.folder)
    if step is not None:
        epoch, batch = divmod(step, len(plan))
        return f"resuming {name} at step {step} (epoch {epoch}, batch {batch} of {len(plan)})"
    learning = sum(p.numel() for p in NamedModules(assembly.towers).parameters() if p.requires_grad)
    device = trainer.strategy.root_device.type
    epochs = math.ceil(length_of(assembly.recipe, len(plan))[0] / len(plan))
    return (
        f"training {name}: {len(assembly.dataset)} samples of {assembly.recipe.data.name}, "
        f"{learning / 1e6:.2g} M parameters learn, {epochs} epochs of {len(plan)} batches, on {device}"
    )
