"""Overrides of a recipe on the command line: `key.path=value`, `views.ecg[1].snr_db=20`, `objective=info_nce`."""

from __future__ import annotations

import re

from counterpoint.errors import RecipeError, suggest
from counterpoint.recipe.mistakes import COMMAND_LINE, Mistakes, Where, one_line, shown
from counterpoint.recipe.yaml import Node, parse

STEP = re.compile(r"\.?([^.\[\]=]+)|\[([0-9]{1,9})\]")


def apply(tree: Node, override: str, mistakes: Mistakes) -> None:
    """The override set in the tree; a section or parameter that is not there is added."""
    where = Where(f"{COMMAND_LINE}: {one_line(override)}")
    key, equals, value = override.partition("=")
    steps = _steps(key)
    if not equals or not steps:
        mistakes.add(where, "", "expected key.path=value, as in objective.temperature=0.1 or views.ecg[0].n=2")
        return
    try:
        _set(tree, steps, parse(value, str(where)), where)
    except RecipeError as error:
        mistakes.add(where, "", str(error).removeprefix(f"{where}: "))


def _steps(key: str) -> list[str | int]:
    """`views.ecg[1].n` as ["views", "ecg", 1, "n"]; empty when it is not a path."""
    found = list(STEP.finditer(key))
    if "".join(match[0] for match in found) != key or key.startswith((".", "[")):
        return []
    return [match[1] if match[1] is not None else int(match[2]) for match in found]


def _set(tree: Node, steps: list[str | int], value: Node, where: Where) -> None:
    for i, step in enumerate(steps):
        _opened(tree, step, where)
        _fitting(tree, step, _path(steps[:i]) or "the recipe")
        if i == len(steps) - 1:
            break
        tree = _child(tree, step, where)
    if isinstance(step, int) and step == len(tree.value):
        tree.value.append(value)
    else:
        tree.value[step] = value


def _opened(tree: Node, step: str | int, where: Where) -> None:
    """A bare name or nothing becomes a mapping or a list that the step can go into."""
    if isinstance(step, str) and isinstance(tree.value, str):
        tree.value = {"use": Node(tree.value, tree.where)}
    elif tree.value is None:
        tree.value, tree.where = ({} if isinstance(step, str) else []), where


def _child(tree: Node, step: str | int, where: Where) -> Node:
    if isinstance(step, int):
        if step == len(tree.value):
            tree.value.append(Node(None, where))
        return tree.value[step]
    return tree.value.setdefault(step, Node(None, where))


def _fitting(tree: Node, step: str | int, path: str) -> None:
    """RecipeError unless `step` can be taken from here."""
    if isinstance(step, str):
        if isinstance(tree.value, list):
            entries = ", ".join(f"{path}[{i}]" for i in range(min(len(tree.value), 9)))
            raise RecipeError([f"{path} is a list; write one of {entries}" if entries else f"{path} is an empty list"])
        if not isinstance(tree.value, dict):
            raise RecipeError([f"{path} is {shown(tree.value)}, which has no {step!r} inside"])
    elif isinstance(tree.value, dict):
        raise RecipeError([f"{path} is a mapping, not a list{suggest(str(step), tree.value)}"])
    elif not isinstance(tree.value, list):
        raise RecipeError([f"{path} is {shown(tree.value)}, not a list"])
    elif step > len(tree.value):
        raise RecipeError([f"{path} has {len(tree.value)} entries, counted from 0; [{len(tree.value)}] adds one"])


def _path(steps: list[str | int]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix(".")
