"""`counterpoint cp RECIPE [DEST]`: an own copy of an installed recipe, to edit."""

import argparse
import sys
from pathlib import Path

from counterpoint.errors import CounterpointError
from counterpoint.packs import registry


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="a name that `counterpoint recipes` lists")
    parser.add_argument("dest", metavar="DEST", nargs="?", default=".", help="file or folder (default: this folder)")


def run(args: argparse.Namespace) -> int:
    recipe = registry.installed().recipe(args.recipe)
    dest = Path(args.dest)
    dest = dest / recipe.name if dest.is_dir() else dest
    _copy(recipe, dest)
    print(dest)
    print(f"edit it, then: counterpoint fit {dest}", file=sys.stderr)
    return 0


def _copy(recipe: Path, dest: Path) -> None:
    try:
        with open(dest, "xb") as file:  # x: an existing file is never overwritten, not even one made meanwhile
            file.write(recipe.read_bytes())
    except FileExistsError:
        raise CounterpointError(f"{dest} exists and is not overwritten; name another file") from None
    except OSError as error:
        raise CounterpointError(f"{dest} cannot be written: {error.strerror}") from error
