"""A recipe before it is trained: its data, its batches, its views and its untrained encoders."""

from __future__ import annotations

from counterpoint.doctor import data, negatives, poison, views
from counterpoint.doctor.finding import Finding
from counterpoint.doctor.look import MOST, look
from counterpoint.fit.assembly import assemble
from counterpoint.recipe import Recipe


def check(recipe: Recipe, most: int | None = None) -> tuple[str, list[Finding]]:
    """What was looked at, and what was found in it, of each stage that has data or views of its own."""
    seen, found, told = None, [], []
    for _, stage in recipe.stage_recipes():
        assembly = assemble(stage)
        if seen is None or stage.data != seen.recipe.data:
            seen = look(stage, most or MOST)
            told.append(_told(seen))
            found += [*data.check(seen), *poison.check(seen)]
        seen.recipe = stage
        found += [*negatives.check(seen, assembly), *views.check(seen, assembly)]
    return "; ".join(told), list(dict.fromkeys(found))


def _told(seen) -> str:
    parts = [part for part in (seen.train, seen.test) if part is not None]
    return ", ".join(f"{len(part)} of {len(part.dataset)} samples of {part.split!r}" for part in parts)
