"""What components are tried on: the data of the pack's recipes, and examples that its tests hand over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, fields
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from counterpoint.batch import View, map_tensors
from counterpoint.data.collate import collate
from counterpoint.errors import CounterpointError, DataError
from counterpoint.fit.assembly import Assembly, build_dataset, given_by
from counterpoint.packs.registry import Component
from counterpoint.randomness import Draw, key, seed_all, seed_host
from counterpoint.recipe import Call, Recipe
from counterpoint.testing.finding import Untried
from counterpoint.towers.building import build_encoder

ROWS = 4  # samples that a component is tried on
LOOKED_AT = 64  # samples searched for those that have a modality


@dataclass(frozen=True)
class Example:
    """What something of the pack is tried on that none of its recipes tries.

    data       (n, ...): two rows or more, of an encoder or a view generator; mask: (n, L), true where they are real
    params     what a recipe would say of the component; given: what the data would know (channels, rate, length)
    overrides  of a recipe, as on the command line: ("data.path=table.csv",)
    """

    data: Tensor | None = None
    mask: Tensor | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    given: Mapping[str, Any] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trial:
    """A component, how it is built (anew, with the same initial weights), and the rows it is tried on.

    guessed  whether nobody said that the rows fit it
    """

    component: Component
    build: Callable[[], Any]
    view: View | None = None
    guessed: bool = False


@dataclass(eq=False)
class ReadOnce(Call):
    """Data of a recipe that are read once, however often they are built: a dataset has no state of its own."""

    made: dict[str, Any] = field(default_factory=dict, repr=False)

    def build(self, given: Mapping[str, Any] | None = None) -> Any:
        wanted = repr(sorted(self.params.items()))
        if wanted not in self.made:
            self.made[wanted] = super().build(given)
        return self.made[wanted]

    @classmethod
    def of(cls, call: Call) -> Call:
        return cls(**{item.name: getattr(call, item.name) for item in fields(call)})


@dataclass(frozen=True)
class Place:
    """Rows as they stand somewhere in a pipeline, and what the data knows of their modality."""

    view: View
    given: Mapping[str, Any]


def built(component: Component, params: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    """The component from its defaults and `params`, always with the same initial weights."""
    seed_all(key(0, "kit", component.kind, component.name))
    return Call(component, dict(params), component.name, "").build(given)


def kept(build: Callable[[], Any]) -> Callable[[], Any]:
    """`build`, which is called once: every call gives a copy of what it made, which nobody else has run."""
    made: list[Any] = []

    def copy():
        if not made:
            made.append(build())
        try:
            return deepcopy(made[0])
        except Exception:  # what cannot be copied is built each time
            return build()

    return copy


def of_recipe(assembly: Assembly) -> tuple[list[Trial], list[Place]]:
    """The encoders and view generators of a recipe on its data; and every place of its pipelines, to try others on.

    What comes after a step that fails is left out.
    """
    trials: list[Trial] = []
    places: list[Place] = []
    for modality in assembly.pipelines:
        raw = _rows(assembly.dataset, modality)
        if raw is not None:
            _of_modality(assembly, modality, raw, trials, places)
    return trials, places


def _of_modality(assembly: Assembly, modality: str, raw: View, trials: list[Trial], places: list[Place]) -> None:
    recipe, given = assembly.recipe, assembly.given[modality]
    view, prepared = raw, raw
    for number, (call, step) in enumerate(zip(recipe.views.get(modality, []), assembly.pipelines[modality].steps)):
        places.append(Place(view, given))
        trials.append(Trial(call.component, kept(_builder(call, given, number)), view))
        try:
            made = step(map_tensors(torch.clone, view), Draw(key(0, "kit", number), view.row))
            view, prepared = made[0] if isinstance(made, list | tuple) else made, step.prepare(prepared)
        except Exception:
            return
    places.append(Place(view, given))
    encoder = kept(lambda: build_encoder(recipe, modality, given))
    trials.append(Trial(recipe.encoders[modality].component, encoder, view))
    for number, call in enumerate(recipe.baselines.get(modality, [])):
        trials.append(Trial(call.component, kept(_builder(call, given, number)), prepared))


def _builder(call: Call, given: Mapping[str, Any], number: int) -> Callable[[], Any]:
    def build():
        seed_all(key(0, "kit", call.name, number))
        return call.build(given)

    return build


def raw_places(dataset: Any) -> list[Place]:
    """The rows of each modality as they are read."""
    given = given_by(dataset.spec)
    return [Place(raw, given[m]) for m in given if (raw := _rows(dataset, m)) is not None]


def _rows(dataset: Any, modality: str) -> View | None:
    """The first rows of a modality, as the loader collates them."""
    found = []
    for index in islice(range(len(dataset)), LOOKED_AT):
        seed_host(key(0, "kit", index))
        try:
            sample = dataset[index]
        except DataError:
            continue
        except Exception:
            return None
        if modality in getattr(sample, "inputs", ()):
            found.append((index, sample))
        if len(found) == ROWS:
            break
    try:
        return collate(found).inputs[modality] if len(found) > 1 else None
    except Exception:  # what is wrong with the samples is said of the dataset
        return None


def of_example(component: Component, example: Example) -> Trial:
    """The trial of a component on what the pack's tests say that fits it."""
    view = None
    if example.data is not None:
        view = View("example", example.data, torch.arange(len(example.data)), example.mask)
    return Trial(component, kept(lambda: built(component, example.params, example.given)), view)


def guesses(component: Component, places: list[Place]) -> Iterator[Trial]:
    """The component from its defaults on every place of the recipes' pipelines: some may fit it."""
    builds: dict[str, Callable[[], Any]] = {}  # the same for every place of a modality
    for place in places:
        build = builds.setdefault(repr(place.given), kept(partial(built, component, {}, place.given)))
        yield Trial(component, build, place.view, guessed=True)


def dataset_of(recipe: Recipe) -> Any:
    """The training data; Untried when its files are not here."""
    try:
        return build_dataset(recipe)
    except DataError as error:
        raise Untried(str(error).partition("\n")[0]) from error


def reason(error: CounterpointError, component: Component) -> str:
    """The first line of a message about a component that stands in no recipe."""
    return str(error).replace(f": {component.name}: ", "", 1).partition("\n")[0]


def first_fit(trials: Iterator[Trial], fits: Callable[[Trial], Any]) -> Trial:
    """The first trial that runs at all; Untried with the reason of the last when none does."""
    why = "no recipe of the pack that could be tried has data for it"
    for trial in trials:
        try:
            fits(trial)
            return trial
        except CounterpointError as error:
            why = reason(error, trial.component)
        except Exception as error:
            why = f"{type(error).__name__}: {error}".partition("\n")[0]
    raise Untried(f"no recipe uses it, and on their data: {why[:200]}")
