"""The recipes of the pack, run as a user runs them."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

import counterpoint

WORDS = ("dog", "rain", "bell", "wind")
FORMATS = {"wav": "PCM_16", "flac": "PCM_16", "ogg": "VORBIS", "mp3": "MPEG_LAYER_III"}
SMALL = ("data.path=captions.csv", "encoders.audio.width=16", "encoders.text.width=16", "encoders.text.depth=1")


def counterpoint_command(folder, *words):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "counterpoint", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


@pytest.fixture
def recordings(tmp_path):
    """A user's folder: sounds of several formats, rates, channels and lengths, and the table with their captions."""
    rng = np.random.default_rng(0)
    rows = [["file", "caption"]]
    (tmp_path / "sounds").mkdir()
    for i in range(24):
        suffix, rate = list(FORMATS)[i % 4], (16000, 22050, 44100)[i % 3]
        wave = 0.3 * np.sin(np.arange(rng.integers(rate // 3, rate // 2)) * (0.05 + 0.02 * (i % len(WORDS))))
        data = wave if i % 2 else np.stack([wave, wave], axis=1)
        name = f"sounds/{i:02d}.{suffix}"
        soundfile.write(tmp_path / name, data, rate, subtype=FORMATS[suffix])
        rows.append([name, f"the sound of a {WORDS[i % len(WORDS)]}, number {i}"])
    with (tmp_path / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return tmp_path


def test_a_table_of_a_users_own_recordings(recordings):
    done = counterpoint_command(
        recordings, "fit", "audio_text/from_manifest", *SMALL, "trainer.max_epochs=2", "loader.batch=12"
    )
    assert done.returncode == 0, done.stderr
    scores = json.loads((recordings / "runs/from_manifest-1/scores.json").read_text())
    assert {"audio->text/R@1", "text->audio/R@10"} <= {score["metric"] for score in scores}
    encoder = counterpoint.load(recordings / "runs/from_manifest-1", modality="audio")
    h = encoder(torch.randn(2, 64, 40))
    assert (h if isinstance(h, torch.Tensor) else h.h).shape == (2, 16)


def test_what_is_wrong_with_a_table_is_said_before_training(recordings):
    """All files that are missing at once, with their lines; then all that are damaged."""
    words = ("fit", "audio_text/from_manifest", *SMALL)
    sounds = recordings / "sounds"
    whole = (sounds / "04.wav").read_bytes()
    for name in ("04.wav", "05.flac"):
        (sounds / name).unlink()
    missing = counterpoint_command(recordings, *words)
    assert "captions.csv:6: audio: " in missing.stderr and "04.wav: no such file" in missing.stderr
    assert "captions.csv:7: audio: " in missing.stderr and "05.flac: no such file" in missing.stderr
    (sounds / "04.wav").write_bytes(whole[: len(whole) // 2])
    (sounds / "05.flac").write_bytes(b"fLaC")
    damaged = counterpoint_command(recordings, *words)
    assert "04.wav: truncated" in damaged.stderr and "05.flac" in damaged.stderr, damaged.stderr
    for done in (missing, damaged):
        assert done.returncode == 2 and "Traceback" not in done.stderr and done.stdout == ""
    assert not (recordings / "runs").exists()


def test_another_objective_and_encoder_is_one_line(recordings):
    small = "{use: audio_text.ast, mels: 64, frames: 100, width: 24, depth: 1, heads: 3}"
    words = (
        "check",
        "audio_text/from_manifest",
        "data.path=captions.csv",
        "objective=siglip",
        f"encoders.audio={small}",
    )
    checked = counterpoint_command(recordings, *words)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.slow
def test_the_quickstarts_whole_configuration_loads_again(tmp_path):
    whole = counterpoint_command(tmp_path, "fit", "audio_text/quickstart", "--print-config")
    (tmp_path / "whole.yaml").write_text(whole.stdout)
    assert counterpoint_command(tmp_path, "fit", "whole.yaml", "--print-config").stdout == whole.stdout
    checked = counterpoint_command(tmp_path, "check", "whole.yaml")
    assert checked.returncode == 0, checked.stderr
