"""Whether a recipe, this machine and the data agree: what can be said before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from counterpoint.data.dataset import Spec
from counterpoint.errors import ComponentError, DataError, RecipeError, suggest
from counterpoint.recipe import Recipe
from counterpoint.towers.tower import Tower, takes_mask


class Problems:
    """Collects mistakes, so that all of them are reported at once."""

    def __init__(self):
        self.found: list[str] = []

    def attempt(self, build, default=None):
        try:
            return build()
        except RecipeError as error:
            self.found += error.problems
        except (ComponentError, DataError) as error:
            self.found.append(str(error))
        return default

    def stop(self) -> None:
        if self.found:
            raise RecipeError(list(dict.fromkeys(self.found)))


def check_device(recipe: Recipe, problems: Problems) -> None:
    """Lacks of this machine."""
    accelerator, devices = recipe.trainer.accelerator, recipe.trainer.devices
    if accelerator == "mps" and not torch.backends.mps.is_available():
        problems.found.append(f"{recipe.where('trainer.accelerator')}: no Apple GPU on this machine; use auto (or cpu)")
    if isinstance(devices, int) and devices < 1 and devices != -1:
        problems.found.append(f"{recipe.where('trainer.devices')}: expected 1 or more, or -1 for all; got {devices}")
    if accelerator == "cpu" and isinstance(devices, list):
        problems.found.append(
            f"{recipe.where('trainer.devices')}: a list names GPUs; on a CPU give a number of processes"
        )
    if accelerator in ("gpu", "cuda"):
        have = torch.cuda.device_count()
        wanted = (
            devices if isinstance(devices, int) else max(devices, default=0) + 1 if isinstance(devices, list) else 1
        )
        if not have:
            problems.found.append(
                f"{recipe.where('trainer.accelerator')}: {accelerator!r} asked for, and torch sees no GPU on this "
                "machine; use trainer.accelerator: auto (or cpu)"
            )
        elif wanted > have:
            problems.found.append(f"{recipe.where('trainer.devices')}: {wanted} GPUs asked for; torch sees {have}")


def check_micro_batch(recipe: Recipe, problems: Problems) -> None:
    """A micro-batch larger than the batch it is a part of."""
    micro, batch = recipe.loader.micro_batch or 0, recipe.loader.batch
    if micro > batch:
        problems.found.append(
            f"{recipe.where('loader.micro_batch')}: {micro} samples at a time of a batch of {batch}; set loader.batch to "
            "what is contrasted, and micro_batch to what fits in memory"
        )


def check_modalities(recipe: Recipe, spec: Spec, problems: Problems) -> None:
    """Modalities that only the data or only the recipe has."""
    has = ", ".join(sorted(spec.modalities))
    for modality in recipe.encoders:
        if modality not in spec.modalities:
            problems.found.append(
                f"{recipe.where(f'encoders.{modality}')}: {modality!r} is not a modality of data "
                f"{recipe.data.name!r}{suggest(modality, spec.modalities) if len(spec.modalities) > 1 else f'; it has: {has}'}"
            )
    for modality in spec.modalities:
        if modality not in recipe.encoders:
            problems.found.append(
                f"{recipe.where('encoders')}: data {recipe.data.name!r} has the modality {modality!r} and the recipe no "
                f"encoder for it; add encoders.{modality}, or leave it out of the data"
            )


def check_scores(recipe: Recipe, dataset, problems: Problems) -> None:
    """What the evaluators look at and the data does not have."""
    spec: Spec = dataset.spec
    if recipe.evaluate and "test" not in spec.splits:
        problems.found.append(
            f"{recipe.where('evaluate')}: data {recipe.data.name!r} has no split 'test', it has: "
            f"{', '.join(spec.splits)}; give it one, or leave `evaluate` out"
        )
    if recipe.evaluate and recipe.data.params.get("split", "train") == "test":
        problems.found.append(
            f"{recipe.where('data.split')}: training on the split that scores are taken on; leave `split` out"
        )
    columns = {*spec.groups, *spec.labels}
    for call in recipe.evaluate:
        evaluator = problems.attempt(call.build)
        needs = getattr(evaluator, "needs", set)()
        for name in sorted(needs - columns):
            problems.found.append(
                f"{recipe.where(call.path)}: {name!r} is neither a label nor a group of data {recipe.data.name!r}; "
                f"it has: {', '.join(sorted(columns)) or 'none'}"
            )
        fits = getattr(evaluator, "fits", True)  # else the training split is not looked at
        for name in sorted(needs & columns) if fits else ():
            if (count := _values(dataset, name)) is not None and count < 2:
                problems.found.append(
                    f"{recipe.where(call.path)}: {name!r} has {count} value in data {recipe.data.name!r}; a score needs two"
                )


def _values(dataset, name: str) -> int | None:
    """How many different known values a label or group has; None when the data set has no such column at hand."""
    column = {**getattr(dataset, "groups", {}), **getattr(dataset, "labels", {})}.get(name)
    if column is None:
        return None
    known = column[column >= 0] if column.dtype.kind in "iu" else column[column == column]
    return len(set(known.tolist()))


def check_masks(recipe: Recipe, spec: Spec, towers: Mapping[str, Tower], problems: Problems) -> None:
    """Samples of many lengths, and an encoder that takes one."""
    for modality, tower in towers.items():
        facts = spec.modalities[modality]
        if (
            "length" in facts
            and facts["length"] is None
            and not takes_mask(tower.encoder)
            and not recipe.views.get(modality)
        ):
            problems.found.append(
                f"{recipe.where(f'encoders.{modality}')}: samples differ in length, and encoder {recipe.encoders[modality].name!r} "
                f"takes no mask; crop them with a step under views.{modality}, or choose an encoder with a mask"
            )
