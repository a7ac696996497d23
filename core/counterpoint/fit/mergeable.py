"""Whether the weights of several runs can be averaged: what of their recipes and data must be equal."""

from __future__ import annotations

from collections.abc import Sequence

from counterpoint.errors import RunError
from counterpoint.fit.assembly import build_pipeline
from counterpoint.recipe import Call, Recipe
from counterpoint.recipe import load as load_recipe
from counterpoint.runs.run import Run
from counterpoint.towers.storing import read_tensors
from counterpoint.views.generator import ViewGenerator


def fitting(runs: Sequence[Run]) -> Recipe:
    """The recipe of the first run; RunError unless all have the same encoders, heads, preparation and data."""
    if len({run.folder.resolve() for run in runs}) < len(runs) or len(runs) < 2:
        raise RunError(f"merge: two runs or more, each once; got {', '.join(str(run.folder) for run in runs)}")
    recipes = [load_recipe(run.recipe) for run in runs]
    first, *others = [_parts(recipe, run) for recipe, run in zip(recipes, runs)]
    for run, parts in zip(runs[1:], others):
        for name in {**first, **parts}:
            if first.get(name) != parts.get(name):
                mine, theirs = _shown(first.get(name)), _shown(parts.get(name))
                raise RunError(
                    f"merge: {run.folder} does not fit {runs[0].folder}: {name} is {theirs} there, {mine} here"
                )
    return recipes[0]


def _shown(value: object) -> str:
    text = f"{value.name} {value.params}" if isinstance(value, Call) else str(value)
    return text if len(text) <= 160 else f"{text[:157]}..."


def _parts(recipe: Recipe, run: Run) -> dict[str, object]:
    """What must be equal for weights to be averaged, under the names that a recipe has for it."""
    last, given = recipe.stage_recipes()[-1][1], run.facts().get("given", {})
    found: dict[str, object] = {"data": recipe.data, "what the data said": given}
    for modality in recipe.encoders:
        found |= {f"{part}.{modality}": getattr(last, part)[modality] for part in ("encoders", "heads")}
        found[f"tune.{modality}.lora"] = last.tune[modality].lora
        found[f"views.{modality}"] = _preparation(last, modality, given.get(modality, {}))
    shapes = {name: tuple(tensor.shape) for name, tensor in read_tensors(run.weights).items()}
    return {**found, "its weights": shapes, **kept_files(run)}


def _preparation(recipe: Recipe, modality: str, given) -> list:
    """The steps among the views that an evaluation runs too; augmentations may differ."""
    steps = build_pipeline(recipe, modality, given).steps
    calls = recipe.views.get(modality, [])
    return [call for call, step in zip(calls, steps) if type(step).prepare is not ViewGenerator.prepare]


def kept_files(run: Run) -> dict[str, object]:
    return {path.name: path.read_text(encoding="utf-8") for path in run.folder.glob("*.tokenizer.json")}
