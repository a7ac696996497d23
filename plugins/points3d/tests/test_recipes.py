"""The recipes of the pack, run as a user runs them."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import counterpoint
from counterpoint.cli import main

sys.path.insert(0, str(Path(__file__).parent))
from files import off, write

KINDS = ("off_modelnet", "obj", "ply_little", "stl_binary", "las", "npy", "ply_cloud", "xyz")


def counterpoint_command(folder, *words):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "counterpoint", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


def fit(monkeypatch, folder, *words) -> int:
    """As the command, in this process: starting one takes longer than the training."""
    monkeypatch.chdir(folder)
    return main(["fit", *words])


@pytest.fixture
def shapes(tmp_path):
    """A user's folder: meshes and clouds in many formats, some of few points, and the table that names them."""
    (tmp_path / "scans").mkdir()
    table = [["file", "object", "class", "text"]]
    for number in range(24):
        kind = KINDS[number % len(KINDS)]
        path = write(tmp_path / "scans", kind, f"{number:02d}", points=80 + 10 * number, seed=number)
        table.append(
            [os.path.relpath(path, tmp_path), f"thing {number // 2}", "box" if number % 3 else "lid", f"a box, {kind}"]
        )
    with (tmp_path / "shapes.csv").open("w", newline="") as file:
        csv.writer(file).writerows(table)
    return tmp_path


SMALL = ["data.path=shapes.csv", "trainer.max_steps=2", "loader.batch=8", "loader.workers=0", "loggers=[]"]


def test_a_table_of_a_users_own_shapes(shapes):
    small = [*SMALL, "encoders.shape.widths=[8,8]", "encoders.shape.wide=16", "data.readers.shape.points=128"]
    done = counterpoint_command(shapes, "fit", "points3d/from_manifest", *small)
    assert done.returncode == 0, done.stderr
    scores = json.loads((shapes / "runs/from_manifest-1/scores.json").read_text())
    assert {"trained encoder", "untrained encoder"} <= {score["representation"] for score in scores}
    encoder = counterpoint.load(shapes / "runs/from_manifest-1")
    h = encoder(torch.randn(2, 3, 100)).h
    assert h.shape == (2, encoder.width) and not encoder.training


def test_a_table_of_shapes_and_what_is_said_of_them(shapes, monkeypatch):
    small = [
        *SMALL,
        "encoders.shape.widths=[8,8]",
        "encoders.text.width=32",
        "encoders.text.depth=1",
        "encoders.text.heads=2",
    ]
    assert fit(monkeypatch, shapes, "points3d/captions", *small) == 0
    assert "shape->text" in (shapes / "runs/captions-1/scores.json").read_text()


def test_what_is_wrong_with_a_table_is_said_before_training(shapes, monkeypatch, capfd):
    """All files that are missing at once, with their lines; then those whose header says that they are damaged."""
    words = ("fit", "points3d/from_manifest", "data.path=shapes.csv")
    survey = (shapes / "scans/04.las").read_bytes()

    def told(*words):
        assert fit(monkeypatch, shapes, *words[1:]) == 2
        out, err = capfd.readouterr()
        assert "Traceback" not in err and out == ""
        return err

    for name in ("04.las", "06.ply"):
        (shapes / "scans" / name).unlink()
    missing = told(*words)
    assert "shapes.csv:6: shape: " in missing and "04.las: no such file" in missing
    assert "shapes.csv:8: shape: " in missing and "06.ply: no such file" in missing
    (shapes / "scans/04.las").write_bytes(survey[:-100])
    (shapes / "scans/06.ply").write_bytes(b"ply\nformat ascii 1.0\nend_header\n")
    damaged = told(*words)
    assert "04.las: cut off" in damaged and "06.ply: its header has no vertex" in damaged
    assert not (shapes / "runs").exists()


def test_modelnets_folders(tmp_path, monkeypatch):
    for kind in ("chair", "table"):
        for split, count in (("train", 4), ("test", 2)):
            (tmp_path / "ModelNet40" / kind / split).mkdir(parents=True)
            for number in range(count):
                (tmp_path / "ModelNet40" / kind / split / f"{kind}_{number}.off").write_bytes(off(head="OFF"))
    small = ["data.points=64", "encoders.shape.widths=[8]", "encoders.shape.wide=16", "trainer.precision=32-true"]
    small += ["trainer.max_steps=2", "loader.batch=4", "loader.workers=0", "loggers=[]", "heads.shape.hidden=16"]
    assert fit(monkeypatch, tmp_path, "points3d/modelnet", *small) == 0


@pytest.mark.slow
def test_the_whole_quickstart_loads_again(tmp_path):
    whole = counterpoint_command(tmp_path, "fit", "points3d/quickstart", "--print-config")
    (tmp_path / "whole.yaml").write_text(whole.stdout)
    assert counterpoint_command(tmp_path, "fit", "whole.yaml", "--print-config").stdout == whole.stdout
    checked = counterpoint_command(tmp_path, "check", "whole.yaml")
    assert checked.returncode == 0, checked.stderr
