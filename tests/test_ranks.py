"""Two processes with the same global batch have the gradients of one."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.xdist_group("ranks")  # what they share is made once

HERE = Path(__file__).parent


def run(command, path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), str(HERE / "toy")]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(HERE / "ranks.py"), str(path)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run([sys.executable], folder / "one")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}"]
    run(launcher, folder / "two")
    return [torch.load(folder / name, weights_only=True) for name in ("one.0", "two.0", "two.1")]


def test_gradients_of_two_ranks_are_those_of_one(recorded):
    """An uneven batch, a modality missing on one rank, a rank without samples, views of fewer rows included."""
    one, first, second = (found["gradients"] for found in recorded)
    assert len(one) == len(first) == len(second) == 6
    for step, expected in enumerate(one):
        assert any(name.startswith("objectives.nce") for name in expected)
        own = [gradient for name, gradient in expected.items() if name.startswith("pipelines.signal")]
        assert own and any(g.any() for g in own) == (step % 2 == 0)
        assert expected.keys() == first[step].keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(
                first[step][name], gradient, rtol=1e-4, atol=2e-6, msg=lambda m, n=name, s=step: f"{n} at step {s}: {m}"
            )
            assert torch.equal(first[step][name], second[step][name])


def test_queues_and_state_are_equal_on_both_ranks(recorded):
    one, first, second = (found["state"] for found in recorded)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
        if value.is_floating_point():
            torch.testing.assert_close(value, one[name], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
        else:
            assert torch.equal(value, one[name]), name
