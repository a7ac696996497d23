"""What the benchmarks share: rows in processes of their own, and what was installed when they ran."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any


def apart(script: str, *words: object) -> Any:
    """What `script --row WORDS` prints as JSON in its last line, on one thread; a sentence (str) when it cannot run."""
    done = subprocess.run(_row(script, words), capture_output=True, text=True, env=_one_thread())
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else _why(done.stderr, done.returncode)


def in_turns(script: str, rows: dict[str, Iterable[object]], turns: int) -> dict[str, list[float] | str]:
    """The seconds of every turn of every row, each in a process of its own; a sentence (str) for one that cannot run.

    A machine that is not always equally fast is so for all rows: one runs at a time, for a turn of a second or two at most,
    and each round of turns begins with the next row. The first two rounds, imports and warming up, are not counted.
    """
    with ExitStack() as stack:
        running = {}
        for name, words in rows.items():
            errors = stack.enter_context(tempfile.TemporaryFile("w+"))
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors}
            process = subprocess.Popen(_row(script, words), text=True, env=_one_thread(), **pipes)
            stack.callback(process.wait)
            stack.callback(process.kill)
            running[name] = (process, errors)
        found: dict[str, list[float] | str] = {name: [] for name in rows}
        order = list(rows)
        for number in range(turns + 2):
            for name in order:
                process, errors = running[name]
                if (seconds := _turn(process)) is None:
                    errors.seek(0)
                    found[name] = _why(errors.read(), process.wait())
                elif number > 1:
                    found[name].append(seconds)
            order = [name for name in order[1:] + order[:1] if not isinstance(found[name], str)]
    return found


def _turn(process: subprocess.Popen) -> float | None:
    with suppress(BrokenPipeError):
        process.stdin.write("go\n")
        process.stdin.flush()
    for line in process.stdout:
        if line.startswith("turn "):
            return float(line.removeprefix("turn "))
    return None


def quartiles(ours: list[float], theirs: list[float]) -> list[float]:
    """The quartiles of theirs over ours, turn by turn."""
    return statistics.quantiles([b / a for a, b in zip(ours, theirs, strict=True)], method="inclusive")


def _row(script: str, words: Iterable[object]) -> list[str]:
    return [sys.executable, "-W", "ignore", script, "--row", *map(str, words)]


def _one_thread() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


def _why(errors: str, code: int) -> str:
    last = errors.strip().splitlines()[-1] if errors.strip() else f"ended with {code}"
    return "not installed" if "ModuleNotFoundError" in last else last[:120]


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """Python, and those of the distributions that are installed."""
    found = {"python": platform.python_version()}
    for name in distributions:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
