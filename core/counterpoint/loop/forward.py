"""The forward pass: from a Batch to Outputs, over all ranks.

One path: views, encoder and head of each micro-batch (recomputed in the backward pass when there are several), then the
gather across ranks. All that is random comes from seeds of (seed, step), so that a part made again is the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext

import torch
from torch import Tensor

from counterpoint.batch import Batch, Encoded, Outputs, View, replace
from counterpoint.errors import ComponentError
from counterpoint.kernels.autocast import no_autocast
from counterpoint.loop.gather import gather
from counterpoint.loop.micro_batch import joined, recomputed
from counterpoint.loop.trainable_views import made
from counterpoint.loop.training import Training
from counterpoint.objectives.objective import Needs
from counterpoint.randomness import key, seed_all
from counterpoint.refresh.refreshed import Refreshed
from counterpoint.runs.ranks import rank
from counterpoint.towers.momentum import MomentumTowers
from counterpoint.towers.teacher import Teacher
from counterpoint.towers.tower import Tower
from counterpoint.views.generator import TrainableView
from counterpoint.views.pipeline import Pipeline


class ForwardPass:
    """What the loop makes of a batch before an objective sees it.

    needs  of all objectives: features that none of them asks for are not kept, columns that one asks for are always there
    """

    def __init__(
        self,
        towers: Mapping[str, Tower],
        pipelines: Mapping[str, Pipeline],
        needs: Iterable[Needs],
        training: Training,
        momentum: MomentumTowers | None = None,
        teacher: Teacher | None = None,
        refreshed: Refreshed | None = None,
    ):
        self.towers, self.pipelines = towers, pipelines
        self.momentum, self.teacher, self.refreshed = momentum, teacher, refreshed
        self.seed, self.micro_batch, self.batches = training.seed, training.micro_batch, training.batches
        needs = list(needs)
        self._wanted = frozenset(feature for need in needs for feature in need.features)
        self._columns = [{name for need in needs for name in getattr(need, kind)} for kind in ("groups", "labels")]
        self.layouts = {modality: pipeline.layout() for modality, pipeline in pipelines.items()}

    def outputs(self, batch: Batch, step: int, epoch: int) -> Outputs:
        """Everything the objectives may look at, over all ranks."""
        sides = self.encode(batch, step)
        encoded, whole = gather([e for side in sides for e in side], batch)
        cut = _cut(encoded, [len(side) for side in sides])
        student, momentum, teacher = (
            [self._projected(e, branch, step) for e in side]
            for side, branch in zip(cut, ("student", "momentum", "teacher"))
        )
        return Outputs(
            student,
            self.with_columns(whole),
            momentum,
            teacher,
            step=step,
            epoch=epoch,
            total_steps=self.batches,
        )

    def _projected(self, e: Encoded, branch: str, step: int) -> Encoded:
        """The Encoded of the whole batch after a head that looks at all of it; from one seed on every rank."""
        towers = {"student": self.towers, "teacher": self.teacher}
        tower = self._momentum_tower(e.modality) if branch == "momentum" else towers[branch][e.modality]
        if not tower.whole_batch:
            return e
        seed_all(key(self.seed, "head", step, e.modality, e.view, branch))
        with nullcontext() if branch == "student" else torch.no_grad():
            projected = tower.project(e)
        return replace(
            projected, z=projected.z + e.z[:0].sum()
        )  # also where no rank had a row, connected to all weights

    def with_columns(self, batch: Batch) -> Batch:
        """Groups that are refreshed; a group or label that no sample has, or a batch without samples: unknown."""
        batch = batch if self.refreshed is None else self.refreshed.add_to(batch)
        groups, labels = ({name: batch.index.new_full((len(batch),), -1) for name in names} for names in self._columns)
        return replace(batch, groups=groups | batch.groups, labels=labels | batch.labels)

    def encode(self, batch: Batch, step: int) -> tuple[list[Encoded], list[Encoded], list[Encoded]]:
        """Student, momentum and teacher embeddings of every view of every modality, in one order on every rank."""
        student: list[Encoded] = []
        momentum: list[Encoded] = []
        teacher: list[Encoded] = []
        for modality in self.towers:
            first, raw = len(student), batch.inputs.get(modality)
            branches = [(student, self.towers[modality], "student")]
            if self.momentum is not None:
                branches.append((momentum, self._momentum_tower(modality), "momentum"))
            if self.teacher is not None and modality in self.teacher:
                branches.append((teacher, self.teacher[modality], "teacher"))
            there = raw is not None and len(raw) > 0
            index = batch.index[raw.row] if there else batch.index.new_zeros(0)
            views = self.views_together(modality, raw, index, step) if there else None  # made once for all branches
            for into, tower, branch in branches:
                with nullcontext() if branch == "student" else torch.no_grad():
                    if there:
                        into += self.see(tower, raw, index, step, first, branch, views)
                    else:
                        into += tower.absent(self.layouts[modality], index, first)
        return student, momentum, teacher

    def see(
        self, tower: Tower, raw: View, index: Tensor, step: int, first: int, branch: str, views: list[View] | None
    ) -> list[Encoded]:
        """What a tower makes of rows, by micro-batches where there are more than one holds.

        index  int64 (n,): the sample of each row, by its position in the data set
        first  the number of the first view
        views  what `views_together` gave for these rows
        """
        if views is None:
            return self._by_micro_batches(tower, raw, index, step, first, branch)
        if self._is_one_micro_batch(raw):
            return self.embed(tower, views, step, 0, first, branch)
        return self._views_by_micro_batches(tower, views, step, first, branch)

    def views_together(
        self, modality: str, raw: View, index: Tensor, step: int, learner: TrainableView | None = None
    ) -> list[View] | None:
        """The views of all rows at once; None where each micro-batch makes its own."""
        if self._is_one_micro_batch(raw) or self.pipelines[modality].whole_batch:
            return self.views(modality, raw, index, step, learner)
        return None

    def _is_one_micro_batch(self, raw: View) -> bool:
        return self.micro_batch is None or len(raw) <= self.micro_batch

    def _momentum_tower(self, modality: str) -> Tower:
        copies = self.momentum.towers
        return copies[modality] if modality in copies else self.towers[modality]

    def _by_micro_batches(
        self, tower: Tower, raw: View, index: Tensor, step: int, first: int, branch: str
    ) -> list[Encoded]:
        size, parts = self.micro_batch, []
        for chunk, start in enumerate(range(0, len(raw), size)):
            # Everything by argument: a closure over a loop variable would recompute the last one, with a right loss
            # and a wrong gradient.
            rows = slice(start, start + size)
            parts.append(self._cached(self.make, tower, raw[rows], index[rows], step, chunk, first, branch))
        return joined(parts)

    def _views_by_micro_batches(
        self, tower: Tower, views: list[View], step: int, first: int, branch: str
    ) -> list[Encoded]:
        """The same where the views had to be made of all samples together: each is cut on its own."""
        size, found, chunk = self.micro_batch, [], 0
        for number, view in enumerate(views):
            parts = []
            for start in range(0, max(1, len(view)), size):
                rows = [view[start : start + size]]
                parts.append(self._cached(self.embed, tower, rows, step, chunk, first + number, branch))
                chunk += 1
            found += joined(parts)
        return found

    @staticmethod
    def _cached(make: Callable, tower: Tower, *arguments) -> list[Encoded]:
        """What `make` makes of a micro-batch; of the student, activations are recomputed in the backward pass."""
        if arguments[-1] != "student":
            return make(tower, *arguments)
        return recomputed(make, tower, *arguments)

    def make(
        self, tower: Tower, raw: View, index: Tensor, step: int, chunk: int, first: int, branch: str = "student"
    ) -> list[Encoded]:
        """Views, encoder and head of one micro-batch, all from seeds, so that computing it again gives the same."""
        views = self.views(tower.modality, raw, index, step, getattr(tower, "learner", None))
        return self.embed(tower, views, step, chunk, first, branch)

    def views(
        self, modality: str, raw: View, index: Tensor, step: int, learner: TrainableView | None = None
    ) -> list[View]:
        """The views of some rows; ComponentError when a step made other roles than it declares.

        They are made in the precision of the data, as an evaluation prepares them, whatever the encoder's is.
        """
        with no_autocast(raw.data.device.type):
            views = made(self.pipelines[modality], learner, raw, index, self.seed, step)
        roles = [view.role for view in views]
        if roles != self.layouts[modality]:
            raise ComponentError(
                f"views.{modality}: a step declares the roles {self.layouts[modality]} and made {roles}"
            )
        return views

    def embed(self, tower: Tower, views: list[View], step: int, chunk: int, first: int, branch: str) -> list[Encoded]:
        """Encoder and head of views numbered from `first`; dropout is a function of step, rank, chunk and branch."""
        seed_all(key(self.seed, "model", step, rank(), tower.modality, chunk, branch))
        encoded = [self._kept(tower(view, first + number, later=True)) for number, view in enumerate(views)]
        if "input" not in self._wanted or branch != "student":
            return encoded
        return [replace(e, input=view.data, input_mask=view.input_mask()) for e, view in zip(encoded, views)]

    def _kept(self, e: Encoded) -> Encoded:
        """Without the tokens, maps and layers that no objective asks for: they would be held for the whole batch."""
        names = [*(("tokens", "mask") if "tokens" not in self._wanted else ()), *({"map"} - self._wanted)]
        return replace(e, **dict.fromkeys(names), layers=e.layers if "layers" in self._wanted else ())


def _cut(encoded: list[Encoded], counts: list[int]) -> list[list[Encoded]]:
    ends = list(itertools.accumulate(counts))
    return [encoded[end - count : end] for end, count in zip(ends, counts)]
