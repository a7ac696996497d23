"""A pipeline of view generators: the steps of one modality, one after another."""

from __future__ import annotations

from functools import cached_property

from torch import Tensor, nn

from counterpoint.batch import View
from counterpoint.errors import ComponentError
from counterpoint.randomness import Draw, key, splitmix64
from counterpoint.views.generator import TrainableView, ViewGenerator


class Pipeline(nn.Module):
    """Every step maps each View that the step before it left; a step may make several of one.

    A view of a sample is a pure function of (seed, step, modality, place in the pipeline, sample).
    """

    def __init__(self, modality: str, steps: list[ViewGenerator], names: list[str] | None = None):
        super().__init__()
        self.modality = modality
        self.steps = nn.ModuleList(steps)
        self.names = names or [type(step).__name__ for step in steps]

    @cached_property
    def trainable(self) -> list[TrainableView]:
        """The steps with a loss of their own, also those within other steps."""
        return [module for module in self.modules() if isinstance(module, TrainableView)]

    @property
    def whole_batch(self) -> bool:
        """Whether a step has to see the batch before it is cut."""
        return any(getattr(step, "whole_batch", False) for step in self.steps)

    @property
    def records(self) -> frozenset[str]:
        """What the steps leave in the meta of every view."""
        return frozenset().union(*(getattr(step, "records", ()) for step in self.steps))

    def layout(self) -> list[str]:
        """The roles of the views that come out, known without running."""
        roles = ["raw"]
        for step in self.steps:
            roles = step.layout(roles)
        return roles

    def forward(self, raw: View, index: Tensor, seed: int, step: int) -> list[View]:
        """The views of `raw` (n rows), whose samples are number `index` (n,) of the data set."""
        ids = index if "part" not in raw.meta else splitmix64(index) ^ raw.meta["part"]
        views = [raw]
        for place, generator in enumerate(self.steps):
            made = []
            for number, view in enumerate(views):
                draw = Draw(key(seed, "view", step, self.modality, place, number), ids)
                made += self._run(place, generator, view, draw)
            views = made
        return views

    def prepare(self, raw: View) -> View:
        """The one view of `raw` that an evaluation sees: augmentations are left out."""
        for generator in self.steps:
            raw = generator.prepare(raw)
        return raw

    def _run(self, place: int, generator: ViewGenerator, view: View, draw: Draw) -> list[View]:
        result = generator(view, draw)
        result = result if isinstance(result, list | tuple) else [result]
        if not result or not all(isinstance(v, View) for v in result):
            raise ComponentError(
                f"views.{self.modality}[{place}] ({self.names[place]}): returned {type(result[0] if result else result).__name__};"
                " expected a View or a list of Views"
            )
        return list(result)
