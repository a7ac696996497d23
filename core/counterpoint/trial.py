"""Two samples through views, encoder and head before a run begins: what does not fit is said at once, and where."""

from __future__ import annotations

from itertools import islice

import torch

from counterpoint.assembly import Assembly, build_dataset
from counterpoint.batch import Batch, View
from counterpoint.data.collate import collate
from counterpoint.errors import CounterpointError, DataError, RecipeError
from counterpoint.recipe import Recipe

LOOKED_AT = 64  # samples searched for one that has a modality
READ = 256  # samples of the test split that are read before a run


def try_out(assembly: Assembly) -> dict[str, list[int]]:
    """The shape of one prepared row of every modality, as the trained encoder will want it.

    The first samples of the split that scores are taken on are read too: a damaged one would end the run at its end.

    Raises RecipeError with every modality whose samples do not fit its views or its encoder, and DataError for a sample
    that cannot be read, unless the recipe skips those.
    """
    batches = _samples(assembly)
    _read_test(assembly.recipe)
    shapes, problems = {}, []
    for modality, batch in batches.items():
        try:
            shapes[modality] = _try_modality(assembly, modality, batch)
        except RecipeError as error:
            problems += error.problems
    if problems:
        raise RecipeError(problems)
    return shapes


def _samples(assembly: Assembly) -> dict[str, Batch]:
    """modality -> a batch of one sample twice, for those that one of the first samples has."""
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
            found[modality] = collate([(index, sample), (index, sample)])
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
def _try_modality(assembly: Assembly, modality: str, batch: Batch) -> list[int]:
    recipe, raw = assembly.recipe, batch.inputs[modality]
    pipeline, tower = assembly.pipelines[modality], assembly.towers[modality]
    with _naming(recipe, f"views.{modality}", f"the samples of {modality!r}", raw):
        views = pipeline(raw, batch.index[raw.row], recipe.seed, 0)
        prepared = pipeline.prepare(raw)
    training = {module: module.training for module in tower.modules()}
    tower.eval()
    try:
        for view in views[: len(pipeline.layout())]:
            with _naming(recipe, f"encoders.{modality}", f"a view of {modality!r}", view):
                tower(view, 0)
            if assembly.teacher is not None and modality in assembly.teacher:
                with _naming(recipe, "teacher", f"a view of {modality!r}", view):
                    assembly.teacher[modality](view, 0)
        if recipe.evaluate:
            with _naming(
                recipe, f"encoders.{modality}", f"a sample of {modality!r} as an evaluation sees it", prepared
            ):
                tower.features(prepared)
    finally:
        for module, mode in training.items():
            module.training = mode
    return list(prepared.data.shape[1:])


class _naming:
    """Whatever goes wrong inside is a mistake of the recipe at `path`."""

    def __init__(self, recipe: Recipe, path: str, what: str, view: View):
        self.recipe, self.path, self.what, self.view = recipe, path, what, view

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind, error, trace) -> None:
        if isinstance(error, Exception) and not isinstance(error, RecipeError):
            dtype = str(self.view.data.dtype).removeprefix("torch.")
            reason = str(error) if isinstance(error, CounterpointError) else f"{kind.__name__}: {error}"
            shape = tuple(self.view.data.shape)
            lines = " ".join(reason.split())[:300]
            raise RecipeError(
                [f"{self.recipe.where(self.path)}: cannot take {self.what}, {dtype} {shape}: {lines}"]
            ) from error
