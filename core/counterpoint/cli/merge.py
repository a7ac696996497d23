"""`counterpoint merge`: average the weights of several runs of one recipe into a new run."""

import argparse
from pathlib import Path

from counterpoint.cli.table import columns


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="+", help="two run folders or more, the names of runs, or latest")
    parser.add_argument("--soup", choices=["greedy", "uniform"], default="greedy", help="which average is kept")
    parser.add_argument("--by", metavar="SCORE", help="the score that judges (default: the recipe's first)")
    parser.add_argument("--name", help="name of the new run (default: that of the first run and -soup)")
    parser.add_argument("--runs", metavar="DIR", default="runs", help="where run folders are (default: runs)")


def run(args: argparse.Namespace) -> int:
    from counterpoint.fit.memory import keep_freed_memory
    from counterpoint.fit.merging import merge
    from counterpoint.fit.scoring import finish
    from counterpoint.recipe import load
    from counterpoint.runs.ranks import say
    from counterpoint.runs.run import Run

    root = Path(args.runs)
    opened = [Run.open(name, root) for name in args.run]
    keep_freed_memory()
    if len(seeds := {str(one.facts().get("seed")) for one in opened}) > 1:
        say(
            f"note: the runs have different seeds ({', '.join(sorted(seeds))}): encoders that were not pretrained began "
            "at different weights, and their average is seldom better than any of them"
        )
    merged = merge(opened, soup=args.soup, by=args.by, name=args.name, root=root)
    rows = [[one.title, f"{one.value:.3f}"] for one in merged.tried]
    print(columns([[f"judged on {merged.judged_on}", merged.by or ""], *rows]))
    members = ", ".join(str(opened[k].folder) for k in merged.kept.members)
    print(f"kept: {merged.kept.title}, of {members}\n")
    print(finish(merged.run, load(merged.run.recipe)))
    return 0
