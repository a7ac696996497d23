"""The command line: a table of commands, each in a file of its own that is imported when it is chosen.

A command's module has `arguments(parser)` and `run(args) -> int`. Results go to stdout, talk to stderr. Exit codes: 0;
2 for the user's own mistake; 130 after Ctrl-C; 141 when the reader of a pipe has gone.
"""

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Iterator, Sequence

from counterpoint.errors import CounterpointError, suggest

COMMANDS = {
    "fit": ("counterpoint.cli.fit", "train from a recipe"),
    "evaluate": ("counterpoint.cli.evaluate", "score a trained run"),
    "runs": ("counterpoint.cli.runs", "list, compare and show runs"),
    "merge": ("counterpoint.cli.merge", "average the weights of runs of one recipe"),
    "packs": ("counterpoint.cli.packs", "list installed packs and their faults"),
    "list": ("counterpoint.cli.list", "list components"),
    "show": ("counterpoint.cli.show", "show the parameters and documentation of a component"),
    "data": ("counterpoint.cli.data", "fetch the data that components need"),
    "recipes": ("counterpoint.cli.recipes", "list installed recipes"),
    "cp": ("counterpoint.cli.cp", "copy an installed recipe"),
    "check": ("counterpoint.cli.check", "check a recipe without training"),
    "doctor": ("counterpoint.cli.doctor", "look for faults in data, views or a run, with a remedy each"),
    "new-pack": ("counterpoint.cli.new_pack", "write a pack of your own to start from"),
    "check-pack": ("counterpoint.cli.check_pack", "check an installed pack, its components and its recipes"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    try:
        code = _run(sys.argv[1:] if argv is None else [*argv])  # `list` is a command's module here
        sys.stdout.flush()
        return code
    except CounterpointError as error:
        if os.environ.get("COUNTERPOINT_TRACEBACK"):  # for the author of a pack whose factory raises
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the exit flushes into the pipe again
        return 141


def _run(argv: list[str]) -> int:
    try:
        chosen = main_parser().parse_args(argv)
        if chosen.version:
            return _print_version()
        if chosen.command is None:
            main_parser().print_help()
            return 0
        command, args = _command(chosen.command, chosen.rest)
    except SystemExit as stop:  # argparse has printed help (0) or a usage error (2)
        return stop.code if isinstance(stop.code, int) else 2
    with _packs_switched_off(chosen.no_packs or args.no_packs):
        return command.run(args)


def main_parser() -> argparse.ArgumentParser:
    """The parser of the command line before a command is chosen."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    parser = argparse.ArgumentParser(
        prog="counterpoint",
        usage="counterpoint [--no-packs] COMMAND ...",
        description="Contrastive representation learning in any domain.",
        epilog="\n".join(["commands:", *lines, "", "counterpoint COMMAND --help shows the options of a command."]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="show the version and exit")
    _add_no_packs(parser)
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _command(name: str, rest: list[str]):
    """The module of a command and its parsed arguments."""
    if name not in COMMANDS:
        raise CounterpointError(f"unknown command {name!r}{suggest(name, COMMANDS)}")
    parser, module = parser_of(name)
    return module, parser.parse_intermixed_args(rest)  # options may stand between overrides


def parser_of(name: str):
    """The parser of a command, whose help the documentation shows, and the command's module."""
    path, text = COMMANDS[name]
    module = importlib.import_module(path)
    parser = argparse.ArgumentParser(prog=f"counterpoint {name}", description=f"{text[0].upper()}{text[1:]}.")
    _add_no_packs(parser)
    module.arguments(parser)
    return parser, module


def _add_no_packs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-packs", action="store_true", help="import no pack")


@contextlib.contextmanager
def _packs_switched_off(off: bool) -> Iterator[None]:
    """COUNTERPOINT_NO_PACKS is set meanwhile, so that processes started by the command look at no pack either."""
    before = os.environ.get("COUNTERPOINT_NO_PACKS")
    if off:
        os.environ["COUNTERPOINT_NO_PACKS"] = "1"
    try:
        yield
    finally:
        if off and before is None:
            del os.environ["COUNTERPOINT_NO_PACKS"]


def _print_version() -> int:
    from importlib import metadata

    print(f"counterpoint {metadata.version('counterpoint')}")
    return 0
