"""`counterpoint evaluate`: score a trained run, also on other data or with other evaluators."""

import argparse
from pathlib import Path


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="a run folder, the name of one, or latest")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes, such as data.path=other.csv")
    parser.add_argument("--runs", metavar="DIR", default="runs", help="where run folders are (default: runs)")
    parser.add_argument("--json", action="store_true", help="print the scores as JSON")


def run(args: argparse.Namespace) -> int:
    import json

    from counterpoint.errors import CounterpointError
    from counterpoint.evaluate.table import render
    from counterpoint.fit.memory import keep_freed_memory
    from counterpoint.fit.scoring import evaluate, finish
    from counterpoint.recipe import load
    from counterpoint.runs.run import Run

    opened = Run.open(args.run, Path(args.runs))
    others = [text for text in args.overrides if not text.startswith(("data.", "evaluate", "baselines", "loader."))]
    if others:
        raise CounterpointError(
            f"evaluate: {', '.join(others)} would be another encoder than the trained one; "
            "overrides of data, evaluate, baselines and loader are taken"
        )
    recipe = load(opened.recipe, args.overrides)
    if not recipe.evaluate:
        raise CounterpointError(
            f"{opened.recipe}: there is nothing under `evaluate`; add evaluate=[{{use: knn, label: ...}}]"
        )
    keep_freed_memory()
    if not args.overrides and not args.json:
        print(finish(opened, recipe))
        return 0
    records = evaluate(opened, recipe)  # of other data or scores: printed, and the run's own scores kept
    print(json.dumps(records, indent=2) if args.json else render(records))
    return 0
