"""One value against one annotation, by pydantic, with every mistake told in a line."""

from __future__ import annotations

import os
import re
import types
from collections.abc import Hashable, Mapping, Sequence
from enum import Enum
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic_core import PydanticCustomError, PydanticSerializationError

from counterpoint.errors import ComponentError, suggest
from counterpoint.recipe.mistakes import Mistakes, join, shown
from counterpoint.recipe.yaml import Node

EXPECTED = {
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "string": "a string",
    "list": "a list",
    "tuple": "a list",
    "set": "a list",
    "dict": "a mapping",
    "mapping": "a mapping",
    "none": "null",
    "finite": "a finite number",
    "path": "a path",
    "sequence": "a list",
}
MOST = 20  # wrong entries of one value that are reported
_adapters: dict[Hashable, TypeAdapter] = {}


def check(hint: Any, node: Node, path: str, mistakes: Mistakes) -> Any:
    """The value of `node` as `hint` wants it; each mistake is added with its own path and line.

    Lax as pydantic is (`64.0` and `"64"` are the integer 64, `no` is false where a boolean is wanted), but a boolean is
    never a number. ComponentError when the annotation is none that a recipe can hold.
    """
    value = node.plain()
    try:
        return adapter(hint).validate_python(value)
    except ValidationError as error:
        for place, messages in list(_deepest(error, value).items())[:MOST]:
            at, name = node, path
            for key in place:
                at, name = at.value[key], f"{name}[{key}]" if isinstance(key, int) else join(name, key)
            mistakes.add(at.where, name, _sentence(messages, at.plain()))
        return None
    except PydanticUserError as error:
        raise _unfit(hint) from error


def checked(hint: Any, value: Any, name: str) -> tuple[Any, list[str]]:
    """What a value given from Python is as `hint` wants it, and its mistakes in the words of a recipe's."""
    try:
        return adapter(hint).validate_python(value), []
    except ValidationError as error:
        places = list(_deepest(error, value).items())[:MOST]
        return value, [
            f"{''.join([name, *(f'[{key!r}]' for key in at)])}: {_sentence(m, _at(value, at))}" for at, m in places
        ]
    except PydanticUserError as error:
        raise _unfit(hint) from error


def _at(value: Any, place: tuple) -> Any:
    for key in place:
        value = value[key]
    return value


def adapter(hint: Any) -> TypeAdapter:
    """The validator of an annotation, made once."""
    if not _hashes(hint):
        return _adapter(hint)
    if hint not in _adapters:
        _adapters[hint] = _adapter(hint)
    return _adapters[hint]


def plain(hint: Any, value: Any) -> Any:
    """`value` as YAML can hold it, so that `check` gives it back; ValueError when that cannot be."""
    try:
        written = _simple(value)
    except TypeError:
        try:
            written = _simple(adapter(hint).dump_python(value, mode="json", warnings=False))
        except (PydanticSerializationError, TypeError) as error:
            raise ValueError(f"{shown(value)} cannot be written in YAML") from error
    if not same(adapter(hint).validate_python(written), value):  # a ValidationError is a ValueError
        raise ValueError(f"{shown(value)} is not read back from YAML as it was")
    return written


def same(a: Any, b: Any) -> bool:
    """Equal, NaN included; False when a value does not know."""
    try:
        return bool(a == b) or (a != a and b != b)
    except Exception:  # comparing arrays raises, whatever the error is
        return False


def _simple(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return _simple(value.value)
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, dict):
        return {_simple(key): _simple(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = [_simple(item) for item in value]
        return items if isinstance(value, list | tuple) else sorted(items, key=str)
    raise TypeError(type(value).__name__)


def _adapter(hint: Any) -> TypeAdapter:
    numeric = _without_booleans(hint)
    try:
        try:
            return TypeAdapter(numeric, config=ConfigDict(arbitrary_types_allowed=True))
        except PydanticUserError as error:
            if error.code != "type-adapter-config-unused":  # a TypedDict or model brings a configuration of its own
                raise
            return TypeAdapter(numeric)
    except (PydanticUserError, PydanticSchemaGenerationError) as error:
        raise _unfit(hint) from error


def _unfit(hint: Any) -> ComponentError:
    return ComponentError(f"the annotation {hint} is none that a recipe can hold")


def _hashes(hint: Any) -> bool:
    try:
        return hash(hint) is not None
    except TypeError:  # Annotated with an extra that has no hash
        return False


def _refuse_boolean(kind: type) -> BeforeValidator:
    def refuse(value: Any) -> Any:
        if isinstance(value, bool):
            raise PydanticCustomError(f"{kind.__name__}_type", "a boolean is not a number")
        return value

    return BeforeValidator(refuse)


_NUMBERS = {int: Annotated[int, _refuse_boolean(int)], float: Annotated[float, _refuse_boolean(float)]}


def _without_booleans(hint: Any) -> Any:
    """The annotation with every `int` and `float` in it refusing booleans, which python counts among the integers."""
    if isinstance(hint, type) and hint in _NUMBERS:
        return _NUMBERS[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return Annotated[(_without_booleans(arguments[0]), *arguments[1:])]
    if origin is Union or isinstance(hint, types.UnionType):
        return Union[tuple(_without_booleans(argument) for argument in arguments)]  # noqa: UP007
    if origin in (list, tuple, set, frozenset, dict, Sequence, Mapping):
        return origin[tuple(_without_booleans(argument) for argument in arguments)]
    return hint


def _deepest(error: ValidationError, value: Any) -> dict[tuple, list[dict]]:
    """Mistakes by place; of a union that failed at several depths, those of the arm that came furthest."""
    found: dict[tuple, list[dict]] = {}
    for mistake in error.errors(include_url=False):
        found.setdefault(_place(mistake["loc"], value), []).append(mistake)
    outer = {place[:depth] for place in found for depth in range(len(place))}
    return {place: mistakes for place, mistakes in found.items() if place not in outer}


def _place(loc: tuple, value: Any) -> tuple:
    """pydantic's location without the names of union arms that it puts between."""
    place: list[Any] = []
    for step in loc:
        inside = isinstance(value, dict) and step in value
        if inside or (isinstance(value, list) and isinstance(step, int) and step < len(value)):
            place.append(step)
            value = value[step]
    return tuple(place)


def _sentence(mistakes: list[dict], value: Any) -> str:
    for mistake in mistakes:
        if mistake["type"] == "value_error":
            return " ".join(str(mistake["ctx"]["error"]).split())
    if any(mistake["loc"][-1:] == ("[key]",) for mistake in mistakes):
        return f"expected {_expected(mistakes[0])} as the key"
    wanted = " or ".join(dict.fromkeys(_expected(mistake) for mistake in mistakes))
    return f"expected {wanted}, got {_got(value)}{_nearest(mistakes, value)}"


def _expected(mistake: dict) -> str:
    kind = mistake["type"]
    if kind == "is_instance_of":
        return f"a {mistake['ctx']['class']}"
    if kind == "missing":
        return "more entries"
    if kind in ("too_short", "too_long"):
        limit = mistake["ctx"]["min_length" if kind == "too_short" else "max_length"]
        return f"{'at least' if kind == 'too_short' else 'at most'} {limit} entries"
    if (word := kind.split("_")[0]) in EXPECTED and not kind.endswith(("_too_short", "_too_long", "_mismatch")):
        return EXPECTED[word]
    text = " ".join(mistake["msg"].split()).split(", unable")[0]
    text = text.removeprefix("Input should be ")
    return f"a number {text}" if text.startswith(("greater", "less")) else text


def _got(value: Any) -> str:
    if isinstance(value, dict):
        return f"a mapping ({', '.join(map(shown, list(value)[:3]))})" if value else "an empty mapping"
    return shown(value)


def _nearest(mistakes: list[dict], value: Any) -> str:
    texts = [mistake["ctx"]["expected"] for mistake in mistakes if mistake["type"] == "literal_error"]
    choices = re.findall(r"'([^']*)'", " ".join(texts))
    near = suggest(value, choices) if isinstance(value, str) and len(choices) > 1 else ""
    return near if "did you mean" in near else ""
