"""Runs a quickstart recipe with several seeds and records its scores beside the baselines, with machine and versions.

    python benchmarks/quickstart.py ecg [0,1,2]
    python benchmarks/quickstart.py ecg runs/quickstart-1 runs/quickstart-2    records runs that were made before

Writes benchmarks/results/quickstart-<pack>.json, prints every representation's scores, and writes the tables of all packs
recorded so far: the headlines in the README, every score and what the runs took in docs/scores.md.
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

from page_blocks import write_blocks

RESULTS = Path(__file__).parent / "results"
SHOWN = {  # pack -> the scores of its quickstart that docs/scores.md shows; the first is the README's headline
    "ecg": ["accuracy"],
    "medical": ["accuracy"],
    "audio_text": ["audio->text/R@1", "audio->text/R@10", "text->audio/R@1", "text->audio/R@10"],
    "video": ["accuracy"],
    "code_search": ["text->code/MRR"],
    "points3d": ["shape->name/R@1", "shape->name/R@10"],
}
PACKS = {  # pack -> the files it reads, and what its quickstart trains on
    "ecg": ("WFDB, EDF, DICOM waveforms, tables, arrays", "venous pressure of 52 pigs: whose is it?"),
    "medical": ("NIfTI, DICOM series, PNG; reports", "one half of a brain: which area, in the other half?"),
    "audio_text": ("wav, flac, ogg, mp3; captions", "spoken prompts in five languages: which transcript?"),
    "video": ("mp4, avi, webm, ...", "game play as motion alone: which game?"),
    "code_search": ("source files, pairs, CodeSearchNet", "the standard library: which function?"),
    "points3d": ("OFF, OBJ, PLY, STL, LAS, arrays", "furniture: what is it called?"),
}
TRAINED = "trained encoder"


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
    write_blocks("headlines", "scores", "costs")


def found(record: dict, metric: str) -> dict[str, list[dict]]:
    """representation -> its scores of that metric, one a seed."""
    by_name: dict[str, list[dict]] = {}
    for score in (score for one in record["runs"] for score in one["scores"] if score["metric"] == metric):
        by_name.setdefault(score["representation"], []).append(score)
    return by_name


def rows(pack: str, record: dict) -> list[str]:
    """Lines of the table: every representation's mean, seeds and interval, of the scores that are shown."""
    lines = []
    for metric in SHOWN[pack]:
        name = f"{pack}: {metric}"
        for representation, scores in found(record, metric).items():
            each = ", ".join(f"{score['value']:.3f}" for score in scores)
            interval = f"{scores[0]['low']:.3f} to {scores[0]['high']:.3f}"
            lines.append(f"| {name} | {representation} | {mean_of(scores):.3f} | {each} | {interval} |")
            name = ""
    return lines


def mean_of(scores: list[dict]) -> float:
    return mean(score["value"] for score in scores)


def recorded() -> dict[str, dict]:
    """The records of the packs that have been run so far."""
    paths = {pack: RESULTS / f"quickstart-{pack}.json" for pack in SHOWN}
    return {pack: json.loads(path.read_text()) for pack, path in paths.items() if path.is_file()}


def headlines() -> str:
    """One line a pack: its files, its data, and its first score beside the highest of what is not the trained encoder."""
    records = recorded()
    seeds = " or ".join(sorted({str(len(record["runs"])) for record in records.values()}))
    score = f"held-out score, mean of {seeds} seeds"
    lines = [f"| pack | your files | `make quickstart PACK=...` trains on | {score} | trained | strongest baseline |", "|---|---|---|---|---|---|"]  # fmt: skip
    for pack, (files, data) in PACKS.items():
        cells = headline(pack, records[pack]) if pack in records else "not recorded | | "
        lines.append(f"| [`{pack}`](plugins/{pack}/README.md) | {files} | {data} | {cells} |")
    return "\n".join(lines) + "\n"


def headline(pack: str, record: dict) -> str:
    """Three cells of the table: the score's name, the trained encoder's mean, and the strongest baseline's."""
    metric = SHOWN[pack][0]
    means = {name: mean_of(scores) for name, scores in found(record, metric).items()}
    trained = means.pop(TRAINED)
    name = max(means, key=means.__getitem__)
    return f"{metric} | {trained:.3f} | {means[name]:.3f}, {name}"


def scores() -> str:
    """The table of every pack that has been recorded."""
    lines = ["| score on held-out data | representation | mean | each seed | 95 % interval, first seed |", "|---|---|---|---|---|"]  # fmt: skip
    return "\n".join([*lines, *(line for pack, record in recorded().items() for line in rows(pack, record))]) + "\n"


def costs() -> str:
    """What the runs took, and on what."""
    records = recorded()
    lines = ["| quickstart | CPU seconds a run, scores included | wall seconds | threads | peak memory, MiB |", "|---|---|---|---|---|"]  # fmt: skip
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
