"""`counterpoint check-pack NAME`: everything that the core expects of a pack, with the line to mend."""

import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="an installed pack, as `counterpoint packs` lists it")


def run(args: argparse.Namespace) -> int:
    from counterpoint.testing.kit import examine

    report = examine(args.name)
    print(report)
    return 1 if report.findings else 0
