"""Injects the faults of the reliability table, and writes benchmarks/results/faults.json and its block in docs/reliability.md.

python benchmarks/faults.py [--rounds 10] [--processes 2]

The tests marked `fault` are run, the slow ones too; each injects --rounds times as many faults as in `make test`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from apart import versions
from page_blocks import write_blocks

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "faults.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "faults.json"
        command = [sys.executable, "-m", "pytest", "-m", "fault and not gpu", "-n", str(options.processes), "--dist", "loadgroup", "--faults-to", str(table)]  # fmt: skip
        done = subprocess.run(command, cwd=ROOT, env=os.environ | {"FAULT_ROUNDS": str(options.rounds)})
        record = {
            "date": datetime.now(UTC).date().isoformat(),
            "versions": versions(("counterpoint", "torch", "lightning")),
            **json.loads(table.read_text()),
        }
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")
    write_blocks("faults")
    return done.returncode


def markdown() -> str:
    """The table of what was recorded."""
    if not RESULTS.is_file():
        return "Not recorded yet.\n"
    record = json.loads(RESULTS.read_text())
    rows = [f"| {r['fault']} | {r['injected']:,} | {r['survived']:,} | {r['lost']:,} |" for r in record["rows"]]
    where = f"`make test-faults ROUNDS={record['rounds']}`, {record['date']}, torch {record['versions']['torch']}."
    return "\n".join(["| injected | how many | survived | lost |", "|---|---|---|---|", *rows, "", where]) + "\n"


if __name__ == "__main__":
    sys.exit(main())
