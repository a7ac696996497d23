"""Going on with a run: whether its recipe and its data are still those that it was begun with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from counterpoint.data.fingerprint import differences, fingerprint
from counterpoint.errors import RunError
from counterpoint.recipe import Recipe, load
from counterpoint.runs import atomic
from counterpoint.runs.ranks import is_first_rank
from counterpoint.runs.run import Run

FREE = ("loader.workers", "loader.micro_batch", "teacher.run")  # what changes nothing of the result
FIXED = ("encoders", "heads", "tune", "data", "seed", "name", "stages")  # what the weights in a checkpoint are made for
DATA = "data.json"


def configuration(recipe: Recipe) -> dict[str, Any]:
    """The whole recipe as plain values, for run.json."""
    return json.loads(json.dumps(yaml.safe_load(recipe.as_yaml()), default=str))


def resume(run: Run, overrides: list[str], allow_changes: bool) -> Recipe:
    """The recipe of a run to go on with; RunError, which shows the difference, when it is another than at the beginning.

    It may be another by overrides, or because recipe.yaml was edited. What changes only the speed is free; what the weights
    in the checkpoint were made for (encoders, heads, data, seed) is fixed; the rest needs `allow_changes`.
    """
    if not run.recipe.is_file():
        raise RunError(f"{run.folder}: there is no recipe.yaml to go on with")
    recipe = load(run.recipe, overrides)
    begun = run.facts().get("configuration") or configuration(load(run.recipe))
    found = {path: told for path, told in changed(begun, configuration(recipe)) if path not in FREE}
    if fixed := [told for path, told in found.items() if _section(path) in FIXED]:
        raise RunError(f"{run.folder}: {', '.join(fixed)}: this does not fit the weights of the run; start a new one")
    if found and not allow_changes:
        raise RunError(f"{run.folder}: {', '.join(found.values())}; pass --allow-changes to go on with it")
    named = any(text.startswith("teacher.run=") for text in overrides)
    if (found or named) and is_first_rank():  # so that the next resume knows of it
        run.write("recipe.yaml", recipe.as_yaml())
        run.note(configuration=configuration(recipe))
    return recipe


def _section(path: str) -> str:
    return path.partition(".")[0].partition("[")[0]


def changed(then: Any, now: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(path, `optimizer.lr 0.001 -> 0.0003`) of every value that differs."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for key in {**then, **now}:
            yield from changed(then.get(key), now.get(key), f"{path}.{key}" if path else key)
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for number, (one, other) in enumerate(zip(then, now)):
            yield from changed(one, other, f"{path}[{number}]")
    elif then != now:
        yield path, f"{path} {_short(then)} -> {_short(now)}"


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# Data


def note_data(run: Run, dataset) -> None:
    """Write down what the data of a new run are."""
    atomic.write(run.folder / DATA, json.dumps(fingerprint(dataset)) + "\n")


def check_data(run: Run, dataset, given: Mapping[str, Mapping[str, Any]], allow_changes: bool = False) -> None:
    """RunError, which names files, when the data are others than when the run began.

    Another number of samples, or another shape, would be another order of samples, and is never gone on with.
    """
    then = run.facts().get("given", {})
    now = json.loads(json.dumps(given, default=str))
    if other := [told for _, told in changed(then, now)]:
        raise RunError(f"{run.folder}: the data have changed since the run began ({', '.join(other)}); start a new run")
    if allow_changes or not is_first_rank():
        return
    before = run.read(DATA, {})
    if before and (told := differences(before, dataset)):
        raise RunError(
            f"{run.folder}: the data have changed since the run began ({'; '.join(told)}); "
            "put them back, start a new run, or pass --allow-changes to go on with them"
        )
