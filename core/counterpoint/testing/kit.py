"""The conformance kit: everything that is checked of an installed pack, for its tests and for `counterpoint check-pack`.

Components that a recipe of the pack uses are tried on that recipe's data. Others are tried on an `Example`, or on
whatever data of the recipes they take; what cannot be tried at all is named in the report with the reason.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from counterpoint.errors import CounterpointError
from counterpoint.fit.assembly import Assembly
from counterpoint.packs import compat, registry, targets
from counterpoint.packs.contract import KINDS
from counterpoint.packs.discovery import Pack
from counterpoint.packs.registry import Component, Registry
from counterpoint.recipe import Recipe
from counterpoint.testing import datasets, encoders, material, objectives, recipes, scene, tables, views
from counterpoint.testing.finding import Report, Untried, place
from counterpoint.testing.material import Example, Trial

UNTRIED_KINDS = ("reader", "evaluator", "callback")  # nothing is known of what these want


def examine(name: str, examples: Mapping[str, Example] | None = None) -> Report:
    """Every check of the pack `name`; CounterpointError when no such pack can be found.

    examples  `kind name` or `recipe name` (`encoder net`, `recipe from_manifest`) -> what it is tried on
    """
    return _Examination(registry.installed(), name, dict(examples or {})).report()


@dataclass
class _Examination:
    """One pack on its way through the kit."""

    found: Registry
    name: str
    examples: dict[str, Example]
    trials: dict[str, Trial] = field(default_factory=dict)
    places: list[material.Place] = field(default_factory=list)
    datasets: dict[str, Any] = field(default_factory=dict)
    losses: dict[str, Any] = field(default_factory=dict)

    def report(self) -> Report:
        faults = [fault for fault in self.found.discovery.faults if fault.entry == self.name]
        packs = [pack for pack in self.found.discovery.packs if pack.entry == self.name]
        if not packs and not faults:
            raise CounterpointError(f"check-pack: no pack {self.name!r}{self.found.absent(self.name)}")
        self.made = Report(f"{self.name} {(packs or faults)[0].version}")
        self.made.deprecated = compat.deprecation(packs[0].api) if packs else None
        for check in tables.defines_its_version(packs[0] if packs else None, faults):
            self._try(f"pack {self.name}", (packs or [faults[0]])[0], "", check)
        for pack in packs[:1]:
            self._examine(pack)
        return self.made

    def _examine(self, pack: Pack) -> None:
        self.pack, self.module = pack, pack.module
        self._imports()
        mine = [c for kind in KINDS.values() for c in self.found.components(kind) if c.provider is pack]
        self._refuse_strangers(mine)
        usable = [c for c in mine if self._sound(c)]
        self._recipes()
        for component in usable:
            self._component(component)

    def _refuse_strangers(self, mine: list[Component]) -> None:
        known = [_key(c) for c in mine] + [f"recipe {path.stem}" for path in self._recipe_files()]
        for key in self.examples.keys() - set(known):
            raise CounterpointError(f"check-pack: there is an example for {key!r}; the pack has: {', '.join(known)}")

    def _recipe_files(self) -> list[Path]:
        return sorted(self.pack.recipes.glob("*.yaml")) if self.pack.recipes else []

    def _imports(self) -> None:
        who, seen = f"pack {self.name}", {}
        spec = targets.locate(self.module)
        where = f"{spec.origin}:1" if spec else self.module
        if self._try(who, None, where, lambda: seen.update(tables.importing(self.pack))):
            for check in (tables.imports_nothing_heavy, tables.prints_nothing, tables.draws_nothing):
                self._try(who, None, where, partial(check, seen))

    def _try(self, who: str, thing: Any, where: str, check: Callable) -> bool:
        if who not in self.made.tried:
            self.made.tried.append(who)
        module = getattr(self, "module", "") or getattr(thing, "module", "")
        return self.made.attempt(who, where or self.name, module, check)

    def _sound(self, component: Component) -> bool:
        """Whether the component can be named, built and documented; later checks need its signature alone."""
        who, where = str(component), ""
        for check in tables.COMPONENT_CHECKS:
            good = self._try(who, component, where, partial(check, component))
            if not good and check in tables.COMPONENT_CHECKS[:2]:
                return False
            where = where or place(component.load())
        return True

    # Recipes, and what they tell of the components they use

    def _recipes(self) -> None:
        for path in self._recipe_files():
            who, where, found = f"recipe {self.name}/{path.stem}", f"{path}:1", {}
            overrides = self.examples.get(f"recipe {path.stem}", Example()).overrides
            if not self._try(who, None, where, partial(recipes.is_valid, path, overrides, found)):
                continue
            if self._try(who, None, where, partial(recipes.fits_together, path, found)):
                self._try(who, None, where, partial(recipes.trains_three_steps, path, found))
            for assembly in found.get("stages", ()):
                self._learn_from(assembly)
            if "stages" not in found:
                self._learn_from_data(found["recipe"])

    def _learn_from(self, assembly: Assembly) -> None:
        self._keep_dataset(assembly.recipe, assembly.dataset)
        for call in assembly.recipe.objectives.values():
            if call.component.provider is self.pack:
                self.losses.setdefault(_key(call.component), call.params)
        trials, places = material.of_recipe(assembly)
        self.places += places
        for trial in trials:
            if trial.component.provider is self.pack:
                self.trials.setdefault(_key(trial.component), trial)

    def _learn_from_data(self, recipe: Recipe) -> None:
        """Of a recipe whose parts cannot be built there may still be the data."""
        with contextlib.suppress(Untried, CounterpointError):  # the reason is told already, of the recipe
            dataset = material.dataset_of(recipe)
            self._keep_dataset(recipe, dataset)
            self.places += material.raw_places(dataset)

    def _keep_dataset(self, recipe: Recipe, dataset: Any) -> None:
        if recipe.data.component.provider is self.pack:  # the core's `folder` is not the pack's
            self.datasets.setdefault(_key(recipe.data.component), dataset)

    # Components

    def _component(self, component: Component) -> None:
        who, where = str(component), place(component.load())
        if component.kind in UNTRIED_KINDS:
            self.made.untried.setdefault(who, f"{component.kind}s are tried by the pack's own tests")
            return
        try:
            subject, module = self._subject(component)
        except Untried as why:
            self.made.untried[who] = str(why)
            return
        for check in module.checks(subject):
            self._try(who, component, where, partial(check, subject))

    def _subject(self, component: Component) -> tuple[Any, Any]:
        """What is checked of a component, and the module of checks; Untried when there is nothing to try it on."""
        if component.kind == "dataset":
            return self._dataset(component), datasets
        if component.kind == "objective":
            return self._objective(component), objectives
        kind = {"encoder": encoders, "view": views}[component.kind]
        example = self.examples.get(_key(component))
        if example is not None and example.data is not None:
            return material.of_example(component, example), kind
        if _key(component) in self.trials:
            return self.trials.pop(_key(component)), kind  # its weights are held no longer than it is tried
        return material.first_fit(material.guesses(component, self.places), kind.fits), kind

    def _dataset(self, component: Component) -> Any:
        if _key(component) in self.datasets and _key(component) not in self.examples:
            return self.datasets[_key(component)]
        params = self.examples.get(_key(component), Example()).params
        try:
            return material.built(component, params, {})
        except CounterpointError as error:
            raise Untried(f"it cannot be built here: {material.reason(error, component)}") from error

    def _objective(self, component: Component) -> Trial:
        example = self.examples.get(_key(component), Example())
        params = {**self.losses.get(_key(component), {}), **example.params}
        given = {**scene.GIVEN, "modalities": None, "facts": {}, **example.given}
        build = partial(material.built, component, params, given)
        try:
            names = scene.modalities_of(build().needs())
        except CounterpointError as error:
            raise Untried(f"it cannot be built from its defaults: {material.reason(error, component)}") from error
        facts = {"channels": 2, "length": 6, "width": scene.D, "token_width": scene.D, "layer_widths": scene.LAYERS}
        given |= {"modalities": names, "facts": {name: facts for name in names}, **example.given}
        return Trial(component, partial(material.built, component, params, given))


def _key(component: Component) -> str:
    return f"{component.kind} {component.name.rpartition('.')[2]}"
