"""`counterpoint runs`: list, compare and show runs, from plain files beside the project."""

import argparse
from pathlib import Path

from counterpoint.cli.table import columns
from counterpoint.errors import CounterpointError


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", default="ls", choices=["ls", "best", "show"], help="default: ls")
    parser.add_argument("what", nargs="?", help="best: a metric, such as knn/accuracy; show: a run, or latest")
    parser.add_argument("--runs", metavar="DIR", default="runs", help="where run folders are (default: runs)")


def run(args: argparse.Namespace) -> int:
    from counterpoint.run import all_runs

    found = all_runs(Path(args.runs))
    return {"ls": _ls, "best": _best, "show": _show}[args.action](args, found)


def _ls(args: argparse.Namespace, found: list) -> int:
    if not found:
        print(f"no run in {args.runs}")
        return 0
    rows = [["run", "state", "created", "recipe", "first score"]]
    for one in found:
        facts, scores = one.facts(), one.scores()
        first = f"{scores[0]['metric']} {scores[0]['value']:.3f}" if scores else ""
        rows.append([one.name, facts.get("state", "?"), facts.get("created", "")[:16], facts.get("recipe", ""), first])
    print(columns(rows))
    return 0


def _best(args: argparse.Namespace, found: list) -> int:
    from counterpoint.evaluate.table import TRAINED

    trained = [(one, s) for one in found for s in one.scores() if s["representation"] == TRAINED]
    names = sorted({s["metric"] for _, s in trained})
    matching = [
        (s["value"] if s["higher_is_better"] else -s["value"], one, s) for one, s in trained if s["metric"] == args.what
    ]
    if not matching:
        raise CounterpointError(f"runs best: no score named {args.what!r}; there are: {', '.join(names) or 'none'}")
    _, one, score = max(matching, key=lambda item: item[0])
    print(f"{one.folder}  {score['metric']} {score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]")
    return 0


def _show(args: argparse.Namespace, found: list) -> int:
    from counterpoint.run import Run

    one = Run.open(args.what or "latest", Path(args.runs))
    summary = one.folder / "summary.md"
    facts = one.facts()
    print(
        f"{one.folder}: {facts.get('state', '?')}, from {facts.get('recipe', '?')}, created {facts.get('created', '?')}"
    )
    print("versions: " + ", ".join(f"{name} {version}" for name, version in facts.get("versions", {}).items()))
    if facts.get("state") == "training":
        print(f"not finished; continue with: counterpoint fit --resume {one.folder}")
    if summary.is_file():
        print(summary.read_text(encoding="utf-8").replace("```", ""))
    return 0
