"""What the benchmarks share: a row in a process of its own, and what was installed when it ran."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any


def apart(script: str, *words: object) -> Any:
    """What `script --row WORDS` prints as JSON in its last line, on one thread; a sentence (str) when it cannot run."""
    command = [sys.executable, "-W", "ignore", script, "--row", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    last = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"ended with {done.returncode}"
    return "not installed" if "ModuleNotFoundError" in last else last[:120]


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """Python, and those of the distributions that are installed."""
    found = {"python": platform.python_version()}
    for name in distributions:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
