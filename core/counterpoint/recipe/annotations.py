"""What an annotation says beside its type: the markers in it, its arms, and whether components stand inside."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from counterpoint.markers import Given, Use

LISTS = (list, tuple, Sequence, Iterable)
MAPPINGS = (dict, Mapping)
Marker = TypeVar("Marker")


@dataclass(frozen=True)
class Named:
    """A mapping of names to components for which one component alone may stand: it gets this name."""

    name: str


class Field(NamedTuple):
    """A field of a section, with the attributes that a component's parameter has; required: default is None."""

    name: str
    hint: Any
    default: Any
    required: bool


def marker(hint: Any, kind: type[Marker]) -> Marker | None:
    """The marker of this kind that stands directly in the annotation."""
    extras = hint.__metadata__ if get_origin(hint) is Annotated else ()
    return next((extra for extra in extras if isinstance(extra, kind)), None)


def given_name(hint: Any) -> str | None:
    """What the data or the model may fill a parameter with this annotation with, if anything."""
    marks = [marker(arm, Given) for arm in (hint, *arms(hint))]
    return next((mark.name for mark in marks if mark), None)


def bare(hint: Any) -> Any:
    """The annotation without its markers."""
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def arms(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a union; of another annotation, itself."""
    inside = bare(hint)
    union = get_origin(inside) is Union or isinstance(inside, types.UnionType)
    return get_args(inside) if union else (hint,)


def structured(hint: Any) -> bool:
    """True when a component or a section may stand somewhere in a value with this annotation."""
    if marker(hint, Use):
        return True
    hint = bare(hint)
    inside = get_args(hint) if get_origin(hint) is not None or isinstance(hint, types.UnionType) else ()
    return is_section(hint) or any(structured(part) for part in inside if not isinstance(part, list))


def is_section(hint: Any) -> bool:
    """True of a dataclass: a mapping with fixed keys."""
    return isinstance(hint, type) and is_dataclass(hint)


@cache
def section_fields(cls: type) -> dict[str, Field]:
    """The keys of a section, by name; a field marked `metadata={"key": False}` is not one."""
    hints = get_type_hints(cls, include_extras=True)
    return {f.name: _field(f, hints[f.name]) for f in fields(cls) if f.init and f.metadata.get("key", True)}


def _field(f: Any, hint: Any) -> Field:
    default = f.default if f.default_factory is MISSING else f.default_factory()
    return Field(f.name, hint, None if default is MISSING else default, default is MISSING)
