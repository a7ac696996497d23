"""Where each entry of a recipe was written, for messages that come after it was checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from counterpoint.recipe.mistakes import Where, join, placed


@dataclass(frozen=True)
class Origin:
    """The file of a recipe, the place of every entry by its path, and the sections that the current stage replaced."""

    source: str = ""
    places: Mapping[str, Where] = field(default_factory=dict)
    stage: str = ""
    replaced: frozenset[str] = frozenset()

    def where(self, path: str) -> str:
        """`recipe.yaml:7: trainer.devices`; an entry that is not written has the line of what holds it."""
        section = path.partition(".")[0].partition("[")[0]
        path = join(self.stage, path) if section in self.replaced else path
        known = path
        while known and known not in self.places:
            known = known[: max(known.rfind("."), known.rfind("["), 0)]
        return placed(self.places[known] if known else Where(self.source), path)

    def of_stage(self, number: int, sections: Iterable[str]) -> Origin:
        return replace(self, stage=f"stages[{number}]", replaced=frozenset(sections))


def places(tree: Any, path: str = "") -> Iterator[tuple[str, Where]]:
    """(path, place) of every node below `tree`."""
    if isinstance(tree.value, dict):
        below = [(join(path, key), child) for key, child in tree.value.items()]
    else:
        below = [(f"{path}[{i}]", child) for i, child in enumerate(tree.value)] if isinstance(tree.value, list) else []
    for name, child in below:
        yield name, child.where
        yield from places(child, name)
