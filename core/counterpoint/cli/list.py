"""`counterpoint list [kind]`: every component with what it is and who brings it; nothing is imported."""

import argparse

from counterpoint.cli.packs import warn
from counterpoint.cli.table import columns, shorten
from counterpoint.markers import KINDS
from counterpoint.packs import registry


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", nargs="?", metavar="KIND", help=f"one of {', '.join(KINDS)}")


def run(args: argparse.Namespace) -> int:
    found = registry.installed()
    singular = (args.kind or "").removesuffix("s")  # `list objectives`, too
    kinds = (
        [singular if singular in KINDS else args.kind] if args.kind else [kind for kind in KINDS if found.names(kind)]
    )
    for position, kind in enumerate(kinds):
        rows = [(c.name, shorten(c.summary), c.provider) for c in found.components(kind)]
        heading = f"{chr(10) if position else ''}{kind}\n" if len(kinds) > 1 else ""
        print(heading + (columns(rows, "  " if heading else "") or f"no {kind} is installed"))
    warn(found.discovery)
    return 0
