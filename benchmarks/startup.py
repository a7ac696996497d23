"""Seconds until the command line answers, and whether it imported torch to do so.

    python benchmarks/startup.py [--recipe ecg/quickstart]

`counterpoint --help`, `counterpoint list` and `counterpoint check RECIPE`, each in fresh interpreters, the least of
several: wall seconds, and CPU seconds, which other work on the machine changes less. Beside `check` stands what a bare
interpreter takes to import what the recipe's components import. Modules are compiled already, as in an installed package,
after the first of the repeats. The bare interpreter looks for garbage as it imports, which `check` does not, so that it may well
take less than its imports. Writes benchmarks/results/startup.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "startup.json"
REPEATS = 5
GOALS = {"--help": 0.15, "list": 0.3, "check": 0.3}  # seconds; of `check`, beyond the imports
RUN = "import sys; from counterpoint.cli import main; main({words!r})"


def interpreter(code: str, *options: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *options, "-c", code],
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | {"OMP_NUM_THREADS": "1"},
    )


def least(code: str) -> tuple[float, float]:
    """(wall, CPU) seconds of a fresh interpreter that runs `code`."""
    found = []
    for _ in range(REPEATS):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = interpreter(code)
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            sys.exit(f"{code}: {done.stderr.strip()[-1000:]}")
        found.append((wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))
    walls, cpus = zip(*found)
    return min(walls), min(cpus)


def imported(code: str) -> set[str]:
    """The modules that `code` has imported when it ends, of this project or not."""
    told = "import atexit, sys; atexit.register(lambda: print('\\n'.join(sys.modules), file=sys.stderr)); "
    return set(interpreter(told + code).stderr.split())


def others(code: str) -> str:
    """An interpreter's import of every package that `code` imports, but this project's: packages, in its order."""
    ours = "import sys; before = set(sys.modules); "
    told = (
        "import atexit; atexit.register(lambda: print(*[m for m in sys.modules if m not in before], file=sys.stderr)); "
    )
    names = interpreter(ours + told + code).stderr.split()
    wanted = [m for m in names if not m.startswith(("counterpoint", "_", "__")) and m != "main"]
    return f"import contextlib\nfor name in {wanted!r}:\n    with contextlib.suppress(Exception): __import__(name)"


def main(recipe: str) -> None:
    where = f"{platform.machine()}, one thread"
    print(
        f"least of {REPEATS}, on {where}\n{'':24}{'wall s':>8}{'CPU s':>8}{'imports':>9}{'beyond':>8}{'goal':>7}  torch"
    )
    rows = []
    for name, words in {"--help": ["--help"], "list": ["list"], "check": ["check", recipe]}.items():
        code = RUN.format(words=words)
        wall, cpu = least(code)
        row = {"command": " ".join(words), "wall_seconds": wall, "cpu_seconds": cpu, "goal": GOALS[name]}
        row["torch_imported"] = "torch" in imported(code)
        if name == "check":
            row["imports_cpu_seconds"] = least(others(code))[1]
            row["beyond_imports"] = cpu - row["imports_cpu_seconds"]
        rows.append(row)
        beyond = f"{row['imports_cpu_seconds']:9.2f}{row['beyond_imports']:8.2f}" if name == "check" else f"{'':17}"
        said = "imported" if row["torch_imported"] else "not imported"
        print(f"{row['command']:24}{wall:8.2f}{cpu:8.2f}{beyond}{row['goal']:7.2f}  {said}", flush=True)
    record = {
        "date": datetime.now(UTC).date().isoformat(), "machine": where, "recipe": recipe,
        "versions": {"torch": version("torch"), "python": platform.python_version()}, "rows": rows,
    }  # fmt: skip
    RESULTS.write_text(json.dumps({"cpu": record}, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="ecg/quickstart")
    main(parser.parse_args().recipe)
