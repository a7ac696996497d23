"""What a user installs: the wheels of the core and of every pack, without the source tree."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from own_files import PACKS
from wheels import ROOT, Environment, built, libraries

OFFLINE = ("--no-index", "--no-deps", "--disable-pip-version-check", "--quiet")
STEPS = ("trainer.max_epochs=null", "trainer.max_steps=2", "trainer.accelerator=cpu", "loader.batch=8", "loader.workers=0", "loader.micro_batch=null")  # fmt: skip
PYTEST = """[pytest]
addopts = -q --strict-markers -p no:cacheprovider --import-mode=importlib
markers =
    slow: minutes long
    gpu: needs a CUDA device
"""

# Run with the tree and with the wheels: what a pack registers and carries, and two steps of its quickstart.
SEEN = """
import hashlib, json, sys
from pathlib import Path
from counterpoint.fit.run import fit
from counterpoint.recipe import load
from counterpoint.packs.registry import installed
name, *steps = sys.argv[1:]
(pack,) = [pack for pack in installed().discovery.packs if pack.entry == name]
run = fit(load(f"{name}/quickstart", steps), root=Path("runs"))
digest = lambda path: hashlib.sha256(path.read_bytes()).hexdigest()
losses = [row for row in (run.folder / "metrics.csv").read_text().splitlines() if ",loss" in row]
json.dump({
    "where": __import__(pack.module).__file__,
    "tables": pack.tables,
    "recipes": {path.name: digest(path) for path in sorted(pack.recipes.glob("*.yaml"))},
    "loss": [row.split(",")[:1] + row.split(",")[2:4] for row in losses],
    "weights": digest(run.weights),
}, sys.stdout)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The wheel of the core and of each pack, and links to the libraries."""
    folder = tmp_path_factory.mktemp("made")
    wheels = {name: built(ROOT / "plugins" / name, folder) for name in PACKS}
    return {"core": built(ROOT, folder), **wheels}, libraries(folder / "libraries")


def environment_of(folder, made, *names):
    """A virtual environment with the wheels of the core and of these packs."""
    wheels, links = made
    environment = Environment(folder / "env", links)
    environment.succeed("pip", "install", *OFFLINE, wheels["core"], *(wheels[name] for name in names), cwd=folder)
    return environment


@pytest.mark.slow
@pytest.mark.parametrize("name", PACKS)
def test_a_pack_alone_is_what_the_tree_holds(name, tmp_path, made):
    """Its components, its recipes byte for byte, and the weights after two steps; then the kit, then its own tests."""
    environment = environment_of(tmp_path, made, name)
    listed = environment.succeed("counterpoint", "packs", cwd=tmp_path)
    assert "fault" not in listed and "not met" not in listed
    assert [line.split()[0] for line in listed.splitlines()[1:]] == [name]
    alone = json.loads(environment.succeed("python", "-W", "ignore", "-c", SEEN, name, *STEPS, cwd=tmp_path))
    tree = json.loads(in_the_tree(name, tmp_path))
    assert alone.pop("where").startswith(str(tmp_path)) and tree.pop("where").startswith(str(ROOT))
    assert len(alone["loss"]) >= 2 and alone == tree
    report = environment.succeed("counterpoint", "check-pack", name, cwd=tmp_path)
    assert "checks passed" in report and f"recipe {name}/quickstart:" not in report, report
    shutil.copytree(ROOT / "plugins" / name / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "pytest.ini").write_text(PYTEST, encoding="utf-8")
    tested = environment.run("python", "-m", "pytest", "-m", "not slow and not gpu", "tests", cwd=tmp_path)
    assert tested.returncode == 0, tested.stdout[-4000:]


def in_the_tree(name, folder):
    variables = os.environ | {"OMP_NUM_THREADS": "1", "COUNTERPOINT_PACKS": name}
    command = [sys.executable, "-W", "ignore", "-c", SEEN, name, *STEPS]
    (folder / "tree").mkdir()
    done = subprocess.run(command, cwd=folder / "tree", env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_all_side_by_side_and_one_after_another_uninstalled(tmp_path, made):
    """Listing, a short training, and every recipe a sound one; whichever pack goes, the others stay whole."""
    environment = environment_of(tmp_path, made, *PACKS)
    listed = environment.succeed("counterpoint", "packs", cwd=tmp_path)
    assert all(f"counterpoint-{name.replace('_', '-')}" in listed for name in PACKS)
    assert "fault" not in listed and "not met" not in listed, listed
    done = environment.succeed("counterpoint", "fit", "ecg/quickstart", "trainer.max_epochs=2", cwd=tmp_path)
    assert "trained encoder" in done and "ecg.rfft" in done
    for name in PACKS:  # every recipe that a wheel carries is a sound one
        environment.succeed("counterpoint", "fit", f"{name}/quickstart", "--print-config", cwd=tmp_path)
    for gone in PACKS:
        environment.succeed("pip", "uninstall", "--yes", f"counterpoint-{gone.replace('_', '-')}", cwd=tmp_path)
        left = environment.run("counterpoint", "packs", cwd=tmp_path)
        assert left.returncode == 0 and f"counterpoint-{gone.replace('_', '-')} " not in left.stdout, left.stderr
        assert "fault" not in left.stdout and "skipped" not in left.stderr, left.stderr
