"""The six packs beside each other: none knows another, each trains on its user's files, and any objective fits all."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from counterpoint.fit.run import fit
from counterpoint.fit.scoring import evaluate
from counterpoint.recipe import load
from own_files import PACKS, admissions

ROOT = Path(__file__).parents[1]
SHORT = ("trainer.max_epochs=null", "trainer.max_steps=2", "trainer.accelerator=cpu", "loader.batch=6", "loader.workers=0", "loader.micro_batch=null")  # fmt: skip


def test_all_six_are_listed_without_a_fault():
    done = subprocess.run([sys.executable, "-m", "counterpoint", "packs"], capture_output=True, text=True)
    assert done.returncode == 0
    rows = {line.split()[0]: line.split() for line in done.stdout.splitlines() if line.strip()}
    assert rows.keys() >= PACKS.keys(), done.stdout + done.stderr
    assert not re.search(r"counterpoint-(ecg|medical|audio|video|code|points)", done.stderr), done.stderr


@pytest.mark.parametrize("out", PACKS)
def test_each_does_without_the_others(out):
    """Looking at five packs: no fault, and a recipe of the sixth says what to install."""
    environment = os.environ | {"COUNTERPOINT_PACKS": ",".join(name for name in PACKS if name != out)}
    run = lambda *words: subprocess.run(  # noqa: E731
        [sys.executable, "-m", "counterpoint", *words], capture_output=True, text=True, env=environment
    )
    listed = run("list", "encoder").stdout
    assert all((f"{name}." in listed) == (name != out) for name in PACKS)
    gone = run("check", f"{out}/quickstart")
    assert gone.returncode == 2 and "Traceback" not in gone.stderr and out in gone.stderr


@pytest.mark.parametrize("objective", ["info_nce", "siglip", "vicreg"])
@pytest.mark.parametrize("pack", PACKS)
def test_one_word_changes_the_objective_of_any_pack(pack, objective, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = PACKS[pack](tmp_path)
    run = fit(load(f"{pack}/from_manifest", [*small, *SHORT, f"objective={objective}"]), root=tmp_path / "runs")
    losses = [float(row.split(",")[3]) for row in (run.folder / "metrics.csv").read_text().splitlines() if f",loss/{objective}," in row or ",loss," in row]  # fmt: skip
    assert losses and all(math.isfinite(loss) for loss in losses) and run.weights.is_file()


def test_three_modalities_of_two_packs_with_some_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = admissions(tmp_path)
    recipe = load(ROOT / "configs/across/admission.yaml", [*small, *SHORT, "data.holdout=0.4"])
    run = fit(recipe, root=tmp_path / "runs")
    records = evaluate(run, recipe)
    ways = {r["metric"].partition("/")[0] for r in records}
    assert ways == {f"{a}->{b}" for a in ("scan", "ecg", "report") for b in ("scan", "ecg", "report") if a != b}
