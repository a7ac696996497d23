"""Multi-crop: large views and small ones of the same rows, each made by steps of its own."""

from __future__ import annotations

from counterpoint.batch import View
from counterpoint.errors import ComponentError
from counterpoint.markers import Step
from counterpoint.randomness import Draw, key
from counterpoint.views.generator import ViewGenerator
from counterpoint.views.pipeline import Pipeline


class Branches(ViewGenerator):
    """`n_global` views through `global_steps`, of role global, then `n_local` through `local_steps`, of role local.

    The multi-crop of SwAV (Caron et al., 2020, section 3.4), which has 2 and 6, of 224 and 96 pixels: the steps crop,
    this one only tells the views apart. An encoder runs once a view, so that sizes may differ. An evaluation sees what
    the global steps prepare.
    """

    def __init__(
        self,
        *,
        global_steps: list[Step] = [],  # noqa: B006
        local_steps: list[Step] = [],  # noqa: B006
        n_global: int = 2,
        n_local: int = 6,
    ):
        super().__init__()
        if n_global < 1 or n_local < 0:
            raise ComponentError(f"view branches: at least 1 global and 0 local views; got {n_global} and {n_local}")
        self.global_steps, self.local_steps = Pipeline("global", global_steps), Pipeline("local", local_steps)
        self.counts = {"global": n_global, "local": n_local}

    @property
    def records(self) -> frozenset[str]:
        return frozenset.intersection(*(branch.records for branch, count in self._branches() if count))

    def layout(self, roles: list[str]) -> list[str]:
        one = [role for branch, count in self._branches() for role in [branch.modality] * count * len(branch.layout())]
        return one * len(roles)

    def forward(self, view: View, draw: Draw) -> list[View]:
        made = []
        for branch, count in self._branches():
            for number in range(count):
                found = branch(view, draw.ids, key(draw.seed, branch.modality, number), 0)
                made += [one.replace(role=branch.modality) for one in found]
        return made

    def prepare(self, view: View) -> View:
        return self.global_steps.prepare(view)

    def _branches(self) -> list[tuple[Pipeline, int]]:
        return [(self.global_steps, self.counts["global"]), (self.local_steps, self.counts["local"])]
