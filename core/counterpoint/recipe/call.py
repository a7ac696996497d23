"""A component that a recipe names, with its checked parameters: built when what the data knows is given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any

from counterpoint.errors import ComponentError, RecipeError
from counterpoint.recipe import values
from counterpoint.recipe.annotations import given_name, section_fields, structured
from counterpoint.recipe.mistakes import join, placed


@dataclass(eq=False)
class Call:
    """A component of a recipe.

    component  what the registry found: its kind, name, parameters and factory
    params     every parameter that the recipe or the component's defaults say; a nested component is a Call
    path       where in the recipe, as an override names it: `views.ecg[1]`
    where      `recipe.yaml:7`, or the override
    written    the parameters as the recipe spells them, where YAML cannot hold the checked value
    """

    component: Any
    params: dict[str, Any]
    path: str
    where: str
    written: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        return self.component.name

    @property
    def kind(self) -> str:
        return self.component.kind

    @property
    def at(self) -> str:
        """The head of a message about this component: `recipe.yaml:7: views.ecg[1]`."""
        return placed(self.where, self.path)

    def build(self, given: Mapping[str, Any] | None = None) -> Any:
        """The component, nested ones first, with the parameters marked `Given` taken from `given` unless set.

        RecipeError when one of those is neither set nor given and has no default, and when the factory raises
        ComponentError; both name the line and the path.
        """
        given = given or {}
        if problems := self.lacking(given):
            raise RecipeError(problems)
        params = {name: _built(value, given) for name, value in self.params.items()}
        params |= {name: given[source] for name, source in self._open().items() if source in given}
        try:
            return self.component.build(**params)
        except ComponentError as error:
            raise RecipeError([f"{self.at}: {error}"]) from error

    def of_split(self, split: str = "train") -> Any:
        """The dataset that this names, of a split; for training, as it is written. RecipeError for a stream."""
        found = (self if split == "train" else replace(self, params=self.params | {"split": split})).build()
        if hasattr(found, "stretches"):  # what is made of it would ask for its samples in another order
            raise RecipeError([f"{self.at}: {self.name!r} is a stream, of which no other dataset can be made"])
        return found

    def lacking(self, given: Mapping[str, Any]) -> list[str]:
        """What `build(given)` would miss, nested components included: one message each."""
        parameters = self.component.parameters()
        missing = [n for n, source in self._open().items() if parameters[n].required and source not in given]
        lines = [
            f"{placed(self.where, name)}: the data does not say it; add `{name}: ...`"
            for name in (join(self.path, name) for name in missing)
        ]
        return lines + [line for call in _calls(self.params) for line in call.lacking(given)]

    def _open(self) -> dict[str, str]:
        """Parameters that the recipe leaves to the data, with the names of what they ask for."""
        marked = {name: given_name(p.hint) for name, p in self.component.parameters().items()}
        return {name: source for name, source in marked.items() if source and name not in self.params}

    def __eq__(self, other: object) -> bool:
        """The same component with the same parameters, wherever it stands."""
        if not isinstance(other, Call):
            return NotImplemented
        mine, theirs = (self.kind, self.name, self.params), (other.kind, other.name, other.params)
        return values.same(mine, theirs)

    def __repr__(self) -> str:
        return f"Call({self.kind} {self.name!r}, {self.params})"


def all_calls(value: Any) -> Iterator[Call]:
    """Every Call in a value, from the outside in."""
    for call in _calls(value):
        yield call
        yield from all_calls(call.params)


def plain(value: Any, hint: Any = Any) -> Any:
    """A checked value of a recipe in the words of a recipe; ValueError when YAML cannot hold it."""
    if isinstance(value, Call):
        return {"use": value.name, **_plain_each(value.params, value.component.parameters(), value.written)}
    if is_dataclass(value) and not isinstance(value, type):
        keys = section_fields(type(value))
        return _plain_each({name: getattr(value, name) for name in keys}, keys, {})
    if not structured(hint):
        return values.plain(hint, value)
    if isinstance(value, dict):
        return {key: plain(item, hint) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, hint) for item in value]
    return values.plain(Any, value)


def _plain_each(params: dict[str, Any], parameters: Mapping[str, Any], written: Mapping[str, Any]) -> dict[str, Any]:
    """Each parameter in the words of a recipe; a default that YAML cannot hold is left out, and so stays the default."""
    result = {}
    for name, value in params.items():
        try:
            result[name] = plain(value, parameters[name].hint)
        except ValueError:
            if name in written:
                result[name] = written[name]
    return result


def _calls(value: Any) -> Iterator[Call]:
    """The outermost Calls in a value."""
    if isinstance(value, Call):
        yield value
    elif is_dataclass(value) and not isinstance(value, type):
        for name in section_fields(type(value)):
            yield from _calls(getattr(value, name))
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _calls(item)


def _built(value: Any, given: Mapping[str, Any]) -> Any:
    """The value with every Call in it built; containers without one are passed on as they are."""
    if isinstance(value, Call):  # what wraps a dataset may want several splits of it
        return value.of_split if value.kind == "dataset" else value.build(given)
    if not isinstance(value, dict | list | tuple) or next(_calls(value), None) is None:
        return value
    if isinstance(value, dict):
        return {key: _built(item, given) for key, item in value.items()}
    return type(value)(_built(item, given) for item in value)
