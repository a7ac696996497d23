"""`counterpoint runs`: list, compare and show runs, from plain files beside the project."""

import argparse
from pathlib import Path

from counterpoint.cli.table import columns
from counterpoint.errors import CounterpointError, RunError


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", default="ls", choices=["ls", "best", "show"], help="default: ls")
    parser.add_argument("what", nargs="?", help="best: a score, as ls and best name it; show: a run, or latest")
    parser.add_argument("--runs", metavar="DIR", default="runs", help="where run folders are (default: runs)")


def run(args: argparse.Namespace) -> int:
    from counterpoint.runs.run import all_runs

    found = all_runs(Path(args.runs))
    return {"ls": _ls, "best": _best, "show": _show}[args.action](args, found)


def _ls(args: argparse.Namespace, found: list) -> int:
    if not found:
        print(f"no run in {args.runs}")
        return 0
    rows = [["run", "state", "created", "recipe", "first score"]]
    for one in found:
        if one.state() == "damaged":
            rows.append([one.name, "damaged", "", "", ""])
            continue
        facts, scores = one.facts(), _scores(one)
        first = f"{_name(scores[0])} {scores[0]['value']:.3f}" if scores else ""
        rows.append([one.name, one.state(), facts.get("created", "")[:16], facts.get("recipe", ""), first])
    print(columns(rows))
    return 0


def _best(args: argparse.Namespace, found: list) -> int:
    from counterpoint.evaluate.table import TRAINED

    trained = [(one, s) for one in found for s in _scores(one) if s["representation"] == TRAINED]
    names = sorted({_name(s) for _, s in trained})
    wanted = [name for name in names if name == args.what] or [n for n in names if n.rpartition("/")[2] == args.what]
    if len(wanted) != 1:
        which = "which score?" if args.what is None else f"{args.what!r} names {len(wanted)} scores"
        raise CounterpointError(f"runs best: {which}; there are: {', '.join(wanted or names) or 'none'}")
    matching = [
        (s["value"] if s["higher_is_better"] else -s["value"], one, s) for one, s in trained if _name(s) == wanted[0]
    ]
    _, one, score = max(matching, key=lambda item: item[0])
    print(f"{one.folder}  {wanted[0]} {score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]")
    return 0


def _scores(one) -> list[dict]:
    try:
        return one.scores()
    except RunError:
        return []


def _name(score: dict) -> str:
    return f"{score['evaluator']}/{score['metric']}"


def _show(args: argparse.Namespace, found: list) -> int:
    from counterpoint.runs.run import Run

    one = Run.open(args.what or "latest", Path(args.runs))
    summary = one.folder / "summary.md"
    facts = one.facts()
    print(f"{one.folder}: {one.state()}, from {facts.get('recipe', '?')}, created {facts.get('created', '?')}")
    print("versions: " + ", ".join(f"{name} {version}" for name, version in facts.get("versions", {}).items()))
    if facts.get("error"):
        print(f"it failed: {facts['error']}")
    if one.state() in ("interrupted", "stopped", "failed"):
        print(f"not finished; continue with: counterpoint fit --resume {one.folder}")
    if summary.is_file():
        print(summary.read_text(encoding="utf-8").replace("```", ""))
    return 0
