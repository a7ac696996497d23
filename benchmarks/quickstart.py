"""Runs a quickstart recipe with several seeds and records its scores beside the baselines, with machine and versions.

    python benchmarks/quickstart.py [ecg] [seeds]

Writes benchmarks/results/quickstart-<pack>.json and prints the mean over the seeds of every representation.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean

RESULTS = Path(__file__).parent / "results"


def run(pack: str, seed: int, folder: str) -> dict:
    """One run in a process of its own: its scores, its seconds, and what it was run with."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "counterpoint", "fit", f"{pack}/quickstart", f"seed={seed}", "--runs", folder]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    newest = max(Path(folder).glob("*/run.json"), key=lambda path: path.stat().st_mtime).parent
    facts = json.loads((newest / "run.json").read_text())
    spent = datetime.fromisoformat(facts["finished"]) - datetime.fromisoformat(facts["created"])
    return {
        "seed": seed,
        "wall_seconds": round(spent.total_seconds(), 1),
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "peak_memory_mib": round(after.ru_maxrss / 1024),
        "versions": facts["versions"],
        "scores": json.loads((newest / "scores.json").read_text()),
    }


def machine() -> dict:
    import torch

    return {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
    }


def main(pack: str = "ecg", seeds: str = "0,1,2") -> None:
    with tempfile.TemporaryDirectory() as folder:
        runs = [run(pack, int(seed), folder) for seed in seeds.split(",")]
    versions = runs[0].pop("versions")
    for other in runs[1:]:
        other.pop("versions")
    RESULTS.mkdir(exist_ok=True)
    record = {"recipe": f"{pack}/quickstart", "date": datetime.now(UTC).date().isoformat(), "machine": machine(), "versions": versions, "runs": runs}  # fmt: skip
    (RESULTS / f"quickstart-{pack}.json").write_text(json.dumps(record, indent=1) + "\n")
    print(table(record))


def table(record: dict) -> str:
    """Each representation's value a seed, and the mean."""
    rows = {}
    for one in record["runs"]:
        for score in one["scores"]:
            rows.setdefault((score["evaluator"], score["metric"], score["representation"]), []).append(score["value"])
    lines = [f"{'score':34}{'representation':20}{'mean':>7}  by seed"]
    for (evaluator, metric, representation), values in rows.items():
        each = " ".join(f"{value:.3f}" for value in values)
        lines.append(f"{evaluator + ': ' + metric:34}{representation:20}{mean(values):7.3f}  {each}")
    spent = [one["wall_seconds"] for one in record["runs"]]
    return "\n".join([*lines, f"seconds a run, scores included: {', '.join(map(str, spent))}"])


if __name__ == "__main__":
    main(*sys.argv[1:])
