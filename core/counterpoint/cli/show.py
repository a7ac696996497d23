"""`counterpoint show NAME`: a component's parameters, one a line, and its documentation."""

import argparse
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from counterpoint.cli.table import columns
from counterpoint.errors import ComponentError, suggest
from counterpoint.markers import KINDS, Use
from counterpoint.packs import registry
from counterpoint.packs.registry import Component, Parameter, Registry


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="as in a recipe: info_nce, ecg.inception_time")
    parser.add_argument(
        "--kind", metavar="KIND", help=f"one of {', '.join(KINDS)}; needed when two kinds have the name"
    )


def run(args: argparse.Namespace) -> int:
    component = _find(registry.installed(), args.name, args.kind)
    parameters = component.parameters().values()
    print(f"{component.kind} {component.name}  ({component.provider}, {component.target})")
    print(f"\n{columns([_row(p) for p in parameters], '  ') if parameters else '  no parameters'}")
    if component.doc:
        print(f"\n{component.doc}")
    return 0


def _find(found: Registry, name: str, kind: str | None) -> Component:
    if kind:
        return found.find(kind, name)
    kinds = [k for k in KINDS if _bare(name) in map(_bare, found.names(k))]
    kinds = kinds or [k for k in KINDS if found.knows(k, name)]
    if len(kinds) == 1:
        return found.find(kinds[0], name)
    if kinds:
        raise ComponentError(f"{name!r} is the name of several components; add --kind {' or --kind '.join(kinds)}")
    raise ComponentError(_unknown(found, name))


def _bare(name: str) -> str:
    return name.rpartition("/")[2]


def _unknown(found: Registry, name: str) -> str:
    """The message that says most: of a pack that is absent or broken, else the nearest name of any kind."""
    prefix, dot, _ = _bare(name).partition(".")
    absent = found.absent(prefix) if dot else ""
    return f"unknown component {name!r}{absent or suggest(name, [n for kind in KINDS for n in found.names(kind)])}"


def _row(parameter: Parameter) -> tuple[str, str, str]:
    default = "required" if parameter.required else repr(parameter.default)
    if parameter.given:
        default = "from the data" if parameter.required else f"from the data, else {default}"
    return parameter.name, spell(parameter.hint), default


def spell(hint: Any) -> str:
    """A type as a person would write it: `int | None`, `'mean' | 'max'`, `list of view`."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        nested = next((extra.kind for extra in parts[1:] if isinstance(extra, Use)), None)
        return nested or spell(parts[0])
    if origin is Literal:
        return " | ".join(map(repr, parts))
    if origin in (Union, types.UnionType):
        return " | ".join(map(spell, parts))
    if origin:
        return f"{spell(origin)}[{', '.join('...' if part is ... else spell(part) for part in parts)}]"
    return "None" if hint is types.NoneType else getattr(hint, "__name__", str(hint))
