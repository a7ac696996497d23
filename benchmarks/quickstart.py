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
    if pack == "ecg":
        _write_readme(record)


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


def _write_readme(record: dict) -> None:
    """The README's table, between its two markers."""
    path = Path(__file__).parents[1] / "README.md"
    before, begin, rest = path.read_text(encoding="utf-8").partition("<!-- benchmark: quickstart -->\n")
    _, end, after = rest.partition("<!-- end -->")
    path.write_text(before + begin + markdown(record) + end + after, encoding="utf-8")


def markdown(record: dict) -> str:
    """Mean and seeds of every representation, seed 0's interval, and what it was run on."""
    rows: dict[str, list[dict]] = {}
    for one in record["runs"]:
        for score in one["scores"]:
            rows.setdefault(score["representation"], []).append(score)
    lines = ["| 1-nearest neighbour by animal | mean | seeds 0, 1, 2 | 95 % interval, seed 0 |", "|---|---|---|---|"]
    for name, scores in rows.items():
        values = [score["value"] for score in scores]
        each = ", ".join(f"{value:.3f}" for value in values)
        lines.append(f"| {name} | {mean(values):.3f} | {each} | {scores[0]['low']:.3f} to {scores[0]['high']:.3f} |")
    runs, facts = record["runs"], record["machine"]
    spent = "/".join(f"{one['wall_seconds']:.0f}" for one in runs)
    peak = max(one["peak_memory_mib"] for one in runs)
    where = facts["gpu"] or f"{facts['cores']} {facts['processor']} cores, no GPU"
    lines += [
        "",
        f"{spent} seconds a run with its scores, {peak} MiB at most, on {where}; torch {record['versions']['torch']}.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(*sys.argv[1:])
