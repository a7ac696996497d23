"""`counterpoint data [NAME ...]`: what data components need, and the one command that ever fetches any."""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from counterpoint.data import sources
from counterpoint.errors import ComponentError, CounterpointError, DataError, suggest
from counterpoint.packs import registry

KINDS = ("dataset", "reader", "encoder")  # kinds of components that may need data


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "names",
        metavar="NAME",
        nargs="*",
        help="a component, a recipe, or a package of the list; without any, list what there is",
    )


def run(args: argparse.Namespace) -> int:
    known = dict(_sources())
    if not args.names:
        return _list(known)
    wanted = dict.fromkeys(source for name in args.names for source in _wanted(name, known))
    for source in wanted:
        print(f"{source}: {source.fetch()}")
    if not wanted:
        print("nothing to fetch", file=sys.stderr)
    return 0


def _sources() -> Iterator[tuple[str, tuple[sources.Source, ...]]]:
    """Name and sources of every component that has some."""
    found = registry.installed()
    for kind in KINDS:
        for component in found.components(kind):
            try:
                needed = getattr(component.load(), "sources", ())
            except ComponentError:
                continue  # `counterpoint packs` tells why
            if needed:
                yield component.name, tuple(needed)


def _wanted(name: str, known: dict[str, tuple[sources.Source, ...]]) -> tuple[sources.Source, ...]:
    packages = {source.name: (source,) for needed in known.values() for source in needed}
    recipes = registry.installed().recipes()
    for table in (known, packages):
        if name in table:
            return table[name]
    if name in recipes or os.path.isfile(name):
        return _of_recipe(recipes.get(name, Path(name)))
    raise CounterpointError(
        f"no component, recipe or package {name!r} needs data{suggest(name, [*known, *packages, *recipes])}"
    )


def _of_recipe(path: Path) -> tuple[sources.Source, ...]:
    """What the components of a recipe need: their `sources`, or what `sources_of` says of their parameters."""
    from counterpoint.recipe import load

    found = []
    for call in load(path).calls():
        component = call.component.load()
        chosen = getattr(component, "sources_of", None)
        found += chosen(**call.params) if chosen else getattr(component, "sources", ())
    return tuple(found)


def _list(known: dict[str, tuple[sources.Source, ...]]) -> int:
    width = max(map(len, known), default=0)
    for name, needed in known.items():
        for source in needed:
            print(f"{name:<{width}}  {source}  {_state(source)}")
    print(f"cache: {sources.cache()}", file=sys.stderr)
    return 0


def _state(source: sources.Source) -> str:
    try:
        return f"in {source.find()}"
    except DataError:
        return "not here"
