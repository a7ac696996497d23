"""`counterpoint packs`: what is installed, and what is wrong with it."""

import argparse
import sys
from collections.abc import Sequence

from counterpoint.cli.table import columns
from counterpoint.packs import contract, registry
from counterpoint.packs.discovery import Discovery, Fault, Pack, dead_targets

SHOWN = 5  # faults that other commands mention


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command has no arguments of its own."""


def run(args: argparse.Namespace) -> int:
    from counterpoint.packs import requirements

    discovery = registry.installed().discovery
    faults = [*discovery.faults, *dead_targets(discovery)]
    if discovery.packs:
        print(_table(discovery.packs))
    else:
        print(
            "no pack is in use"
            if faults or discovery.left_out
            else "no pack is installed; try: pip install counterpoint-ecg"
        )
    for name, why in discovery.left_out.items():
        print(f"left out: {name}: {why}")
    if discovery.deprecated:
        print("\ndeprecated:")
        print("\n".join(f"  {line}" for line in discovery.deprecated))
    if found := requirements.clashes(_looked_at(discovery)):
        print(f"\n{len(found)} requirement{'s' if len(found) > 1 else ''} not met:")
        print("\n".join(f"  {line}" for line in found))
    if faults:
        print(f"\n{len(faults)} fault{'s' if len(faults) > 1 else ''}:")
        print("\n".join(map(_paragraph, faults)))
    return 0


def _looked_at(discovery: Discovery) -> list[str]:
    """The core, and every distribution with a pack that is in use or faulty."""
    return [
        "counterpoint",
        *(pack.distribution for pack in discovery.packs),
        *(f.distribution for f in discovery.faults),
    ]


def warn(discovery: Discovery) -> None:
    """The faults in short on stderr, for commands that go on without what is broken."""
    whole = {(pack.distribution, pack.entry) for pack in discovery.packs}
    for fault in discovery.faults[:SHOWN]:
        what = "fault in" if (fault.distribution, fault.entry) in whole else "skipped"
        print(f"{what} {fault.distribution} {fault.version}: {fault.problem}", file=sys.stderr)
    if more := len(discovery.faults):
        more = f"{more - SHOWN} more; " if more > SHOWN else ""
        print(f"{more}counterpoint packs shows where and what to do", file=sys.stderr)


def _table(found: Sequence[Pack]) -> str:
    kinds = list(contract.KINDS.values())
    rows = [["pack", "distribution", "version", *(f"{kind}s" for kind in kinds), "recipes"]]
    for pack in found:
        counts = [len(pack.tables.get(kind, ())) for kind in kinds]
        recipes = len(list(pack.recipes.glob("*.yaml"))) if pack.recipes else 0
        rows.append([pack.entry, pack.distribution, pack.version, *counts, recipes])
    return columns(rows)


def _paragraph(fault: Fault) -> str:
    return (
        f"  {fault.distribution} {fault.version} (pack {fault.entry!r}): {fault.problem}\n"
        f"    {f'at {fault.where}; ' if fault.where else ''}{fault.remedy}"
    )
