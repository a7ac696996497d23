"""The frozen towers that a stage looks at beside its own: the teacher, and those whose embeddings a refresh takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from counterpoint.errors import RecipeError, suggest
from counterpoint.recipe import Recipe
from counterpoint.refresh.refresh import Refresh
from counterpoint.towers.building import build_tower
from counterpoint.towers.sharing import share
from counterpoint.towers.teacher import Teacher, build_teacher

TEACHER = "teacher"
Given = Mapping[str, Mapping[str, Any]]


class Frozen(NamedTuple):
    """earlier: stage -> its towers, with initial weights that the run fills in; seen: those and the teacher, by name."""

    earlier: dict[str, Teacher]
    seen: dict[str, Teacher]


def frozen(recipe: Recipe, taught: bool, refresh: Mapping[str, Refresh], given: Given, assets: Mapping) -> Frozen:
    """The frozen towers that are asked for: the teacher by objectives when `taught`, any by a refresh.

    Raises RecipeError for a name that is none, a run that cannot be had, and towers without the modality to be seen.
    """
    named = {who for rule in refresh.values() for who in rule.by} | ({TEACHER} if taught else set())
    source = recipe.teacher if TEACHER in named else None
    stages = named | ({source.stage} if source is not None else set())
    earlier = {stage: _untrained(recipe.before[stage], given) for stage in recipe.before if stage in stages}
    seen = dict(earlier)
    if source is not None:
        seen[TEACHER] = earlier[source.stage] if source.stage else build_teacher(recipe, given, assets)
    if problems := list(_lacking(recipe, refresh, seen)):
        raise RecipeError(problems)
    return Frozen(earlier, seen)


def _untrained(stage: Recipe, given: Given) -> Teacher:
    return Teacher(share({modality: build_tower(stage, modality, given[modality]) for modality in stage.encoders}))


def _lacking(recipe: Recipe, refresh: Mapping[str, Refresh], seen: Mapping[str, Teacher]) -> Iterator[str]:
    choices, first = [*recipe.before, *([TEACHER] if recipe.teacher is not None else [])], next(iter(recipe.encoders))
    for name, rule in refresh.items():
        where = recipe.where(recipe.refresh[name].path)
        for who in rule.by:
            if who not in seen:
                hint = suggest(who, choices) if choices else "; there is none before this one"
                yield f"{where}: by: {who!r} is not an earlier stage{hint}"
            elif gone := [m or first for m in rule.modalities if (m or first) not in seen[who]]:
                yield f"{where}: by: {who!r} has no encoder for {gone[0]!r}"
