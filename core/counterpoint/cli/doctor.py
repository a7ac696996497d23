"""`counterpoint doctor`: what is wrong with a recipe and its data, or with a run, and what to do about it."""

import argparse
import sys
from pathlib import Path


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", help="a recipe, a run's folder or name, or latest (the newest run)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes of a recipe")
    parser.add_argument("--samples", type=_count, metavar="N", help="most samples read of a split (default: 2048)")
    parser.add_argument(
        "--list", metavar="FILE", help="write the numbers of training samples that look planted, one a line"
    )
    parser.add_argument("--runs", metavar="DIR", default="runs", help="where run folders are (default: runs)")
    parser.epilog = (
        "Exit code: 0 when nothing serious is found, 1 when something is, 2 for a mistake in the recipe or the command."
    )


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"at least 2; got {text!r}")
    return int(text)


def run(args: argparse.Namespace) -> int:
    found = list(_of_run(args) if _is_run(args) else _of_recipe(args))
    for finding in sorted(found, key=lambda one: not one.serious):
        print(finding)
    if args.list:
        _write(args.list, sorted({number for finding in found for number in finding.samples}))
    return int(any(finding.serious for finding in found))


def _write(path: str, numbers: list[int]) -> None:
    from counterpoint.errors import CounterpointError

    try:
        Path(path).write_text("".join(f"{number}\n" for number in numbers), encoding="utf-8")
    except OSError as error:
        raise CounterpointError(f"doctor: --list: cannot write {path}: {error.strerror}") from None
    print(f"{len(numbers)} numbers of samples written to {path}", file=sys.stderr)


def _is_run(args: argparse.Namespace) -> bool:
    return args.what == "latest" or any(
        (Path(p) / "run.json").is_file() for p in (args.what, Path(args.runs) / args.what)
    )


def _of_run(args: argparse.Namespace):
    from counterpoint.doctor.run import check
    from counterpoint.errors import CounterpointError
    from counterpoint.runs.run import Run

    if args.overrides:
        raise CounterpointError(f"doctor: a run is as it is; overrides are for a recipe ({args.overrides[0]})")
    opened = Run.open(args.what, Path(args.runs))
    found = list(check(opened))
    _tell(f"{opened.folder} ({opened.state()})", found)
    return found


def _of_recipe(args: argparse.Namespace):
    from counterpoint.doctor.recipe import check
    from counterpoint.recipe import load

    recipe = load(args.what, args.overrides)
    looked, found = check(recipe, args.samples)
    _tell(f"{recipe.source}, looked at {looked}", found)
    return found


def _tell(what: str, found: list) -> None:
    print(f"{what}: {len(found) or 'no'} finding{'' if len(found) == 1 else 's'}", flush=True)
