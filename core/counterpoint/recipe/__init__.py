"""Recipes: YAML and overrides to a checked Recipe, with every mistake in one report.

    recipe = load("recipe.yaml", ["objective.temperature=0.2"])
    encoder = recipe.encoders["ecg"].build({"channels": 2, "rate": 100.0})

The way of a recipe: file -> nodes that know their line (yaml) -> overrides -> defaults (rules) -> each value against
its annotation (walk, values) -> sections with Calls (sections, call).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from counterpoint.errors import CounterpointError, suggest
from counterpoint.recipe import overrides as overriding
from counterpoint.recipe import rules, yaml
from counterpoint.recipe.call import Call
from counterpoint.recipe.mistakes import one_line
from counterpoint.recipe.origin import Origin, places
from counterpoint.recipe.recipe import Recipe, Stage
from counterpoint.recipe.sections import Loader, LoRA, MomentumOptions, Trained, Tune
from counterpoint.recipe.trainer import TrainerOptions
from counterpoint.recipe.walk import Walk

__all__ = [
    "Call",
    "LoRA",
    "Loader",
    "MomentumOptions",
    "Recipe",
    "Stage",
    "Trained",
    "TrainerOptions",
    "Tune",
    "load",
]


def load(source: str | Path, overrides: Sequence[str] = (), registry: Any = None) -> Recipe:
    """The checked recipe of a file, or of an installed recipe by name (`ecg/quickstart`), with overrides applied.

    Only the components that it names are imported, and nothing of Lightning. CounterpointError when there is no such
    recipe; RecipeError with all its mistakes, one `file:line: path: message` each.
    """
    if registry is None:
        from counterpoint.packs import registry as components

        registry = components.installed()
    path = _find(source, registry)
    shown = one_line(str(source) if path == Path(source) else str(path))
    tree = yaml.read(path, shown)
    walk = Walk(registry)
    rules.complete(tree, shown)  # first, so that `optimizer.lr=1e-3` finds the default optimizer
    for override in overrides:
        overriding.apply(tree, override, walk.mistakes)
        rules.complete(tree, shown)  # an override may add a modality
    rules.check(tree, walk.mistakes)
    recipe = walk.section(Recipe, tree, "")
    walk.mistakes.throw()
    return replace(recipe, origin=Origin(shown, dict(places(tree))))


def _find(source: str | Path, registry: Any) -> Path:
    """The file of a recipe: what looks like a file is one, anything else is looked up among the installed recipes."""
    path = Path(source)
    if isinstance(source, Path) or path.suffix in (".yaml", ".yml"):
        if _is(path.exists):
            return path
        beside = (
            [str(path.with_name(p.name)) for p in path.parent.glob("*.y*ml")][:100] if _is(path.parent.is_dir) else []
        )
        raise CounterpointError(f"{one_line(str(source))}: there is no such file{suggest(str(source), beside)}")
    if _is(path.is_file) and source not in registry.recipes():
        return path
    return Path(registry.recipe(str(source)))


def _is(question: Callable[[], bool]) -> bool:
    """What the file system answers; no, where it cannot be asked: too long a name, a loop of links."""
    try:
        return question()
    except (OSError, ValueError):
        return False
