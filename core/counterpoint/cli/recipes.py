"""`counterpoint recipes`: installed recipes, each with its first comment line."""

import argparse
from pathlib import Path

from counterpoint.cli.packs import warn
from counterpoint.cli.table import columns
from counterpoint.packs import registry


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command has no arguments of its own."""


def run(args: argparse.Namespace) -> int:
    found = registry.installed()
    rows = [(name, _first_comment(path)) for name, path in found.recipes().items()]
    print(columns(rows) if rows else "no recipe is installed; recipes come with packs: counterpoint packs")
    warn(found.discovery)
    return 0


def _first_comment(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.lstrip("# ").rstrip() for line in lines if line.startswith("#")), "")
