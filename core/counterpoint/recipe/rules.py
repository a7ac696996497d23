"""What ties the sections of a recipe together: defaults that depend on the modalities, and names that must agree."""

from __future__ import annotations

import re
from typing import Any

from counterpoint.errors import suggest
from counterpoint.recipe.mistakes import Mistakes, Where, join, shown
from counterpoint.recipe.walk import is_call
from counterpoint.recipe.yaml import Node, node

DEFAULTS = {"loader": {}, "optimizer": {"use": "adamw"}, "schedule": {"use": "cosine"}}
OF_MODALITY = {"heads": {"use": "mlp"}, "views": [], "tune": {}}
SAMPLER = {"use": "shuffle"}
# An empty section is as if absent, where absent means empty or ordinary; `schedule:` with nothing is a mistake.
MAY_BE_EMPTY = (
    "loader",
    "refresh",
    "heads",
    "views",
    "weights",
    "momentum",
    "teacher",
    "tune",
    "trainer",
    "evaluate",
    "baselines",
    "stages",
)


def complete(tree: Node, source: str) -> None:
    """Adds the components that a recipe has when it does not name others; done again, it follows what has changed."""
    where = Where(source)
    sections = tree.value
    _drop_empty(sections)
    for name, default in DEFAULTS.items():
        sections.setdefault(name, node(default, where))
    for name in OF_MODALITY:
        sections.setdefault(name, node({}, where))
    _complete_sections(sections, _keys(sections.get("encoders")), where)
    for stage in _stages(sections):
        _drop_empty(stage)
        _complete_sections(stage, _keys(sections.get("encoders")), where)


def _complete_sections(sections: dict[str, Node], modalities: list[str], where: Where) -> None:
    if "loader" in sections and isinstance(sections["loader"].value, dict):
        sections["loader"].value.setdefault("sampler", node(SAMPLER, where))
    for name, default in OF_MODALITY.items():
        section = sections.get(name)
        if section and isinstance(section.value, dict):
            for gone in [key for key, child in section.value.items() if child.where == where and key not in modalities]:
                del section.value[gone]  # a default for a modality that an override took away
            for modality in modalities:
                section.value.setdefault(modality, node(default, where))


def _drop_empty(sections: dict[str, Node]) -> None:
    for name in MAY_BE_EMPTY:
        if name in sections and sections[name].value is None:
            del sections[name]


def check(tree: Node, mistakes: Mistakes) -> None:
    """Names of modalities and objectives that must agree between sections, of the recipe and of each stage."""
    sections = tree.value
    encoders = sections.get("encoders")
    if encoders is not None:
        _check_names(encoders, "encoders", mistakes)
        if encoders.value == {}:
            mistakes.add(encoders.where, "encoders", "expected at least one, as in `encoders: {ecg: {use: ...}}`")
    parts = [(sections, "")] + [(stage, f"stages[{i}]") for i, stage in _numbered_stages(sections)]
    for part, path in parts:
        _check_modalities(part, path, encoders, mistakes)
        if "refresh" in part:
            _check_names(part["refresh"], join(path, "refresh"), mistakes)
        _check_weights(part, path, sections, mistakes)
    _check_stage_names(sections, mistakes)
    for number, (part, path) in enumerate(parts):
        before = [
            stage["name"].value for _, stage in _numbered_stages(sections)[: max(0, number - 1)] if "name" in stage
        ]
        for name in ("start", "teacher"):
            _check_trained(part.get(name), join(path, name), before, mistakes)
    _check_concatenation(sections, mistakes)


def _check_trained(section: Node | None, path: str, before: list[Any], mistakes: Mistakes) -> None:
    """A run or a stage, one of them; a stage must have been trained by then."""
    if section is None or not isinstance(section.value, dict):
        return
    named = {key: child for key, child in section.value.items() if child.value is not None}
    if len(named.keys() & {"run", "stage"}) != 1:
        mistakes.add(section.where, path, "expected either {run: ...} or {stage: ...}")
    elif "stage" in named and named["stage"].value not in before:
        reason = suggest(str(named["stage"].value), before) if before else "; there is none before it"
        message = f"{shown(named['stage'].value)} is not an earlier stage{reason}"
        mistakes.add(named["stage"].where, join(path, "stage"), message)


def _check_concatenation(sections: dict[str, Node], mistakes: Mistakes) -> None:
    wanted = sections.get("concatenate")
    if wanted is not None and wanted.value is True and len(_numbered_stages(sections)) < 2:
        mistakes.add(wanted.where, "concatenate", "expected two stages or more under `stages`, whose encoders it joins")


def _check_names(section: Node, path: str, mistakes: Mistakes) -> None:
    """Keys that parameters in a checkpoint and overrides are named by."""
    for key, child in section.value.items() if isinstance(section.value, dict) else ():
        if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]{0,99}", key, re.ASCII):
            message = f"expected a name of letters, digits, '_' and '-' that starts with a letter, got {shown(key)}"
            mistakes.add(child.where, join(path, key), message)


def _check_modalities(part: dict[str, Node], path: str, encoders: Node | None, mistakes: Mistakes) -> None:
    modalities = _keys(encoders)
    for name in ("heads", "views", "tune", "baselines"):
        section = part.get(name)
        if not modalities or not section or not isinstance(section.value, dict):
            continue
        for key in [key for key in section.value if key not in modalities]:
            message = f"{shown(key)} is not a modality: `encoders` has no such key{suggest(str(key), modalities)}"
            mistakes.add(section.value[key].where, join(join(path, name), key), message)


def _check_weights(part: dict[str, Node], path: str, base: dict[str, Node], mistakes: Mistakes) -> None:
    """Weights name objectives; a stage that replaces one of the two is checked against the recipe's other."""
    objective, weights = part.get("objective", base.get("objective")), part.get("weights", base.get("weights"))
    if "objective" in part and not is_call(part["objective"]):
        _check_names(part["objective"], join(path, "objective"), mistakes)
    if objective is None or weights is None or not isinstance(weights.value, dict):
        return
    names = ["loss"] if is_call(objective) else _keys(objective)
    for key in [key for key in weights.value if key not in names]:
        message = f"{shown(key)} is not an objective{suggest(str(key), names)}"
        if path and "weights" not in part:
            message += f"; {path} has objectives of its own: give it `weights` too"
        mistakes.add(weights.value[key].where, join(join(path, "weights"), key), message)


def _check_stage_names(sections: dict[str, Node], mistakes: Mistakes) -> None:
    seen: set[Any] = set()
    for i, stage in _numbered_stages(sections):
        name = stage.get("name")
        if name is not None and isinstance(name.value, str):
            if name.value in seen:
                mistakes.add(name.where, f"stages[{i}].name", f"{shown(name.value)} is the name of an earlier stage")
            seen.add(name.value)


def _numbered_stages(sections: dict[str, Node]) -> list[tuple[int, dict[str, Node]]]:
    stages = sections.get("stages")
    items = stages.value if stages and isinstance(stages.value, list) else []
    return [(i, item.value) for i, item in enumerate(items) if isinstance(item.value, dict)]


def _stages(sections: dict[str, Node]) -> list[dict[str, Node]]:
    return [stage for _, stage in _numbered_stages(sections)]


def _keys(section: Node | None) -> list[str]:
    return list(section.value) if section and isinstance(section.value, dict) else []
