"""From a recipe to a run: check everything, train every stage, score against baselines, keep it all in one folder."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import torch

from counterpoint.data.loader import named_faults
from counterpoint.errors import RecipeError, RunError, Stopped
from counterpoint.fit.assembly import Assembly, assemble
from counterpoint.fit.dry_run import try_out
from counterpoint.fit.initial_weights import Finished, check_start, fill_earlier, side_by_side
from counterpoint.fit.length import world_of
from counterpoint.fit.other_runs import check_unchanged, record_starts, record_teachers, resolved
from counterpoint.objectives.mechanisms.learned_similarity import save_similarity
from counterpoint.recipe import Recipe
from counterpoint.runs import atomic, processes
from counterpoint.runs.interrupts import Interrupted
from counterpoint.runs.ranks import is_first_rank, say
from counterpoint.runs.resuming import check_data, configuration, note_data
from counterpoint.runs.run import ROOT, Run, now, versions
from counterpoint.towers.storing import save_towers


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
    from counterpoint.fit.stage import train_stage  # which imports Lightning

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
        batches += train_stage(assembly, finished, stage if len(stages) > 1 else None, batches)
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
        teacher=record_teachers(recipe), start=record_starts(recipe),
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
