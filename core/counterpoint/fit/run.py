"""From a recipe to a run: check everything, train every stage, score against baselines, keep it all in one folder."""

from __future__ import annotations

import math
import sys
from contextlib import suppress
from pathlib import Path

import torch

from counterpoint.data.loader import Loader, named_faults
from counterpoint.errors import RecipeError, RunError, Stopped, TrainingError
from counterpoint.fit.assembly import Assembly, assemble
from counterpoint.fit.dry_run import try_out
from counterpoint.fit.initial_weights import Finished, begin, check_start, fill_earlier, record_starts, side_by_side
from counterpoint.fit.length import length_of, workers_of, world_of
from counterpoint.fit.other_runs import check_unchanged, record, resolved
from counterpoint.modules import Named
from counterpoint.objectives.mechanisms.learned_similarity import save_similarity
from counterpoint.recipe import Recipe
from counterpoint.runs import atomic, processes
from counterpoint.runs.interrupts import Interrupted
from counterpoint.runs.ranks import is_first_rank
from counterpoint.runs.resuming import check_data, configuration, note_data
from counterpoint.runs.run import ROOT, Run, now, versions
from counterpoint.towers.storing import save_towers


def say(text: str) -> None:
    """A line of talk, on standard error, from the first rank alone."""
    if is_first_rank():
        print(text, file=sys.stderr, flush=True)


def fit(recipe: Recipe, *, root: Path = ROOT, run: Run | None = None, allow_changes: bool = False) -> Run:
    """Train a recipe in a new run folder, or go on in `run`; returns the run, with its encoder written.

    allow_changes  go on also when files of the data are others than when the run began

    Raises RecipeError, DataError, RunError or TrainingError for what the user can mend, and Stopped on a signal. A run
    that fails before its first checkpoint leaves no folder behind.
    """
    recipe = resolved(recipe, root, begun=run is not None)
    stages = recipe.stage_recipes()
    if len(worlds := {world_of(stage) for _, stage in stages}) > 1:
        counts = ", ".join(map(str, sorted(worlds)))
        raise RecipeError(
            [f"{recipe.where('stages')}: stages of {counts} processes; give all the same trainer.devices"]
        )
    for _, later in stages[1:]:  # a mistake in a later stage is not found after hours of the first
        _try(assemble(later), begun=run is not None)
    first = assemble(stages[0][1])
    if recipe.loader.batch > len(first.dataset):
        say(
            f"note: loader.batch is {recipe.loader.batch}, and there are {len(first.dataset)} samples: that is the batch"
        )
    if run is not None:
        check_data(run, first.dataset, first.given, allow_changes)
    shapes = _try(first, begun=run is not None)
    resumed = run is not None
    run = (run or _create(recipe, root)).lock() if is_first_rank() else run or Run(root / "other-rank")
    if resumed:
        check_unchanged(run, recipe)
        if is_first_rank():
            for place in (run.folder, run.folder / "stages"):
                atomic.sweep(place)
            run.note(state="training", error=None)
    elif is_first_rank():
        _describe(run, recipe, first, shapes)
    try:
        with named_faults():
            _train_stages(recipe, run, first, resumed)
    except BaseException as error:
        if is_first_rank():
            _note_failure(run, error, fresh=not resumed)
        raise
    finally:
        processes.forget()
    return run


def _try(assembly: Assembly, begun: bool) -> dict[str, list[int]]:
    if not begun:
        check_start(assembly)
    return try_out(assembly)


def _train_stages(recipe: Recipe, run: Run, first: Assembly, resumed: bool) -> None:
    stages = recipe.stage_recipes()
    facts = run.facts() if resumed else {}
    done, batches, finished = facts.get("stages_done", []), facts.get("batches", 0), Finished(run)
    if len(done) == len(stages) and not run.weights.is_file():  # they are in the last checkpoint still
        done = done[:-1]
    for number, (stage, stage_recipe) in enumerate(stages):
        if stage in done:
            continue
        assembly = first if number == 0 else assemble(stage_recipe)
        fill_earlier(assembly, finished)
        batches += _train(assembly, finished, stage if len(stages) > 1 else None, batches)
        done = [*done, stage]
        finished.keep(stage, assembly.towers)
        if is_first_rank():
            _finish_stage(recipe, finished, assembly, done, batches)


def _note_failure(run: Run, error: BaseException, fresh: bool) -> None:
    """What became of the run; a folder in which nothing was kept is taken away."""
    if fresh and not any(run.folder.glob("checkpoints/**/*.ckpt")):
        run.discard()
        return
    stopped = isinstance(error, Stopped | Interrupted)
    if stopped:
        error.run = run.folder
    with suppress(RunError):  # a full disk, which is what ended it
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        run.note(**{"state": "stopped"} if stopped else {"state": "failed", "error": reason})


def _create(recipe: Recipe, root: Path) -> Run:
    return Run.create(recipe.name or Path(recipe.source).stem, root)


def _describe(run: Run, recipe: Recipe, assembly: Assembly, shapes: dict) -> None:
    run.write("recipe.yaml", recipe.as_yaml())
    note_data(run, assembly.dataset)
    assets = getattr(assembly.dataset, "assets", dict)()
    for name, text in assets.items():
        run.write(name, text)
    providers = {call.component.provider.distribution for call in recipe.calls()}
    run.note(
        name=run.name, created=now(), state="training", seed=recipe.seed, recipe=str(recipe.source),
        versions=versions(providers), given=assembly.given, shapes=shapes, torch_threads=torch.get_num_threads(),
        teacher=record(recipe), start=record_starts(recipe),
        features=[m for m, tower in assembly.towers.items() if getattr(tower.encoder, "gives", ())],
        configuration=configuration(recipe),
    )  # fmt: skip


def _finish_stage(recipe: Recipe, finished: Finished, assembly: Assembly, done: list[str], batches: int) -> None:
    run, last = finished.run, len(done) == len(recipe.stage_recipes())
    if last:
        save_similarity(assembly.objectives, run)
        save_towers(side_by_side(recipe, assembly, finished) if recipe.concatenate else assembly.towers, run.weights)
    else:
        run.stage(done[-1]).parent.mkdir(exist_ok=True)
        save_towers(assembly.towers, run.stage(done[-1]))
    run.note(stages_done=done, batches=batches, **({"state": "trained"} if last else {}))


# One stage


def _train(assembly: Assembly, finished: Finished, stage: str | None, before: int) -> int:
    """Train one stage, `before` batches into the run; returns the number of batches in it."""
    run = finished.run
    from counterpoint.fit.trainer import belonging, build_trainer
    from counterpoint.runs.checkpoints import drop_old, newest, step_of

    folder = run.checkpoints(stage or "train")
    resume = newest(folder, say, belonging(run, stage)) if folder.is_dir() else None
    if resume is not None and is_first_rank():
        drop_old(folder, step_of(resume))  # what was ended may have had no time for it
    if resume is None and any(folder.glob("*.ckpt")):
        say("no good checkpoint is left: starting again from the first step")
    if resume is None:
        begin(assembly, finished, say)
    recipe, plan, loop = _loop(assembly)  # after it began: momentum encoders are copies of what is there now
    trainer = build_trainer(assembly, run, stage, loop, len(plan), before, say)
    progress = trainer.fit_loop.epoch_loop.batch_progress
    plan.position, plan.world, plan.rank = lambda: progress.total.ready, trainer.world_size, trainer.global_rank
    step = step_of(resume) if resume is not None else None
    say(_start_line(assembly, run, stage, plan, step, trainer))
    if is_first_rank():
        for log in run.logs():
            log.cut(before + (step or 0))
    try:
        trainer.fit(loop, _loader(recipe, assembly, plan), ckpt_path=resume)
    except (RuntimeError, MemoryError, ValueError) as error:
        if reason := _reason(error, recipe, loop, run):
            raise TrainingError(reason) from None
        raise
    loop.check_finite()
    return progress.total.ready


def _reason(error: Exception, recipe: Recipe, loop, run: Run) -> str | None:
    """What the user can do about an error of torch's, when that is known."""
    text = str(error)
    again = f"counterpoint fit --resume {run.folder if is_first_rank() else 'latest'}"
    if (
        isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in text
    ):  # of a GPU, of the host
        kept = not is_first_rank() or any(run.folder.glob("checkpoints/**/*.ckpt"))
        return _out_of_memory(recipe, loop.trainer, again if kept else None, text.partition("\n")[0])
    if "not used in producing the loss" in text:
        unused = [name for name, p in loop.named_parameters() if p.requires_grad and p.grad is None]
        return (
            f"with several processes every weight that learns must take part in the loss; {', '.join(unused[:8])}: not used. "
            "Freeze them with tune, or set trainer.strategy: ddp_find_unused_parameters_true, which is slower"
        )
    if "without overflow" in text:
        return f"the optimizer has a number that the weights cannot hold: lower optimizer.lr ({text[:200]})"
    if "loading state_dict for Loop" in text or "loaded state dict" in text:
        return f"the checkpoint in {run.folder} does not fit the recipe: {' '.join(text.split())[:300]}"
    if (who := processes.dead_soon() if any(words in text for words in LOST) else processes.dead()) is not None:
        return f"{who}; go on with: {again}"
    if any(words in text for words in LOST):
        return f"another process of this run has died; go on with: {again}"
    return None


LOST = ("by peer", "Connection refused", "connect() timed out", "Socket Timeout", "Broken pipe")  # of a collective


def _out_of_memory(recipe: Recipe, trainer, again: str | None, reason: str) -> str:
    """The largest power of two below what was encoded at a time, with the command; of one sample there is no part."""
    size = recipe.loader.micro_batch or -(-recipe.loader.batch // trainer.world_size)
    if size == 1:
        remedy = "one sample at a time is too much: take a smaller encoder, shorter inputs, or fewer views"
    else:
        smaller = f"loader.micro_batch={1 << ((size - 1).bit_length() - 1)}, which leaves the gradient as it is"
        remedy = f"go on with {again} {smaller}" if again else f"nothing is lost yet: start again with {smaller}"
    return f"out of memory at {trainer.global_step} steps; {remedy} ({reason[:200]})"


def _loop(assembly: Assembly):
    from counterpoint.data.plan import Order, Plan
    from counterpoint.loop.module import Loop, Training
    from counterpoint.refresh.refreshed import Refreshed

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
    return recipe, plan, loop


def _warn(assembly: Assembly) -> None:
    if assembly.recipe.teacher is not None and assembly.teacher is None and "teacher" not in assembly.seen_by:
        say("note: no objective asks what the teacher sees; it is not used")
    micro = assembly.recipe.loader.micro_batch
    for modality, tower in assembly.towers.items():
        if micro and micro < assembly.recipe.loader.batch and tower.has_batch_statistics():
            say(
                f"note: the {modality} encoder normalises by batch statistics, which are those of each micro-batch of {micro}"
            )


def _loader(recipe: Recipe, assembly: Assembly, plan):
    workers = workers_of(recipe, assembly.dataset)
    return Loader(
        assembly.dataset, recipe.seed, batch_sampler=plan, workers=workers, keep=True, pin=torch.cuda.is_available()
    )


def _start_line(assembly: Assembly, run: Run, stage: str | None, plan, step: int | None, trainer) -> str:
    name = f"{run.folder}, stage {stage}" if stage else str(run.folder)
    if step is not None:
        epoch, batch = divmod(step, len(plan))
        return f"resuming {name} at step {step} (epoch {epoch}, batch {batch} of {len(plan)})"
    learning = sum(p.numel() for p in Named(assembly.towers).parameters() if p.requires_grad)
    device = trainer.strategy.root_device.type
    epochs = math.ceil(length_of(assembly.recipe, len(plan))[0] / len(plan))
    return (
        f"training {name}: {len(assembly.dataset)} samples of {assembly.recipe.data.name}, "
        f"{learning / 1e6:.2g} M parameters learn, {epochs} epochs of {len(plan)} batches, on {device}"
    )
