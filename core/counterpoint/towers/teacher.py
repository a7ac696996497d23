"""The teacher: the towers of a trained run or of an earlier stage, frozen, which see the views that the students see."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from counterpoint.errors import ComponentError, CounterpointError, RecipeError, RunError
from counterpoint.recipe import Recipe, Trained
from counterpoint.runs.run import ROOT, Run, all_runs
from counterpoint.towers.storing import load_towers, stored_checksum
from counterpoint.towers.tower import Tower

MUST_AGREE = ("channels", "rate", "vocabulary", "tokenizer")  # of what the data say, for one view to suit both encoders


class Teacher(nn.Module):
    """Frozen towers by modality, in evaluation mode whatever mode the loop is in.

    They follow the loop to its device and precision, and are no part of it otherwise: not trained, not in its
    checkpoints. Their heads may be of another width than the students'.
    """

    def __init__(self, towers: Mapping[str, Tower]):
        super().__init__()
        self.towers = {name: tower.eval().requires_grad_(False) for name, tower in towers.items()}  # a plain dict

    def __contains__(self, modality: str) -> bool:
        return modality in self.towers

    def __getitem__(self, modality: str) -> Tower:
        return self.towers[modality]

    def _apply(self, fn, recurse: bool = True) -> Teacher:
        """What `.to()`, `.double()` and their like call on every part of a module."""
        for tower in self.towers.values():
            tower._apply(fn)
        return super()._apply(fn, recurse)


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


def open_trained(name: str, root: Path = ROOT) -> Run:
    """`latest` is the last run that has an encoder: of the run that asks, other ranks may see the folder already."""
    trained = [run for run in all_runs(root) if run.weights.is_file()]
    return trained[-1] if name == "latest" and trained else Run.open(name, root)


def build_teacher(recipe: Recipe, given: Mapping[str, Mapping[str, Any]], assets: Mapping[str, str]) -> Teacher:
    """The run that a recipe names as teacher, for the modalities that both have.

    given, assets: what the data of the students say, and the files their encoders need beside the weights. RecipeError
    when the run cannot be had, has none of the modalities, or was trained on data that its encoders would take for others.
    """
    try:
        run = open_trained(recipe.teacher.run)
        towers = {name: tower for name, tower in load_towers(run).items() if name in given}
        if not towers:
            raise ComponentError(f"{run.folder}: it has no encoder for any of {', '.join(given)}")
        if problems := [text for name in towers for text in _differences(run, name, given[name], assets)]:
            raise ComponentError(f"{run.folder}: its data are not the students': {'; '.join(problems)}")
    except CounterpointError as error:
        raise RecipeError([f"{recipe.where('teacher.run')}: {line}" for line in str(error).splitlines()]) from None
    return Teacher(towers)


def _differences(run: Run, modality: str, given: Mapping[str, Any], assets: Mapping[str, str]) -> Iterator[str]:
    then = run.facts().get("given", {}).get(modality, {})
    for fact in MUST_AGREE:
        if then.get(fact) != _as_kept(given.get(fact)):
            yield f"{modality}.{fact} is {then.get(fact)} there and {given.get(fact)} here"
    for name, text in assets.items():
        kept = run.folder / name
        if name.startswith(f"{modality}.") and kept.is_file() and kept.read_text(encoding="utf-8") != text:
            yield f"{name} is another one there, so that its token ids mean other things"


def _as_kept(fact: Any) -> Any:
    """A fact as run.json gives it back."""
    return json.loads(json.dumps(fact, default=str))


def record(recipe: Recipe) -> dict[str, dict[str, str]]:
    """stage -> folder and checksum of its teacher's weights, for run.json."""
    stages = recipe.stage_recipes()
    found = {name: part.teacher.run for name, part in stages if part.teacher and part.teacher.run}
    return {name: {"run": run, "sha256": stored_checksum(open_trained(run).weights)} for name, run in found.items()}


def check_unchanged(run: Run, recipe: Recipe) -> None:
    """RunError when a teacher has other weights than when the run began; where its folder is does not matter."""
    then, now = run.facts().get("teacher", {}), record(recipe)
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
