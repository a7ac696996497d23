"""The recipes of the pack, run as a user runs them."""

import csv
import json
import os
import subprocess
import sys

import pytest
import torch
from filming import write

import counterpoint

SUFFIXES = (".mp4", ".avi", ".webm")
SMALL = (
    "data.path=videos.csv",
    "data.readers.video.frames=12",
    "data.readers.video.size=24",
    "encoders.video.width=8",
    "views.video[0].frames=4",
    "views.video[1].size=16",
    "loader.batch=12",
)


def counterpoint_command(folder, *words):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "counterpoint", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


@pytest.fixture
def videos(tmp_path):
    """A user's folder: videos of several formats, sizes, rates and lengths, and the table that names them."""
    rows = [["file", "person", "action"]]
    (tmp_path / "videos").mkdir()
    for i in range(24):
        path = tmp_path / "videos" / f"{i:02d}{SUFFIXES[i % 3]}"
        write(path, count=10 + i, rate=(25, 30)[i % 2], size=((48, 32), (32, 48))[i % 2])
        rows.append([f"videos/{path.name}", f"P{i // 3}", ("walking", "waving")[i % 2]])
    with (tmp_path / "videos.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return tmp_path


def test_a_table_of_a_users_own_videos(videos):
    done = counterpoint_command(videos, "fit", "video/from_manifest", *SMALL, "trainer.max_epochs=2")
    assert done.returncode == 0, done.stderr
    scores = json.loads((videos / "runs/from_manifest-1/scores.json").read_text())
    assert scores
    encoder = counterpoint.load(videos / "runs/from_manifest-1", modality="video")
    assert encoder(torch.randn(2, 3, 4, 16, 16)).h.shape == (2, 64)


def test_what_is_wrong_with_a_table_is_said_before_training(videos):
    (videos / "videos/04.avi").unlink()
    missing = counterpoint_command(videos, "fit", "video/from_manifest", *SMALL)
    assert "videos.csv:6: video: " in missing.stderr and "04.avi: no such file" in missing.stderr
    (videos / "videos/04.avi").write_text("no video at all")
    damaged = counterpoint_command(videos, "fit", "video/from_manifest", *SMALL)
    assert "04.avi" in damaged.stderr and "truncated or damaged" in damaged.stderr
    for done in (missing, damaged):
        assert done.returncode == 2 and "Traceback" not in done.stderr and done.stdout == ""


def test_another_encoder_is_one_line(videos):
    small = "encoders.video={use: video.videomae, size: 16, frames: 4, patch: 8, width: 24, depth: 1, heads: 3}"
    words = [word for word in SMALL if "encoders" not in word]
    checked = counterpoint_command(videos, "check", "video/from_manifest", *words, small)
    assert checked.returncode == 0, checked.stderr
