"""One walker for sections and components: every value against its annotation, every mistake with path and line.

1. A value without components or sections in its annotation goes to pydantic whole.
2. `Use(kind)` in an annotation makes the value a component: found in the registry, its parameters walked in turn.
3. A dataclass is a section: fixed keys, walked like parameters. Lists, mappings and unions are walked through.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args, get_origin

from counterpoint.errors import ComponentError, suggest
from counterpoint.markers import Use
from counterpoint.recipe import values
from counterpoint.recipe.annotations import (
    LISTS,
    MAPPINGS,
    Named,
    arms,
    bare,
    given_name,
    is_section,
    marker,
    section_fields,
    structured,
)
from counterpoint.recipe.call import Call
from counterpoint.recipe.mistakes import Mistakes, join, shown
from counterpoint.recipe.yaml import Node

MOST = 20  # unknown keys of one mapping that are reported one by one


@dataclass
class Walk:
    """Checks nodes against annotations. What it returns is complete only while `mistakes` is empty."""

    registry: Any
    mistakes: Mistakes = field(default_factory=Mistakes)

    def value(self, hint: Any, node: Node, path: str) -> Any:
        """The value that `hint` makes of `node`."""
        if not structured(hint):
            return self._leaf(hint, node, path)
        hint = self._arm(hint, node)
        if not structured(hint):
            return self._leaf(hint, node, path)
        if use := marker(hint, Use):
            return self.call(use.kind, node, path)
        if (named := marker(hint, Named)) and is_call(node):
            return {named.name: self.value(get_args(bare(hint))[1], node, path)}
        return self._inside(bare(hint), node, path)

    def call(self, kind: str, node: Node, path: str) -> Call | None:
        """The component that `node` names: a mapping with `use`, or the bare name."""
        entries = node.value if isinstance(node.value, dict) else {"use": node}
        named = entries.get("use")
        if named is None or not isinstance(named.value, str):
            return self._no_component(kind, named or node, path)
        try:
            component = self.registry.find(kind, named.value)
            parameters = component.parameters()
        except ComponentError as error:
            return self.mistakes.add(named.where, path, str(error))
        own = {name: child for name, child in entries.items() if name != "use"}
        params = self._each(parameters, own, node, path, f"{kind} {component.name!r}")
        written = {name: own[name].plain() for name in params if name in own}
        return Call(component, params, path, str(node.where), written)

    def section(self, cls: type, node: Node, path: str) -> Any:
        """The dataclass `cls` with the entries of `node`; None when one is wrong."""
        fields = section_fields(cls)
        if not isinstance(node.value, dict):
            wanted = f"a mapping with any of {', '.join(fields)}"
            return self.mistakes.add(node.where, path, f"expected {wanted}; got {_got(node)}")
        found = self._each(fields, node.value, node, path, path or "the recipe", getattr(cls, "REFUSED", {}))
        return cls(**found) if all(name in found or not f.required for name, f in fields.items()) else None

    def _each(
        self, parameters: Mapping, entries: Mapping, node: Node, path: str, owner: str, refused: Mapping = {}
    ) -> dict[str, Any]:
        """Values by name: entries checked, and the defaults of those that are absent."""
        unknown = [key for key in entries if key not in parameters]
        for key in unknown[:MOST]:
            reason = refused.get(key) or f"unknown key of {owner}{suggest(key, parameters)}"
            self.mistakes.add(entries[key].where, join(path, key), reason)
        if len(unknown) > MOST:
            self.mistakes.add(node.where, path, f"{len(unknown) - MOST} more unknown keys of {owner}")
        found = {}
        for name, parameter in parameters.items():
            if name in entries:
                found[name] = self.value(parameter.hint, entries[name], join(path, name))
            elif given_name(parameter.hint):
                continue
            elif parameter.required:
                self.mistakes.add(node.where, join(path, name), f"missing; {owner} needs it")
            else:
                found[name] = parameter.default
        return found

    def _inside(self, hint: Any, node: Node, path: str) -> Any:
        if is_section(hint):
            return self.section(hint, node, path)
        if get_origin(hint) in MAPPINGS:
            return self._mapping(get_args(hint)[1], node, path)
        if get_origin(hint) in LISTS:
            return self._list(hint, node, path)
        return self._leaf(hint, node, path)

    def _mapping(self, hint: Any, node: Node, path: str) -> dict | None:
        if not isinstance(node.value, dict):
            message = f"expected a mapping of names to {_words(hint)}; got {_got(node)}"
            return self.mistakes.add(node.where, path, message)
        return {key: self.value(hint, child, join(path, key)) for key, child in node.value.items()}

    def _list(self, hint: Any, node: Node, path: str) -> Any:
        if not isinstance(node.value, list):
            message = f"expected a list of {_words(get_args(hint)[0])}, as in [...]; got {_got(node)}"
            return self.mistakes.add(node.where, path, message)
        items = [self.value(get_args(hint)[0], child, f"{path}[{i}]") for i, child in enumerate(node.value)]
        return tuple(items) if get_origin(hint) is tuple else items

    def _arm(self, hint: Any, node: Node) -> Any:
        """The alternative of a union that has the shape of `node`; of those with components, the first."""
        alternatives = arms(hint)
        fitting = [arm for arm in alternatives if _fits(arm, node)]
        return (fitting or [arm for arm in alternatives if structured(arm)])[0]

    def _leaf(self, hint: Any, node: Node, path: str) -> Any:
        try:
            return values.check(hint, node, path, self.mistakes)
        except ComponentError as error:
            return self.mistakes.add(node.where, path, str(error))

    def _no_component(self, kind: str, node: Node, path: str) -> None:
        names = self.registry.names(kind)
        example = f"{{use: {next(iter(names), 'name')}, ...}}"
        self.mistakes.add(node.where, path, f"expected {_a(kind)}, as in {example}; got {_got(node)}")


def is_call(node: Node) -> bool:
    """True of what names one component: a mapping with `use`, or a bare name."""
    return isinstance(node.value, str) or (isinstance(node.value, dict) and "use" in node.value)


def _fits(hint: Any, node: Node) -> bool:
    if marker(hint, Use) or (marker(hint, Named) and is_call(node)):
        return is_call(node)
    hint = bare(hint)
    if hint is type(None):
        return node.value is None
    if get_origin(hint) in LISTS:
        return isinstance(node.value, list)
    if get_origin(hint) in MAPPINGS or is_section(hint):
        return isinstance(node.value, dict)
    return isinstance(hint, type) and isinstance(node.value, hint)


def _words(hint: Any) -> str:
    if use := marker(hint, Use):
        return f"{use.kind}s"
    inside = next((marker(part, Use) for part in get_args(bare(hint)) if marker(part, Use)), None)
    return f"lists of {inside.kind}s" if inside else "entries"


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _got(node: Node) -> str:
    if isinstance(node.value, dict):
        return f"a mapping of {', '.join(map(shown, list(node.value)[:4]))}" if node.value else "an empty mapping"
    return "a list" if isinstance(node.value, list) else shown(node.value)
