"""The runs whose weights a recipe asks for, as teacher or to start from: found by name, and known by their checksum."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from counterpoint.errors import RecipeError, RunError
from counterpoint.recipe import Recipe, Trained
from counterpoint.runs.run import ROOT, Run, open_trained
from counterpoint.towers.storing import stored_checksum


def resolved(recipe: Recipe, root: Path = ROOT, *, begun: bool = False) -> Recipe:
    """The recipe with the folder of every teacher and start in the place of its name; RecipeError when there is no such run.

    Done before the new run has a folder, so that `latest` is the run before it, and stays that on a resume. Of a run that
    has `begun`, starts stand as they are: what it started from may be gone.
    """
    kinds = ("teacher",) if begun else ("teacher", "start")
    named = lambda place, section: {k: v for kind in kinds for k, v in _named(recipe, place, section, kind, root)}  # noqa: E731
    stages = [replace(stage, **named(f"stages[{i}].", stage)) for i, stage in enumerate(recipe.stages)]
    return replace(recipe, stages=stages, **named("", recipe))


def _named(recipe: Recipe, place: str, section: Any, kind: str, root: Path) -> Iterator[tuple[str, Trained]]:
    chosen = getattr(section, kind)
    if not isinstance(chosen, Trained) or chosen.run is None:
        return
    try:
        yield kind, replace(chosen, run=str(open_trained(chosen.run, root).folder))
    except RunError as error:
        raise RecipeError([f"{recipe.where(f'{place}{kind}.run')}: {error}"]) from None


def record_teachers(recipe: Recipe) -> dict[str, dict[str, str]]:
    """stage -> folder and checksum of its teacher's weights, for run.json."""
    return _recorded({name: part.teacher for name, part in recipe.stage_recipes()})


def record_starts(recipe: Recipe) -> dict[str, dict[str, str]]:
    """stage -> folder and checksum of the run it starts from, for run.json."""
    return _recorded({name: part.begins for name, part in recipe.stage_recipes()})


def _recorded(stages: Mapping[str, Trained | None]) -> dict[str, dict[str, str]]:
    runs = {name: trained.run for name, trained in stages.items() if trained and trained.run}
    return {name: {"run": run, "sha256": stored_checksum(open_trained(run).weights)} for name, run in runs.items()}


def check_unchanged(run: Run, recipe: Recipe) -> None:
    """RunError when a teacher has other weights than when the run began; where its folder is does not matter."""
    then, now = run.facts().get("teacher", {}), record_teachers(recipe)
    for stage, teacher in now.items():
        before = then.get(stage)
        if before is None or before["sha256"] != teacher["sha256"]:
            was = f"those of {before['run']}, sha256 {before['sha256'][:12]}" if before else "none"
            raise RunError(
                f"{run.folder}: the teacher's weights in {teacher['run']} (sha256 {teacher['sha256'][:12]}) are not those "
                f"that the run began with ({was}); start a new run, or name their folder: teacher.run=..."
            )
    if gone := [stage for stage in then if stage not in now]:
        raise RunError(f"{run.folder}: it began with a teacher ({then[gone[0]]['run']}), and the recipe names none")
