"""The claims ledger: what a paper says of its objective, tried as a small experiment with several seeds on real data.

    python benchmarks/claims.py              runs what benchmarks/claims/results.json lacks, then writes the page
    python benchmarks/claims.py dcl gram     runs these claims again
    python benchmarks/claims.py --page       writes docs/claims.md from what is recorded

A claim (benchmarks/claims/*.yaml) names a task, the changes of its two arms, and the score that should differ. An arm
that several claims share runs once. The difference is taken seed by seed; its 95 % interval is Student's over the seeds.
Confirmed: the interval lies on the side that the paper says. Reversed: on the other. Else not seen.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml

HERE = Path(__file__).parent / "claims"
RESULTS = HERE / "results.json"
PAGE = Path(__file__).parents[1] / "docs" / "claims.md"
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}  # 97.5 %, seeds


def ledger() -> tuple[dict[str, dict], list[dict]]:
    """Tasks by name, and the claims in the order of their files."""
    files = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(HERE.glob("*.yaml"))]
    tasks = {name: task for file in files for name, task in file.get("tasks", {}).items()}
    return tasks, [claim for file in files for claim in file.get("claims", [])]


def runs_of(claim: dict, tasks: dict[str, dict]) -> dict[str, list[tuple]]:
    """arm -> what is to be run: (recipe, overrides, seed, scores), one a seed."""
    task = tasks[claim["task"]]
    shared = [*task.get("with", []), *claim.get("with", [])]
    seeds = claim.get("seeds", task.get("seeds", [0, 1, 2]))
    return {
        arm: [(task["recipe"], tuple(shared + changes), seed, task["score"]) for seed in seeds]
        for arm, changes in claim["arms"].items()
    }


def key_of(run: tuple) -> str:
    recipe, overrides, seed, score = run
    return f"{recipe} {' '.join(overrides)} seed={seed} -> {score}"


def value_of(run: tuple) -> tuple[str, float]:
    """Train and score one arm with one seed; NaN when it fails, with the reason on standard error."""
    import torch

    from counterpoint.errors import CounterpointError
    from counterpoint.fit.run import fit
    from counterpoint.fit.scoring import evaluate
    from counterpoint.recipe import load

    torch.set_num_threads(1)
    recipe_name, overrides, seed, score = run
    with tempfile.TemporaryDirectory() as folder:
        try:
            source, where = _source(recipe_name, Path(folder))
            recipe = load(source, [*overrides, *where, "baselines={}", "loggers=[]", f"seed={seed}"])
            records = evaluate(fit(recipe, root=Path(folder)), recipe)
        except CounterpointError as error:
            print(f"{key_of(run)}: {error}", file=sys.stderr)
            return key_of(run), float("nan")
    found = {r["metric"]: r["value"] for r in records if r["representation"] == "trained encoder"}
    return key_of(run), found[score]


def _source(recipe: str, folder: Path) -> tuple[str | Path, list[str]]:
    """An installed recipe's name, or one of the ledger's own and where its table is now."""
    own, table = HERE / "recipes" / recipe, folder / "xor.csv"
    if not own.is_file():
        return recipe, []
    table.write_text(exclusive_or(), encoding="utf-8")
    return own, [f"data.path={table}"]


def exclusive_or(bits: int = 3, times: int = 8) -> str:
    """Every pair of numbers of some bits and their exclusive or, each several times, as a table."""
    word = lambda number: " ".join(f"{number:0{bits}b}")  # noqa: E731
    pairs = [(a, b) for a in range(2**bits) for b in range(2**bits)]
    rows = [f"{word(a)},{word(b)},{word(a ^ b)},x{a ^ b}" for a, b in pairs]
    return "\n".join(["first,second,third,answer", *rows * times]) + "\n"


def run_all(wanted: list[tuple], values: dict[str, float]) -> None:
    """Run on every core, one thread each, and keep each value as soon as it is there."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(os.cpu_count() or 1, max(1, len(wanted))), maxtasksperchild=24) as pool:
        for key, value in pool.imap_unordered(value_of, wanted):
            if value == value:  # a failure is said, not kept: it is tried again the next time
                values[key] = value
                write(values)
            print(f"{value:.4f}  {key}", flush=True)


def write(values: dict[str, float]) -> None:
    import torch

    record = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "threads a run": 1},
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "values": dict(sorted(values.items())),
    }
    RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def verdict(claim: dict, arms: dict[str, list[float]]) -> dict[str, Any]:
    """Mean of both arms, the mean difference and its interval, and what that says of the claim."""
    better, than = [arms[name] for name in (claim["better"], claim["than"])]
    if not better or any(value != value for value in better + than):
        return {"verdict": "failed"}
    differences = [a - b for a, b in zip(better, than)]
    sign = -1 if claim.get("lower_is_better") else 1
    middle, n = mean(differences), len(differences)
    half = STUDENT[n] * stdev(differences) / n**0.5
    said = "confirmed" if sign * middle - half > 0 else "reversed" if sign * middle + half < 0 else "not seen"
    return {"better": mean(better), "than": mean(than), "difference": middle, "half": half, "n": n, "verdict": said}


def page(tasks: dict[str, dict], claims: list[dict], values: dict[str, float]) -> str:
    rows = []
    for claim in claims:
        arms = {arm: [values.get(key_of(run), float("nan")) for run in runs] for arm, runs in runs_of(claim, tasks).items()}  # fmt: skip
        found = verdict(claim, arms)
        if found["verdict"] == "failed":
            rows.append(f"| `{claim['key']}` | {claim['claim']} ({claim['paper']}) | {claim['task']} | - | - | - | not measured |")  # fmt: skip
            continue
        low, high = found["difference"] - found["half"], found["difference"] + found["half"]
        rows.append(
            f"| `{claim['key']}` | {claim['claim']} ({claim['paper']}) | {claim['task']} | {found['better']:.3f} | "
            f"{found['than']:.3f} | {found['difference']:+.3f} [{low:+.3f}, {high:+.3f}] | {found['verdict']} |"
        )
    told = [f"- **{name}**: {task['about']} Score: {task['score']}." for name, task in tasks.items()]
    return "\n".join([HEAD, *rows, "", "## Tasks", "", *told, ""])


HEAD = """# Claims ledger

What a paper claims of its objective, tried as a small experiment on real data: the same recipe, seed by seed, with one
part changed. Written by `python benchmarks/claims.py` from `benchmarks/claims/`; two cores, one thread a run. A small
experiment can fail to see what a large one shows: "not seen" says no more than that the interval holds zero. The interval is
Student's over the seeds (three unless the task says otherwise), which is wide. No arm was tuned: learning rate, epochs and
views are the task's, and temperatures those named or the papers', so "reversed" speaks of this setting.

| objective | claim | task | with it | without | difference, 95 % interval | |
|---|---|---|---|---|---|---|"""


def main(*words: str) -> None:
    tasks, claims = ledger()
    known = {key_of(run) for claim in claims for of_arm in runs_of(claim, tasks).values() for run in of_arm}
    stored = json.loads(RESULTS.read_text())["values"] if RESULTS.is_file() else {}
    values = {key: value for key, value in stored.items() if key in known}  # what a task once was is not kept
    if "--page" not in words:
        asked = [claim for claim in claims if not words or claim["key"] in words]
        runs = [run for claim in asked for of_arm in runs_of(claim, tasks).values() for run in of_arm]
        wanted = {key_of(run): run for run in runs if words or key_of(run) not in values}  # fmt: skip
        run_all(list(wanted.values()), values)
    PAGE.write_text(page(tasks, claims, values), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
