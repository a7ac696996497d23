"""The teacher: the towers of a trained run or of an earlier stage, frozen, which see the views that the students see."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from counterpoint.errors import ComponentError, CounterpointError, RecipeError
from counterpoint.recipe import Recipe
from counterpoint.runs.run import Run, open_trained
from counterpoint.towers.loading import load_towers
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
