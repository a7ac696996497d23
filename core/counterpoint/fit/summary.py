"""What a person is told when a run ends: the scores, and the code that loads the encoder with every name filled in."""

from __future__ import annotations

from datetime import datetime

from counterpoint.evaluate.table import render
from counterpoint.recipe import Recipe
from counterpoint.runs.run import Run


def closing(run: Run, recipe: Recipe, records: list[dict]) -> str:
    """Scores, run folder, and three lines of Python."""
    parts = [render(records)] if records else []
    parts.append(_loading(run, recipe))
    return "\n\n".join(parts)


def _loading(run: Run, recipe: Recipe) -> str:
    modality = next(iter(recipe.encoders))
    several = f", modality={modality!r}" if len(recipe.encoders) > 1 else ""
    facts = run.facts()
    part = ".h" if modality in facts.get("features", ()) else ""  # the encoder gives more than h
    shape = [str(size) for size in facts.get("shapes", {}).get(modality, ["..."])]
    return "\n".join(
        [
            f"run: {run.folder} ({_seconds(facts)} s)",
            "    import counterpoint",
            f'    encoder = counterpoint.load("{run.folder}"{several})',
            f"    h = encoder(x){part}  # x: (n, {', '.join(shape)})",
        ]
    )


def _seconds(facts: dict) -> int:
    return round((datetime.fromisoformat(facts["finished"]) - datetime.fromisoformat(facts["created"])).total_seconds())
