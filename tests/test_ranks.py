"""Several processes with the same global batch have the gradients of one."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from counterpoint.heads.whitening import GroupWhitening
from counterpoint.towers.batch_statistics import counting, share

pytestmark = pytest.mark.xdist_group("ranks")  # what they share is made once

HERE = Path(__file__).parent


def run(script, world, *words):
    """A script of this folder, alone or in several processes."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), str(HERE / "toy")]), "OMP_NUM_THREADS": "1"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = (
        ["-m", "torch.distributed.run", f"--nproc-per-node={world}", f"--master-port={port}"] if world > 1 else []
    )
    command = [sys.executable, *launcher, str(HERE / script), *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.slow)])
def recorded(tmp_path_factory, request):
    """What one process records, and each of several: of a last batch of 5 with two, of batches of 3, 3 and 2 with three."""
    world, folder = request.param, tmp_path_factory.mktemp("ranks")
    size = {2: 21, 3: 24}[world]
    run("ranks.py", 1, folder / "one", size)
    run("ranks.py", world, folder / "many", size)
    names = ["one.0", *(f"many.{rank}" for rank in range(world))]
    return [torch.load(folder / name, weights_only=True) for name in names]


def test_gradients_of_several_ranks_are_those_of_one(recorded):
    """An uneven batch, a modality missing on one rank, a rank without samples, views of fewer rows included."""
    assert [found["divided"] for found in recorded] == [0, *[recorded[1]["divided"]] * (len(recorded) - 1)]
    assert recorded[1]["divided"] > 0
    one, first, *others = (found["gradients"] for found in recorded)
    assert {len(steps) for steps in (one, first, *others)} == {6}
    for step, expected in enumerate(one):
        assert any(name.startswith("objectives.nce") for name in expected)
        own = [gradient for name, gradient in expected.items() if name.startswith("pipelines.signal")]
        assert own and any(g.any() for g in own) == (step % 2 == 0)
        assert expected.keys() == first[step].keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(
                first[step][name], gradient, rtol=1e-4, atol=2e-6, msg=lambda m, n=name, s=step: f"{n} at step {s}: {m}"
            )
            assert all(torch.equal(first[step][name], other[step][name]) for other in others)


def test_queues_and_state_are_equal_on_all_ranks(recorded):
    one, first, *others = (found["state"] for found in recorded)
    for name, value in first.items():
        assert all(torch.equal(value, other[name]) for other in others), name
        if value.is_floating_point():
            torch.testing.assert_close(value, one[name], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
        else:
            assert torch.equal(value, one[name]), name


def test_running_statistics_are_the_mean_over_processes(monkeypatch):
    """Those that each process counts by itself; a whitening head sees the gathered batch, and is left alone."""
    here, there = (
        nn.Sequential(nn.BatchNorm1d(3), GroupWhitening(width=4, groups=2), nn.Linear(3, 3)) for _ in range(2)
    )
    for number, module in enumerate((here, there), 1):
        module[0].running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]) * number)
        module[0].running_var.mul_(number)
        module[0].num_batches_tracked.fill_(4 - number)
    layers = counting(here)
    assert layers == [here[0]]
    others = iter((torch.cat([there[0].running_mean, there[0].running_var]), there[0].num_batches_tracked[None]))

    def all_reduce(ours, how):
        ours.copy_(ours + next(others) if how == dist.ReduceOp.SUM else torch.maximum(ours, next(others)))

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    share(layers)
    assert here[0].running_mean.tolist() == [1.5, 3.0, 4.5] and here[0].running_var.tolist() == [1.5] * 3
    assert int(here[0].num_batches_tracked) == 3


@pytest.mark.parametrize("world", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_contrast_that_ranks_divide_is_that_of_one(world, tmp_path):
    """Value and gradients, of the scale too; alike to the bit on all ranks."""
    run("divided.py", 1, tmp_path / "one")
    run("divided.py", world, tmp_path / "many")
    one, first, *others = (
        torch.load(tmp_path / name, weights_only=True) for name in ("one.0", *(f"many.{r}" for r in range(world)))
    )
    assert len(others) == world - 1 and len(one) == 14
    for name, expected in one.items():
        for mine, theirs in zip(expected, first[name], strict=True):
            torch.testing.assert_close(theirs, mine, rtol=1e-11, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")
        assert all(torch.equal(a, b) for other in others for a, b in zip(first[name], other[name], strict=True)), name
