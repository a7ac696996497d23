"""The recipes of the pack, run as a user runs them."""

import csv
import json
import os
import subprocess
import sys

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

import counterpoint
from counterpoint.errors import DataError
from counterpoint_medical.data.colin27 import Colin27

WORDS = ("nodule", "effusion", "normal heart", "fracture", "oedema", "no finding")


def counterpoint_command(folder, *words):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "counterpoint", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


@pytest.fixture
def studies(tmp_path):
    """A user's folder: volumes, radiographs, reports in cells and in files, and the tables that name them."""
    rng = np.random.default_rng(0)
    scans, films = [["file", "report", "patient", "diagnosis"]], [["image", "report", "patient"]]
    for i in range(12):
        level = 40.0 * (i % 6)
        volume = rng.normal(level, 50, (18, 20, 16)).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(volume, np.diag([2.5, 2.5, 2.5, 1])), tmp_path / f"{i:02d}.nii.gz")
        Image.fromarray(rng.integers(0, 256, (40, 48)).astype(np.uint8)).save(tmp_path / f"{i:02d}.png")
        report = f"Findings of study {i}: {WORDS[i % 6]}. Impression: {WORDS[(i + 1) % 6]}."
        if i % 3 == 0:
            (tmp_path / f"{i:02d}.txt").write_text(report)
            report = f"{i:02d}.txt"
        scans.append([f"{i:02d}.nii.gz", report, f"P{i}", ("normal", "pneumonia")[i % 2]])
        films.append([f"{i:02d}.png", report, f"P{i}"])
    for name, rows in (("studies", scans), ("radiographs", films)):
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    return tmp_path


SMALL = (
    "data.readers.scan.size=[16,16,16]",
    "views.scan[1].size=[16,16,16]",
    "encoders.scan.width=8",
    "encoders.report.width=16",
    "encoders.report.depth=1",
    "loader.batch=4",
    "loader.micro_batch=2",
    "loader.workers=0",
    "trainer.max_epochs=null",
    "trainer.max_steps=2",
)


def test_a_table_of_scans_and_reports_of_a_users_own(studies):
    done = counterpoint_command(studies, "fit", "medical/from_manifest", *SMALL)
    assert done.returncode == 0, done.stderr
    scores = json.loads((studies / "runs/from_manifest-1/scores.json").read_text())
    assert {score["evaluator"].split()[0] for score in scores} == {"retrieval", "linear_probe"}
    encoder = counterpoint.load(studies / "runs/from_manifest-1", modality="scan")
    features = encoder(torch.randn(2, 1, 16, 16, 16))
    assert getattr(features, "h", features).shape == (2, encoder.width)


def test_what_is_wrong_with_scans_is_said_before_training(studies):
    whole = (studies / "03.nii.gz").read_bytes()
    (studies / "03.nii.gz").write_bytes(whole[:60])
    (studies / "05.nii.gz").write_bytes(b"not a volume")
    (studies / "07.nii.gz").unlink()
    done = counterpoint_command(studies, "fit", "medical/from_manifest", *SMALL)
    assert done.returncode == 2 and "Traceback" not in done.stderr and "07.nii.gz: no such file" in done.stderr
    (studies / "07.nii.gz").write_bytes(whole)
    done = counterpoint_command(studies, "fit", "medical/from_manifest", *SMALL)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert all(f"studies.csv:{line}: scan: " in done.stderr for line in (5, 7)), done.stderr
    assert not (studies / "runs").exists()


def test_convirt_is_ready_for_radiographs(studies):
    overrides = ("data.readers.image.size=40", "views.image[1].size=32", "encoders.image.width=4", "loader.batch=4")
    done = counterpoint_command(studies, "check", "medical/convirt", *overrides)
    assert done.returncode == 0, done.stderr


def test_the_quickstart_is_ready_or_says_what_to_fetch(tmp_path):
    checked = counterpoint_command(tmp_path, "check", "medical/quickstart")
    try:
        Colin27()
    except DataError:
        assert checked.returncode == 2 and "counterpoint data" in checked.stderr and "Traceback" not in checked.stderr
    else:
        assert checked.returncode == 0, checked.stderr
