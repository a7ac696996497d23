"""A micro-batch bounds the memory of a batch and leaves its gradient as it is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


def step(micro, path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), str(HERE / "toy")])}
    command = [sys.executable, str(HERE / "memory.py"), str(micro), str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout), torch.load(path, weights_only=True)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_micro_batches_of_16_in_a_batch_of_256(tmp_path):
    (whole, expected), (part, got) = step(0, tmp_path / "whole"), step(16, tmp_path / "part")
    assert whole > 3 * part, f"{whole / 2**20:.0f} MiB whole, {part / 2**20:.0f} MiB by micro-batches"
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-4, atol=1e-6)
