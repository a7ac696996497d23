"""Name -> component: its signature, its documentation, and the factory itself, imported when it is asked for.

A component's name is bare when it is the core's own (`info_nce`), `pack.name` when a pack brings it
(`ecg.inception_time`); `distribution/pack.name` picks one of several distributions that bring the same name. Other
spellings and well-known other names find it, too (`aliases`); the name itself always wins.
"""

import functools
import importlib
import inspect
import os
import sys
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import metadata
from pathlib import Path
from typing import Any

from counterpoint.errors import ComponentError, CounterpointError, suggest
from counterpoint.markers import KINDS, Given
from counterpoint.packs import aliases, builtin, compat, contract, discovery, targets
from counterpoint.packs.discovery import Discovery, Pack
from counterpoint.packs.isolation import isolated


@dataclass(frozen=True)
class Parameter:
    """One parameter of a component; `hint` keeps what Annotated adds, `default` is None when it is required."""

    name: str
    hint: Any
    default: Any
    required: bool

    @property
    def given(self) -> str | None:
        """What the data or the model may fill this parameter with, if anything."""
        return next((extra.name for extra in _extras(self.hint) if isinstance(extra, Given)), None)


@dataclass(frozen=True)
class Component:
    """A named factory that is imported when it is used; `provider` is the pack that brings it."""

    kind: str
    name: str
    target: str
    provider: Pack

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r}"

    def load(self) -> Callable:
        """The class or factory itself; ComponentError names the distribution and the remedy when it does not import."""
        module, attribute = targets.split(self.target)
        try:
            with isolated():
                return functools.reduce(getattr, attribute.split("."), importlib.import_module(module))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise ComponentError(self._not_loaded(error)) from error

    def parameters(self) -> dict[str, Parameter]:
        """Every parameter by name; ComponentError when one is not keyword-only, annotated and free to be named so."""
        factory = self.load()
        function = factory.__init__ if inspect.isclass(factory) else factory
        if function in _bare_constructors():
            return {}
        found = list(inspect.signature(function).parameters.values())[1 if inspect.isclass(factory) else 0 :]
        hints = self._hints(function)
        if breaches := [why for p in found if (why := _breach(p, hints))]:
            raise ComponentError(f"{self} of {self.provider} cannot be used in a recipe: {'; '.join(breaches)}")
        missing = inspect.Parameter.empty
        return {
            p.name: Parameter(p.name, hints[p.name], None if p.default is missing else p.default, p.default is missing)
            for p in found
        }

    def build(self, **params) -> Any:
        """What the factory makes of `params`; ComponentError for names it does not take, and for values it refuses."""
        factory, known = self.load(), self.parameters()
        if unknown := [name for name in params if name not in known]:
            raise ComponentError(f"{self}: unknown parameter {unknown[0]!r}{suggest(unknown[0], known)}")
        if missing := [name for name, parameter in known.items() if parameter.required and name not in params]:
            raise ComponentError(f"{self}: {', '.join(missing)} must be given")
        try:
            return compat.built(factory(**params), contract.hook_of(self.kind), self.provider.api)
        except (TypeError, ValueError) as error:
            raise ComponentError(f"{self}: {error}") from error

    @property
    def summary(self) -> str:
        """The first line of the docstring, read without importing anything; empty when there is none."""
        return targets.docstring(self.target).partition("\n")[0]

    @property
    def doc(self) -> str:
        """The docstring; the component is imported."""
        return inspect.getdoc(self.load()) or ""

    def _hints(self, function: Callable) -> dict[str, Any]:
        try:
            return typing.get_type_hints(function, include_extras=True)
        except NameError as error:
            why = (
                f"an annotation names {error.name!r}, which is not there when it runs; import it outside TYPE_CHECKING"
            )
            cause = error
        except Exception as error:
            why, cause = f"bad annotation: {error}", error
        raise ComponentError(f"{self} ({self.target} of {self.provider}): {why}") from cause

    def _not_loaded(self, error: BaseException) -> str:
        whose = f" (pack {self.provider.entry!r})" if self.provider.entry else ""
        message = f"{self} of {self.provider}{whose} cannot be imported: {type(error).__name__}: {error}"
        gone = error.name if isinstance(error, ModuleNotFoundError) else None
        if gone and gone.partition(".")[0] != self.target.partition(".")[0].partition(":")[0]:
            return f"{message}; {targets.pip_install(gone, self.provider.distribution)}"
        return f"{message}; its target is {self.target!r}"


class Registry:
    """Every component and recipe of the core and of the packs found."""

    def __init__(self, discovery: Discovery):
        self.discovery = discovery
        self._providers: dict[str, dict[str, list[Component]]] = {kind: {} for kind in KINDS}
        for pack in [_core(), *discovery.packs]:
            for kind, table in pack.tables.items():
                for short, target in table.items():
                    name = f"{pack.entry}.{short}" if pack.entry else short
                    self._providers[kind].setdefault(name, []).append(Component(kind, name, target, pack))

    def names(self, kind: str) -> list[str]:
        """Names of every component of a kind; those with several providers with their distribution in front."""
        return sorted(component.name for component in self.components(kind))

    def components(self, kind: str) -> Iterator[Component]:
        """Every component of a kind, by name; nothing is imported."""
        for _, found in sorted(self._named(kind).items()):
            yield from found if len(found) == 1 else map(_qualified, found)

    def find(self, kind: str, name: str) -> Component:
        """The component of this name, or of which it is another; ComponentError when there is none, or are several."""
        distribution, _, full = name.rpartition("/")
        found = self._named(kind).get(self._own_name(kind, full), [])
        if distribution:
            wanted = targets.canonical(distribution)
            found = [_qualified(c) for c in found if targets.canonical(c.provider.distribution) == wanted]
        if not found:
            raise ComponentError(self._unknown(kind, name))
        if len(found) > 1:
            choices = " or ".join(repr(_qualified(c).name) for c in found)
            raise ComponentError(f"{kind} {name!r} is brought by {_providers(found)}; write {choices}")
        return found[0]

    def knows(self, kind: str, name: str) -> bool:
        """Whether `find` has an answer to this name, be it that there are several."""
        full = name.rpartition("/")[2]
        named = self._named(kind)
        return full in named or bool(self._spelt(kind, full)) or aliases.canonical(kind, full) in named

    def _own_name(self, kind: str, name: str) -> str:
        """The name itself where there is one; else that of which it is another spelling, or an alias."""
        named = self._named(kind)
        if name in named:
            return name
        spelt = self._spelt(kind, name)
        if len(spelt) > 1:
            raise ComponentError(f"{kind} {name!r} is the name of several; write {' or '.join(map(repr, spelt))}")
        alias = aliases.canonical(kind, name)
        return spelt[0] if spelt else alias if alias in named else name

    def _spelt(self, kind: str, name: str) -> list[str]:
        """Names that differ in case, `-`, `_` and spaces alone; of encoders, else those that do without their pack's."""
        named, wanted = self._named(kind), aliases.plain(name, kind)
        whole = [full for full in named if aliases.plain(full, kind) == wanted]
        if whole or kind != "encoder" or "." in name:
            return sorted(whole)
        return sorted(full for full in named if aliases.plain(full.partition(".")[2], kind) == wanted)

    def recipes(self) -> dict[str, Path]:
        """Every installed recipe: `pack/name` -> file; `distribution/pack/name` where two distributions share a name."""
        found: dict[str, list[tuple[Pack, Path]]] = {}
        for pack in self.discovery.packs:
            for path in sorted(pack.recipes.glob("*.yaml")) if pack.recipes else ():
                found.setdefault(f"{pack.entry}/{path.stem}", []).append((pack, path))
        return {
            name if len(files) == 1 else f"{pack.distribution}/{name}": path
            for name, files in sorted(found.items())
            for pack, path in files
        }

    def recipe(self, name: str) -> Path:
        """The file of an installed recipe; CounterpointError when there is none of this name."""
        recipes = self.recipes()
        if name not in recipes:
            absent = self.absent(name.rpartition("/")[0].rpartition("/")[2])
            raise CounterpointError(
                f"unknown recipe {name!r}{absent or suggest(name, recipes) or '; none is installed'}"
            )
        return recipes[name]

    def _named(self, kind: str) -> dict[str, list[Component]]:
        if kind not in self._providers:
            raise ComponentError(f"unknown kind of component {kind!r}{suggest(kind, KINDS)}")
        return self._providers[kind]

    def _unknown(self, kind: str, name: str) -> str:
        full = name.rpartition("/")[2]
        if instead := aliases.near(kind, full):
            return f"unknown {kind} {name!r}; {instead}"
        others = [other for other in KINDS if other != kind and full in self._providers[other]]
        if others:
            return f"unknown {kind} {name!r}; {full!r} is of another kind: {', '.join(others)}"
        prefix, dot, _ = full.partition(".")
        absent = self.absent(prefix) if dot else ""
        return f"unknown {kind} {name!r}{absent or suggest(full, self.names(kind))}"

    def absent(self, entry: str) -> str:
        """Why there is nothing of the pack `entry`, as the end of a message; empty when the pack is there and whole."""
        there = [pack.entry for pack in self.discovery.packs]
        if faults := [str(fault) for fault in self.discovery.faults if fault.entry == entry]:
            return f"; {'skipped' if entry not in there else 'fault in'} {faults[0]}"
        if not entry or entry in there:
            return ""
        if why := self.discovery.left_out.get(entry):
            return f"; pack {entry!r} is installed, but {why}"
        if close := get_close_matches(entry, there, n=1, cutoff=0.6):
            return f"; pack {entry!r} is not installed; did you mean {close[0]!r}?"
        return f"; pack {entry!r} is not installed; pip install counterpoint-{entry.replace('_', '-')}"


def installed() -> Registry:
    """The registry of this environment, made once for each choice of packs in COUNTERPOINT_PACKS and _NO_PACKS."""
    return _installed(os.environ.get("COUNTERPOINT_NO_PACKS", ""), os.environ.get("COUNTERPOINT_PACKS", ""))


@functools.cache
def _installed(no_packs: str, only: str) -> Registry:
    return Registry(discovery.discover())


@functools.cache
def _core() -> Pack:
    try:
        version = metadata.version("counterpoint")
    except metadata.PackageNotFoundError:
        version = "(not installed)"
    return Pack("counterpoint", version, "", "counterpoint", builtin.TABLES)


def _qualified(component: Component) -> Component:
    name = f"{component.provider.distribution}/{component.name}"
    return Component(component.kind, name, component.target, component.provider)


def _providers(components: list[Component]) -> str:
    return " and ".join(str(component.provider) for component in components)


def _bare_constructors() -> set[Callable]:
    """Constructors of classes that define none; torch's takes *args, **kwargs only to refuse them."""
    nn = sys.modules.get("torch.nn")
    return {object.__init__, *([nn.Module.__init__] if nn else [])}


def _breach(parameter: inspect.Parameter, hints: dict[str, Any]) -> str | None:
    """Why a recipe could not name this parameter or check its value."""
    if parameter.kind is parameter.VAR_KEYWORD:
        return f"**{parameter.name} hides its parameters; name each"
    if parameter.kind is parameter.VAR_POSITIONAL:
        return f"*{parameter.name} has no names; use a list"
    if parameter.kind is not parameter.KEYWORD_ONLY:
        return f"parameter {parameter.name!r} is not keyword-only; put * before it"
    if parameter.name not in hints:
        return f"parameter {parameter.name!r} has no annotation"
    return "a parameter must not be called 'use'" if parameter.name == "use" else None


def _extras(hint: Any) -> Iterator[Any]:
    """Everything that Annotated adds, at the top or within a union."""
    yield from getattr(hint, "__metadata__", ())
    for part in typing.get_args(hint)[: None if typing.get_origin(hint) is not typing.Annotated else 1]:
        yield from _extras(part)
