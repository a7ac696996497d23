"""`counterpoint fit`: train from a recipe, or go on with a run."""

import argparse
import errno
import sys
from pathlib import Path

from counterpoint.errors import CounterpointError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recipe", nargs="?", help="a recipe file, or the name of an installed one (counterpoint recipes)"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes, such as objective.temperature=0.2")
    parser.add_argument("--resume", metavar="RUN", help="go on with a run: its folder, its name, or latest")
    parser.add_argument(
        "--allow-changes", action="store_true", help="with --resume: accept overrides that change the run"
    )
    parser.add_argument("--print-config", action="store_true", help="print the whole configuration and stop")
    parser.add_argument("--runs", metavar="DIR", default="runs", help="where run folders are made (default: runs)")


def run(args: argparse.Namespace) -> int:
    from counterpoint.cli.packs import warn
    from counterpoint.packs.registry import installed
    from counterpoint.recipe import load

    warn(installed().discovery)
    for line in installed().discovery.deprecated:
        print(f"deprecated: {line}", file=sys.stderr)
    if args.resume:
        return _resume(args)
    if not args.recipe:
        raise CounterpointError("fit: which recipe? `counterpoint recipes` lists those installed")
    recipe = load(args.recipe, args.overrides)
    if args.print_config:
        print(recipe.as_yaml(), end="")
        return 0
    return _train(recipe, Path(args.runs), None)


def _resume(args: argparse.Namespace) -> int:
    from counterpoint.runs.ranks import say
    from counterpoint.runs.resuming import resume
    from counterpoint.runs.run import Run

    overrides = [text for text in [args.recipe, *args.overrides] if text]
    opened = Run.open(args.resume, Path(args.runs))
    if opened.state() == "done" and opened.weights.is_file():
        say(
            f"{opened.folder} is done; a longer run is a new one: counterpoint fit {opened.recipe} trainer.max_epochs=..."
        )
        return 0
    return _train(resume(opened, overrides, args.allow_changes), Path(args.runs), opened, args.allow_changes)


def _train(recipe, root: Path, opened, allow_changes: bool = False) -> int:
    from counterpoint.data.loader import end_workers
    from counterpoint.errors import Stopped
    from counterpoint.fit.memory import keep_freed_memory
    from counterpoint.fit.run import fit
    from counterpoint.runs.interrupts import Interrupted, interruptible
    from counterpoint.runs.ranks import is_first_rank, say

    keep_freed_memory()
    try:
        with interruptible():
            done = fit(recipe, root=root, run=opened, allow_changes=allow_changes)
            return _score(done, recipe) if is_first_rank() else 0
    except Stopped as stop:
        say(f"{stop}; continue with: counterpoint fit --resume {stop.run or 'latest'}")
        return 128 + stop.signal
    except OSError as error:  # of what others write into the run folder, such as loggers
        if error.errno not in FULL:
            raise
        raise CounterpointError(f"cannot write {error.filename or 'the run'}: {error.strerror}") from error
    except Interrupted as stop:
        ended = f"at once; continue with: counterpoint fit --resume {stop.run}" if stop.run else _nothing_kept(opened)
        say(f"{stop} {ended}")
        return 128 + stop.signal
    finally:
        end_workers()


def _nothing_kept(opened) -> str:
    if opened is None:
        return "before the first checkpoint; nothing is kept"
    return f"before the first step; continue with: counterpoint fit --resume {opened.folder}"


def _score(done, recipe) -> int:
    from counterpoint.fit.scoring import finish
    from counterpoint.runs.interrupts import Interrupted

    kept = f"the encoder is trained and kept; score it with: counterpoint evaluate {done.folder}"
    try:
        print(finish(done, recipe))
        sys.stdout.flush()
        return 0
    except CounterpointError as error:
        raise CounterpointError(f"{error}\n{kept}") from error
    except Interrupted as stop:
        print(f"{stop}; {kept}", file=sys.stderr)
        return 128 + stop.signal
