"""Runs a quickstart recipe with several seeds and records its scores beside the baselines, with machine and versions.

    python benchmarks/quickstart.py ecg [0,1,2]
    python benchmarks/quickstart.py ecg runs/quickstart-1 runs/quickstart-2    records runs that were made before

Writes benchmarks/results/quickstart-<pack>.json, prints every representation's scores, and writes the README's table of
all packs recorded so far.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean

from readme import write_block

RESULTS = Path(__file__).parent / "results"
SHOWN = {  # pack -> the scores of its quickstart that the README shows
    "ecg": ["accuracy"],
    "medical": ["accuracy"],
    "audio_text": ["audio->text/R@1", "audio->text/R@10", "text->audio/R@1", "text->audio/R@10"],
    "video": ["accuracy"],
    "code_search": ["text->code/MRR"],
    "points3d": ["shape->name/R@1", "shape->name/R@10"],
}


def run(pack: str, seed: int, folder: str) -> dict:
    """One run in a process of its own."""
    command = [sys.executable, "-m", "counterpoint", "fit", f"{pack}/quickstart", f"seed={seed}", "--runs", folder]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return of_run(max(Path(folder).glob("*/run.json"), key=lambda path: path.stat().st_mtime).parent)


def of_run(folder: Path) -> dict:
    """A finished run: its scores, its seconds, and what it was run with; None: not recorded."""
    facts = json.loads((folder / "run.json").read_text())
    wall = datetime.fromisoformat(facts["finished"]) - datetime.fromisoformat(facts["created"])
    return {
        "seed": facts["seed"],
        "wall_seconds": round(wall.total_seconds(), 1),
        "cpu_seconds": facts.get("cpu_seconds"),
        "peak_memory_mib": facts.get("peak_memory_mib"),
        "threads": facts["torch_threads"],
        "versions": facts["versions"],
        "scores": json.loads((folder / "scores.json").read_text()),
    }


def machine() -> dict:
    import torch

    return {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
    }


def main(pack: str = "ecg", *what: str) -> None:
    if what and not what[0].replace(",", "").isdigit():
        runs = sorted((of_run(Path(folder)) for folder in what), key=lambda one: one["seed"])
    else:
        with tempfile.TemporaryDirectory() as folder:
            runs = [run(pack, int(seed), folder) for seed in (what[0] if what else "0,1,2").split(",")]
    versions, *_ = [one.pop("versions") for one in runs]
    RESULTS.mkdir(exist_ok=True)
    record = {"recipe": f"{pack}/quickstart", "date": datetime.now(UTC).date().isoformat(), "machine": machine(), "versions": versions, "runs": runs}  # fmt: skip
    (RESULTS / f"quickstart-{pack}.json").write_text(json.dumps(record, indent=1) + "\n")
    print("\n".join(rows(pack, record)))
    write_block("quickstart", markdown())


def rows(pack: str, record: dict) -> list[str]:
    """Lines of the table: every representation's mean, seeds and interval, of the scores that are shown."""
    found: dict[tuple[str, str], list[dict]] = {}
    for one in record["runs"]:
        for score in one["scores"]:
            if score["metric"] in SHOWN[pack]:
                found.setdefault((score["metric"], score["representation"]), []).append(score)
    lines, last = [], None
    for (metric, representation), scores in sorted(found.items(), key=lambda item: SHOWN[pack].index(item[0][0])):
        values = [score["value"] for score in scores]
        name = f"{pack}: {metric}" if metric != last else ""
        each = ", ".join(f"{value:.3f}" for value in values)
        interval = f"{scores[0]['low']:.3f} to {scores[0]['high']:.3f}"
        lines.append(f"| {name} | {representation} | {mean(values):.3f} | {each} | {interval} |")
        last = metric
    return lines


def markdown() -> str:
    """The table of every pack that has been recorded, and what the runs took."""
    records = {
        pack: json.loads(p.read_text()) for pack in SHOWN if (p := RESULTS / f"quickstart-{pack}.json").is_file()
    }
    lines = ["| score on held-out data | representation | mean | each seed | 95 % interval, first seed |", "|---|---|---|---|---|"]  # fmt: skip
    lines += [line for pack, record in records.items() for line in rows(pack, record)]
    lines += [
        "",
        "| quickstart | CPU seconds a run, scores included | wall seconds | threads | peak memory, MiB |",
        "|---|---|---|---|---|",
    ]
    for pack, record in records.items():
        runs = record["runs"]
        cells = [", ".join("-" if one[key] is None else f"{one[key]:.0f}" for one in runs) for key in ("cpu_seconds", "wall_seconds")]  # fmt: skip
        peak = max((one["peak_memory_mib"] for one in runs if one["peak_memory_mib"]), default="-")
        lines.append(f"| {pack} | {cells[0]} | {cells[1]} | {runs[0]['threads']} | {peak} |")
    facts = next(iter(records.values()))
    where = facts["machine"]["gpu"] or f"{facts['machine']['cores']} {facts['machine']['processor']} cores, no GPU"
    shared = "Where wall seconds are far above CPU seconds divided by threads, the machine had other work, too."
    return "\n".join([*lines, "", f"On {where}; torch {facts['versions']['torch']}. {shared}"]) + "\n"


if __name__ == "__main__":
    main(*sys.argv[1:])
