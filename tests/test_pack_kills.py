"""The quickstart of every pack, cut short, killed at any step and gone on with: row R1 of the table, at length."""

import json

import numpy as np
import pytest
import torch

from faults import ROUNDS
from forked import Server
from test_fit import same

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("forked"), pytest.mark.fault("R1")]
PACKS = ("ecg", "medical", "audio_text", "video", "code_search", "points3d")
STEPS = 5
SHORT = [f"trainer.max_steps={STEPS}", "trainer.log_every_n_steps=2", "loader.batch=6", "loader.micro_batch=4", "evaluate=[]", "loggers=[]", "name=short"]  # fmt: skip
SAVING = ["save_at_every_step"]


@pytest.fixture(scope="module")
def forked():
    server = Server()
    yield server
    server.close()


def trained(forked, folder, pack):
    folder.mkdir()
    done = forked("fit", f"{pack}/quickstart", *SHORT, cwd=folder, first=[SAVING], timeout=600)
    if "counterpoint data" in done.stderr:
        pytest.skip(f"the data of {pack}/quickstart are not fetched")
    assert done.returncode == 0, done.stderr
    return folder / "runs/short-1"


@pytest.mark.parametrize("pack", PACKS)
def test_a_pack_killed_anywhere_ends_as_if_it_had_not_been(forked, tmp_path, pack, record_property):
    expected = trained(forked, tmp_path / "straight", pack)
    draw = np.random.default_rng([1, PACKS.index(pack)])
    for number in range(-(-ROUNDS // 2)):
        here = tmp_path / str(number)
        here.mkdir()
        step, workers = int(draw.integers(1, STEPS)), [0, 2][(number + PACKS.index(pack)) % 2]
        command = ("fit", f"{pack}/quickstart", *SHORT, f"loader.workers={workers}")
        killed = forked(*command, cwd=here, first=[SAVING, ["at_step", step]], timeout=600)
        assert killed.returncode == -9, killed.stderr
        resumed = forked(
            "fit", "--resume", "latest", f"loader.workers={2 - workers}", cwd=here, first=[SAVING], timeout=600
        )
        assert resumed.returncode == 0 and f"at step {step} " in resumed.stderr, resumed.stderr
        run = here / "runs/short-1"
        for name in ("metrics.csv", "encoder.safetensors"):
            assert (run / name).read_bytes() == (expected / name).read_bytes(), name
        last = f"checkpoints/step-{STEPS:08d}.ckpt"
        a, b = (torch.load(folder / last, weights_only=True) for folder in (expected, run))
        assert not (different := same(a, b)), different[:5]
        assert json.loads((run / "run.json").read_text())["state"] == "done"
        record_property("survived", number + 1)
