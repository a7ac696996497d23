"""From a recipe to towers: encoders, heads and what of them learns, with initial weights that its seed determines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from counterpoint.errors import ComponentError
from counterpoint.randomness import key, seed_all
from counterpoint.recipe import Recipe
from counterpoint.towers.sharing import share
from counterpoint.towers.side_by_side import Concatenated
from counterpoint.towers.tower import Tower
from counterpoint.towers.tuning import tune


def build_encoder(recipe: Recipe, modality: str, given: Mapping[str, Any]) -> nn.Module:
    """The encoder of a modality with its initial weights, a pure function of the recipe's seed (and of an afresh stage)."""
    seed_all(key(recipe.seed, "init", "encoder", modality, *_afresh(recipe)))
    encoder = recipe.encoders[modality].build(given)
    if not isinstance(getattr(encoder, "width", None), int):
        call = recipe.encoders[modality]
        raise ComponentError(
            f"{recipe.where(call.path)}: {call.name!r} has no int attribute `width`, the number of features of its h"
        )
    return encoder


def build_tower(recipe: Recipe, modality: str, given: Mapping[str, Any]) -> Tower:
    """Encoder and head of a modality, tuned as the recipe says."""
    encoder = build_encoder(recipe, modality, given)
    seed_all(key(recipe.seed, "init", "head", modality, *_afresh(recipe)))
    own = {name: getattr(encoder, name, encoder.width) for name in ("width", "token_width", "map_width")}
    head = recipe.heads[modality].build({**given, **own})
    tower = Tower(modality, encoder, head)
    if choice := recipe.tune.get(modality):
        seed_all(key(recipe.seed, "init", "lora", modality, *_afresh(recipe)))
        tune(tower, choice.train, choice.lora, choice.head)
    return tower


def _afresh(recipe: Recipe) -> tuple[str, ...]:
    """The name of a stage that starts afresh: its weights are others than the first stage's."""
    return (recipe.stage,) if recipe.start == "afresh" and recipe.stage else ()


def build_towers(recipe: Recipe, given: Mapping[str, Mapping[str, Any]]) -> dict[str, Tower]:
    """The towers that a run ends with, untrained: the last stage's, or those of all stages side by side."""
    stages = recipe.stage_recipes()
    made = {
        name: share({m: build_tower(stage, m, given.get(m, {})) for m in recipe.encoders})
        for name, stage in (stages if recipe.concatenate else stages[-1:])
    }
    if not recipe.concatenate:
        return made.popitem()[1]
    return {m: Concatenated(m, {name: towers[m] for name, towers in made.items()}) for m in recipe.encoders}


def widths_of(tower: Tower) -> dict[str, Any]:
    """The numbers in h, in each layer, and in each token as an objective gets it: those of the head where it makes tokens."""
    own = getattr(tower.encoder, "token_width", tower.encoder.width)
    return {
        "width": tower.encoder.width,
        "layer_widths": tuple(getattr(tower.encoder, "layer_widths", ())),
        "token_width": tower.dim if "tokens" in getattr(tower.head, "gives", ()) else own,
    }
