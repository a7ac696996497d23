"""Two samples through views, encoder, head and objective before a run begins: what does not fit is said at once, and where."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
import torch
from torch import nn

from counterpoint.batch import Batch, Encoded, Outputs, Queued, View
from counterpoint.data.collate import collate
from counterpoint.data.plan import Order
from counterpoint.errors import ComponentError, CounterpointError, DataError, RecipeError
from counterpoint.fit.assembly import Assembly, build_dataset
from counterpoint.fit.length import world_of
from counterpoint.objectives.objective import Needs
from counterpoint.packs.importing import untouched
from counterpoint.randomness import key, seed_host
from counterpoint.recipe import Recipe
from counterpoint.refresh.refreshed import Refreshed

LOOKED_AT = 64  # samples searched for one that has a modality
READ = 256  # samples of the test split that are read before a run


@dataclass
class _Tried:
    """The shape of a prepared row of one modality, and what its student and teacher made of the views."""

    shape: list[int]
    student: list[Encoded] = field(default_factory=list)
    teacher: list[Encoded] = field(default_factory=list)


def try_out(assembly: Assembly) -> dict[str, list[int]]:
    """The shape of one prepared row of every modality, as the trained encoder will want it.

    The first samples of the split that scores are taken on are read too: a damaged one would end the run at its end. Every
    objective is called once on what the encoders make of one sample of each modality, twice; all in evaluation mode
    and without gradients, so that nothing learns, and no queue, state or random generator is moved by it.

    Raises RecipeError with every modality whose samples do not fit its views or its encoder, and with what the sampler
    lacks, then with every objective that cannot take what they give, and DataError for a sample that cannot be read, unless the recipe skips those.
    """
    batches = _samples(assembly)
    _read_test(assembly.recipe)
    tried, problems = {}, _try_sampler(assembly)
    for modality, batch in batches.items():
        try:
            tried[modality] = _try_modality(assembly, modality, batch)
        except RecipeError as error:
            problems += error.problems
    if not problems and tried.keys() == assembly.towers.keys():
        problems = _try_objectives(assembly, batches, tried)
    if problems:
        raise RecipeError(problems)
    return {modality: found.shape for modality, found in tried.items()}


def _try_sampler(assembly: Assembly) -> list[str]:
    """The first epoch's batches, of columns that are not made yet as they are known before."""
    recipe, dataset = assembly.recipe, assembly.dataset
    order = Refreshed(assembly.refresh, dataset).into(Order.of(dataset, recipe.loader.batch, world_of(recipe)))
    try:
        recipe.loader.sampler.build()(order, np.random.default_rng(0))
    except RecipeError as error:
        return error.problems
    except ComponentError as error:
        return [f"{recipe.where('loader.sampler')}: {error}"]
    return []


def _samples(assembly: Assembly) -> dict[str, Batch]:
    """modality -> a batch of one sample twice, as samples 0 and 1, for those that one of the first samples has."""
    found: dict[str, Batch] = {}
    dataset = assembly.dataset
    for index in islice(range(len(dataset)), LOOKED_AT):
        try:
            sample = dataset[index]
        except DataError:
            if assembly.recipe.loader.on_bad == "skip":
                continue
            raise
        for modality in sample.inputs.keys() & assembly.towers.keys() - found.keys():
            found[modality] = collate([(min(row, len(dataset) - 1), sample) for row in range(2)])
        if len(found) == len(assembly.towers):
            break
    return found


def _read_test(recipe: Recipe) -> None:
    if not recipe.evaluate or recipe.loader.on_bad == "skip":
        return
    test = build_dataset(recipe, split="test")
    for index in islice(range(len(test)), READ):
        try:
            test[index]
        except DataError as error:
            raise DataError(f"split 'test': {error}; mend it, or leave such samples out: loader.on_bad=skip") from error


@torch.no_grad()
def _try_modality(assembly: Assembly, modality: str, batch: Batch) -> _Tried:
    recipe, raw = assembly.recipe, batch.inputs[modality]
    pipeline, tower = assembly.pipelines[modality], assembly.towers[modality]
    with _naming(recipe, f"views.{modality}", f"the samples of {modality!r}", raw):
        views = pipeline(raw, batch.index[raw.row], recipe.seed, 0)
        prepared = pipeline.prepare(raw)
    found = _Tried(list(prepared.data.shape[1:]))
    with _evaluating(tower):
        for view in views[: len(pipeline.layout())]:
            with _naming(recipe, f"encoders.{modality}", f"a view of {modality!r}", view):
                found.student.append(replace(tower(view, 0), input=view.data, input_mask=view.input_mask()))
            if assembly.teacher is not None and modality in assembly.teacher:
                with _naming(recipe, "teacher", f"a view of {modality!r}", view):
                    found.teacher.append(assembly.teacher[modality](view, 0))
        if recipe.evaluate:
            with _naming(
                recipe, f"encoders.{modality}", f"a sample of {modality!r} as an evaluation sees it", prepared
            ):
                tower.features(prepared)
    return found


@torch.no_grad()
def _try_objectives(assembly: Assembly, batches: Mapping[str, Batch], tried: Mapping[str, _Tried]) -> list[str]:
    """What the objectives say of the first batch that they would see, with empty queues: one message each."""
    problems, recipe = [], assembly.recipe
    outputs = _outputs(assembly, batches, tried)
    for name, objective in assembly.objectives.items():
        seen = _seen_by(objective.needs(), outputs)
        with _evaluating(objective), untouched(), torch.random.fork_rng(devices=[]):
            seed_host(key(recipe.seed, "objective", name, 0))
            try:
                objective(seen)
            except Exception as error:
                where, shapes = recipe.where(recipe.objectives[name].path), "; ".join(map(_described, seen.student))
                problems.append(f"{where}: cannot take what the encoders give ({shapes}): {_reason(error)}")
    return problems


def _outputs(assembly: Assembly, batches: Mapping[str, Batch], tried: Mapping[str, _Tried]) -> Outputs:
    """Two samples, of which each modality has the one that it was tried with."""
    student, teacher = [], []
    for modality in assembly.towers:
        first, made = len(student), tried[modality]
        student += [replace(e, view=first + number) for number, e in enumerate(made.student)]
        teacher += [replace(e, view=first + number) for number, e in enumerate(made.teacher)]
    return Outputs(student, replace(next(iter(batches.values())), inputs={}), teacher=teacher)


def _seen_by(needs: Needs, outputs: Outputs) -> Outputs:
    """The outputs as the loop would give them: columns that are made later are unknown, momentum begins as the student."""
    batch = outputs.batch
    groups, labels = (
        {name: torch.full_like(batch.index, -1) for name in names} for names in (needs.groups, needs.labels)
    )
    batch = replace(batch, groups=groups | batch.groups, labels=labels | batch.labels)
    left_out = [] if "tokens" in needs.features else ["tokens", "mask"]
    left_out += [name for name in ("map",) if name not in needs.features]
    left_out += [] if "input" in needs.features else ["input", "input_mask"]
    student = [replace(e, **dict.fromkeys(left_out)) for e in outputs.student]
    momentum = [replace(e, input=None, input_mask=None) for e in student] if needs.momentum is not None else []
    return replace(
        outputs,
        student=student,
        momentum=momentum,
        batch=batch,
        queues={name: _empty(student, needs) for name in needs.queues},
    )


def _empty(student: list[Encoded], needs: Needs) -> Queued:
    nobody = student[0].row[:0]
    return Queued(student[0].z[:0].float(), nobody, dict.fromkeys(needs.groups, nobody))


def _described(e: Encoded) -> str:
    shown = lambda x: str(tuple(x.shape[1:]))  # noqa: E731
    tokens = "" if e.tokens is None else f", tokens {shown(e.tokens)}"
    return f"{e.modality} z {shown(e.z)}{tokens}"


@contextmanager
def _evaluating(module: nn.Module):
    """The module in evaluation mode, then every part of it in its own again."""
    training = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in training.items():
            part.training = mode


class _naming:
    """Whatever goes wrong inside is a mistake of the recipe at `path`."""

    def __init__(self, recipe: Recipe, path: str, what: str, view: View):
        self.recipe, self.path, self.what, self.view = recipe, path, what, view

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind, error, trace) -> None:
        if isinstance(error, Exception) and not isinstance(error, RecipeError):
            dtype = str(self.view.data.dtype).removeprefix("torch.")
            shape = tuple(self.view.data.shape)
            raise RecipeError(
                [f"{self.recipe.where(self.path)}: cannot take {self.what}, {dtype} {shape}: {_reason(error)}"]
            ) from error


def _reason(error: Exception) -> str:
    reason = str(error) if isinstance(error, CounterpointError) else f"{type(error).__name__}: {error}"
    return " ".join(reason.split())[:300]
