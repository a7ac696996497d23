"""The recipes of the pack, run as a user runs them."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pyedflib
import pytest
import torch
import wfdb

import counterpoint

LEADS, RATE, PATIENTS = 3, 100, 12


def counterpoint_command(folder, *words):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "counterpoint", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


LEAD_NAMES = ("I", "II", "V1")


def write(path, signal):
    """A recording as its ending says: a WFDB record, an EDF file or an array."""
    if path.suffix == ".hea":
        signals = {"units": ["mV"] * LEADS, "sig_name": list(LEAD_NAMES), "fmt": ["16"] * LEADS}
        wfdb.wrsamp(path.stem, fs=RATE, p_signal=signal.T, write_dir=str(path.parent), **signals)
    elif path.suffix == ".edf":
        writer = pyedflib.EdfWriter(str(path), LEADS)
        limits = dict(physical_max=10, physical_min=-10, digital_max=32767, digital_min=-32768)
        writer.setSignalHeaders(
            [
                dict(label=lead, dimension="mV", sample_frequency=2 * RATE, transducer="", prefilter="", **limits)
                for lead in LEAD_NAMES
            ]
        )
        writer.writeSamples([np.repeat(row, 2) for row in signal])
        writer.close()
    else:
        (np.save if path.suffix == ".npy" else np.savez)(path, signal.astype(np.float32))


def recordings(folder, endings):
    """A user's folder: recordings of different lengths in two formats, and the table that names them."""
    rng = np.random.default_rng(0)
    rows = [["file", "patient", "diagnosis"]]
    (folder / "ecg").mkdir()
    for patient in range(PATIENTS):
        for visit, ending in enumerate(endings):
            time = np.arange(RATE * int(rng.integers(7, 10))) / RATE
            beat = np.sin(2 * np.pi * (1 + 0.1 * patient) * time)
            signal = np.stack([beat * (lead + 1) for lead in range(LEADS)])
            name = f"ecg/{patient:02d}-{visit}{ending}"
            write(folder / name, signal + 0.1 * rng.standard_normal(signal.shape))
            rows.append([name, f"P{patient}", ("normal", "afib")[patient % 2]])
    with (folder / "recordings.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


def test_a_table_of_a_users_own_recordings(tmp_path):
    """WFDB records and EDF files of twice the rate, in one table."""
    folder = recordings(tmp_path, (".hea", ".edf"))
    overrides = [
        "data.path=recordings.csv",
        f"data.readers.ecg.rate={RATE}",
        "trainer.max_epochs=2",
        "encoders.ecg.width=8",
    ]
    done = counterpoint_command(folder, "fit", "ecg/from_manifest", *overrides)
    assert done.returncode == 0, done.stderr
    scores = json.loads((folder / "runs/from_manifest-1/scores.json").read_text())
    assert {"trained encoder", "untrained encoder"} <= {score["representation"] for score in scores}
    encoder = counterpoint.load(folder / "runs/from_manifest-1")
    h = encoder(torch.randn(2, LEADS, 640)).h
    assert h.shape == (2, encoder.width) and not encoder.training


def test_what_is_wrong_with_a_table_is_said_before_training(tmp_path):
    """All files that are missing at once, with their lines; then all that are damaged."""
    folder = recordings(tmp_path, (".npy", ".npz"))
    words = ("fit", "ecg/from_manifest", "data.path=recordings.csv", f"data.readers.ecg.rate={RATE}")
    signal = (folder / "ecg/03-0.npy").read_bytes()
    for name in ("03-0.npy", "04-0.npy"):
        (folder / "ecg" / name).unlink()
    missing = counterpoint_command(folder, *words)
    assert "recordings.csv:8: ecg: " in missing.stderr and "03-0.npy: no such file" in missing.stderr
    assert "recordings.csv:10: ecg: " in missing.stderr and "04-0.npy: no such file" in missing.stderr
    for name, content in (("03-0.npy", signal[:200]), ("04-0.npy", signal), ("05-1.npz", b"PK")):
        (folder / "ecg" / name).write_bytes(content)
    damaged = counterpoint_command(folder, *words)
    assert all(name in damaged.stderr for name in ("03-0.npy", "05-1.npz")), damaged.stderr
    for done in (missing, damaged):
        assert done.returncode == 2 and "Traceback" not in done.stderr and done.stdout == ""
    assert not (folder / "runs").exists()


@pytest.mark.parametrize("recipe", ["participants"])
def test_the_whole_configuration_loads_again(tmp_path, recipe):
    whole = counterpoint_command(tmp_path, "fit", f"ecg/{recipe}", "--print-config")
    (tmp_path / "whole.yaml").write_text(whole.stdout)
    assert counterpoint_command(tmp_path, "fit", "whole.yaml", "--print-config").stdout == whole.stdout
    checked = counterpoint_command(tmp_path, "check", "whole.yaml")
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("objective", ["nt_xent", "moco", "byol", "vicreg", "{use: supcon, group: animal}"])
def test_another_objective_is_one_word(tmp_path, objective):
    """The same recipe and nothing else changed: checked, two samples tried."""
    checked = counterpoint_command(tmp_path, "check", "ecg/quickstart", f"objective={objective}")
    assert checked.returncode == 0, checked.stderr
