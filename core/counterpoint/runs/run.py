"""The run folder: one run's recipe, versions, metrics, checkpoints, scores and encoder. Two runs never share one.

runs/quickstart-1/
  recipe.yaml           the whole configuration; loads again
  run.json              versions of every distribution used, what the data said, device, state
  data.json             the files and columns that the run was begun with
  metrics.csv           step, epoch, name, value: appended, never rewritten
  timings.csv           the same, of what no two runs have alike: the share of the time without data
  checkpoints/          step-00000120.ckpt ...: the newest two of each stage
  stages/first.safetensors  the towers as each stage but the last left them
  encoder.safetensors   the trained towers
  similarity.safetensors  what the objective's own similarity has learned, if anything
  text.tokenizer.json   what the encoder of a modality needs beside its weights, if anything
  scores.json           every score with its interval and baselines
  summary.md            for a person
"""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from counterpoint.errors import RunError, suggest
from counterpoint.runs import atomic

ROOT = Path("runs")


class Run:
    """A run folder, new or opened again."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self._lock = None

    @classmethod
    def create(cls, name: str, root: Path = ROOT) -> Run:
        """A folder of its own: NAME-1, NAME-2, ...; taken by an atomic mkdir."""
        try:
            root = root.expanduser()
            root.mkdir(parents=True, exist_ok=True)
            taken = [int(m[1]) for p in root.iterdir() if (m := re.fullmatch(re.escape(name) + r"-(\d+)", p.name))]
            for number in range(max(taken, default=0) + 1, 100_000):
                with suppress(FileExistsError):
                    (root / f"{name}-{number}").mkdir()
                    return cls(root / f"{name}-{number}")
        except OSError as error:
            raise RunError(f"cannot write the run folder in {root}: {error.strerror}") from None
        raise RunError(f"no free run folder for {name!r} in {root}")

    @classmethod
    def open(cls, name: str | Path, root: Path = ROOT) -> Run:
        """The run in a folder, named by its path, by its name in `runs/`, or `latest`."""
        for folder in (Path(name), root / name):
            if (folder / "run.json").is_file():
                return cls(folder)
        runs = all_runs(root)
        if str(name) == "latest" and runs:
            return runs[-1]
        if str(name) == "latest":
            raise RunError(f"there is no run in {root.resolve()}")
        raise RunError(f"{name}: no run there{suggest(Path(name).name, [run.name for run in runs])}")

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def recipe(self) -> Path:
        return self.folder / "recipe.yaml"

    @property
    def weights(self) -> Path:
        return self.folder / "encoder.safetensors"

    @property
    def similarity(self) -> Path:
        return self.folder / "similarity.safetensors"

    def logs(self) -> tuple[MetricsFile, MetricsFile]:
        """metrics.csv and timings.csv."""
        return MetricsFile(self.folder / "metrics.csv"), MetricsFile(self.folder / "timings.csv")

    def checkpoints(self, stage: str = "train") -> Path:
        return self.folder / "checkpoints" if stage == "train" else self.folder / "checkpoints" / stage

    def stage(self, name: str) -> Path:
        return self.folder / "stages" / f"{name}.safetensors"

    def lock(self) -> Run:
        """Hold the folder until the process ends; RunError when another process trains in it."""
        import fcntl

        self._lock = (self.folder / ".lock").open("a")
        try:
            # A lock of the process, not of the open file: that one is inherited by reading workers, and stays with
            # them for seconds after the process was killed.
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(f"{self.folder}: another process is training in this run") from None
        return self

    def _is_locked(self) -> bool:
        """Whether another process holds the folder."""
        import fcntl

        try:
            with (self.folder / ".lock").open("a") as file:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def write(self, name: str, text: str) -> None:
        """Write a small file so that a reader sees the old one or the new one, never a part."""
        atomic.write(self.folder / name, text)

    def discard(self) -> None:
        """Take the folder away."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def state(self) -> str:
        """done, trained, stopped, failed, training while a process holds the folder, or interrupted, or damaged."""
        try:
            state = str(self.facts().get("state", "?"))
        except RunError:
            return "damaged"
        return "interrupted" if state == "training" and not self._is_locked() else state

    def note(self, **facts) -> None:
        """Add facts to run.json."""
        self.write("run.json", json.dumps(self.facts() | facts, indent=2, default=str) + "\n")

    def facts(self) -> dict:
        return self.read("run.json", {})

    def scores(self) -> list[dict]:
        return self.read("scores.json", [])

    def read(self, name: str, absent):
        """What a file of the folder holds; RunError when that is not what this project wrote."""
        try:
            found = json.loads((self.folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return absent
        except ValueError:
            found = None
        if type(found) is not type(absent):
            raise RunError(f"{self.folder / name} is damaged: it is not what a run writes")
        return found


def all_runs(root: Path = ROOT) -> list[Run]:
    """Every run under `root`, oldest first; damaged ones come first of all."""
    found = [Run(path.parent) for path in root.glob("*/run.json")]
    return sorted(found, key=lambda run: (_created(run), run.name))


def open_trained(name: str, root: Path = ROOT) -> Run:
    """`latest` is the last run that has an encoder: of the run that asks, other ranks may see the folder already."""
    trained = [run for run in all_runs(root) if run.weights.is_file()]
    return trained[-1] if name == "latest" and trained else Run.open(name, root)


def _created(run: Run) -> str:
    try:
        return str(run.facts().get("created", ""))
    except RunError:
        return ""


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def versions(distributions) -> dict[str, str]:
    """name -> installed version of every distribution that a run depends on."""
    from importlib import metadata

    found = {}
    for name in sorted({"counterpoint", "torch", "lightning", "numpy", *distributions}):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


class MetricsFile:
    """metrics.csv or timings.csv, one row a value; after a resume, rows beyond the step resumed from are dropped first."""

    FIELDS = ("step", "epoch", "name", "value")

    def __init__(self, path: Path):
        self.path = path

    def cut(self, step: int) -> None:
        """Forget what was logged after `step` batches."""
        if not self.path.is_file():
            return
        with self.path.open(newline="", encoding="utf-8", errors="replace") as file:
            text = file.read()
        whole = text[: text.rfind("\n") + 1]  # the last row may have been cut off, and look like a whole one
        rows = [row for row in csv.reader(whole.splitlines()) if len(row) == len(self.FIELDS)]
        kept = [row for row in rows[1:] if row[0].isdigit() and int(row[0]) <= step]
        atomic.write(self.path, self._lines([self.FIELDS, *kept]))

    def append(self, step: int, epoch: int, values: dict[str, float]) -> None:
        if not values:
            return
        rows = [[step, epoch, name, f"{value:.6g}"] for name, value in values.items()]
        new = not self.path.is_file()
        try:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                file.write(self._lines([self.FIELDS, *rows] if new else rows))
        except OSError as error:
            raise RunError(atomic.cannot_write(self.path, error)) from None

    @staticmethod
    def _lines(rows) -> str:
        text = io.StringIO(newline="")
        csv.writer(text).writerows(rows)
        return text.getvalue()
