"""The loss of embeddings that are all alike, asked of the objectives themselves.

A softmax over N candidates of one similarity is ln N whatever the temperature: a loss that stays there has not begun to
tell samples apart. Of objectives of another kind nothing is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import exp, log
from typing import Any

import torch

from counterpoint.batch import APART, Batch, Encoded, Outputs, Queued
from counterpoint.errors import CounterpointError
from counterpoint.fit.assembly import build_pipeline
from counterpoint.objectives.mechanisms.temperature import Temperature
from counterpoint.objectives.objective import Needs, Objective
from counterpoint.recipe import Recipe

DIM, QUEUE = 8, 4096


def chances(recipe: Recipe, given: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, float]]:
    """Name of the loss in metrics.csv -> `ln 64` and its value, of objectives whose loss of chance is the logarithm of a count."""
    size = next((facts.get("size") for facts in given.values()), None)
    batch = min(recipe.loader.batch, size or recipe.loader.batch)
    found = {}
    for name, objective in _built(recipe, given).items():
        value = _constant(objective, recipe, given, batch)
        count = round(exp(value)) if value is not None and 0 < value < 20 else 0
        if count > 1 and abs(value - log(count)) < 1e-3 * value:
            told = "ln(batch)" if count == batch else f"ln {count}"
            found[_logged(recipe, name, "loss")] = (told, value)
    return found


def lowest_temperatures(recipe: Recipe, given: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Name in metrics.csv -> the bound of a learned temperature."""
    found = {}
    for name, objective in _built(recipe, given).items():
        learned = [m for m in objective.modules() if isinstance(m, Temperature) and m.log_scale is not None]
        if learned:
            found[_logged(recipe, name, "temperature")] = exp(-learned[0].most)
    return found


def _logged(recipe: Recipe, name: str, what: str) -> str:
    if len(recipe.objectives) == 1:
        return what
    return f"loss/{name}" if what == "loss" else f"{name}/{what}"


def _built(recipe: Recipe, given: Mapping[str, Mapping[str, Any]]) -> dict[str, Objective]:
    """The objectives that can be built without encoders."""
    modalities = list(recipe.encoders)
    facts = {m: {"width": DIM, "token_width": DIM, "layer_widths": (), **given.get(m, {})} for m in modalities}
    size = next((f.get("size") for f in given.values()), 1)
    known = {"dim": DIM, "size": size, "modalities": modalities, "facts": facts}
    found = {}
    for name, call in recipe.objectives.items():
        try:
            found[name] = call.build(known)
        except (CounterpointError, KeyError, TypeError, ValueError):  # it asks for more than a folder says
            continue
    return found


@torch.no_grad()
def _constant(objective: Objective, recipe: Recipe, given: Mapping, batch: int) -> float | None:
    needs = objective.needs()
    if needs.features or needs.heads or needs.labels or needs.teacher or needs.roles:
        return None
    try:
        loss, _ = objective.eval()(_alike(needs, recipe, given, batch))
    except Exception:  # it wants what a folder does not tell: then there is nothing to compare with
        return None
    return float(loss)


def _alike(needs: Needs, recipe: Recipe, given: Mapping, batch: int) -> Outputs:
    """Outputs of one batch whose every embedding is the same, each sample of a group of its own."""
    row, student = torch.arange(batch), []
    for modality in recipe.encoders:
        for role in build_pipeline(recipe, modality, given.get(modality, {})).layout():
            if role not in APART:
                z = torch.ones(batch, DIM)
                student.append(Encoded(modality, role, len(student), row, z, z))
    groups = dict.fromkeys(needs.groups, row)
    held = lambda rows: Queued(  # noqa: E731
        torch.full((rows, DIM), DIM**-0.5),
        -2 - torch.arange(rows),
        {g: -torch.ones(rows, dtype=torch.int64) for g in needs.groups},
    )
    queues = {name: held(min(rows, QUEUE)) for name, rows in needs.queues.items() if rows <= QUEUE}
    momentum = [replace(e) for e in student] if needs.momentum is not None else []
    return Outputs(student, Batch({}, row, groups), momentum, queues=queues)
