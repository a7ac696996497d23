"""Memory that grows with the number of samples, not with its square: the loss of every objective, forward and backward.

Dimensions: N samples, in tiles of ROWS x KEYS. The tiles are made small, and whatever has another form for few samples
is told that there are many, so that a table of N x N stands out at a size that is tried quickly.
"""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from counterpoint.batch import Batch
from objectives.scenes import SCENES, scene
from test_kernels import Largest
from test_objectives import CASES, build, parameters

HERE = Path(__file__).parent
N, ROWS, KEYS = 200, 32, 64
SQUARE = {  # first case of an objective -> the table that it holds
    "amcl": "negatives of every positive pair, each with a margin of its own",
    "cacr": "weights of positives and of negatives, and the costs that they weigh",
    "cico": "the similarity of every token with every token",
    "filip": "the similarity of every token with every token",
    "gram": "the volume of every text with every tuple",
    "hard_contrastive, in the batch": "logits, of which the hardest are picked",
    "interclr": "chances of a fixed number of negatives for every anchor, here as many as there are samples",
    "matching": "chances of every wrong partner, of which one is drawn",
    "triplet": "the distances of every row, ranked",
    "supremix": "distances in label, by which mixtures are chosen",
}
FEW_CLASSES = ("mlcd", "unfused")  # their groups are classes that the embedding has a place for
OBJECTIVES = {name.split(" ")[0].rstrip(","): name for name in reversed(CASES)}  # the first case of each


def large(where, few):
    """A scene of N samples, every one in every view; two samples are of one patient, three of one class."""
    found = scene(where, torch.float32, [(title, list(range(N))) for title, _ in SCENES[where]])
    index = torch.arange(N)
    batch = Batch({}, index, {"patient": index % 4 if few else index // 2}, {"class": index // 3, "age": index.float()})
    return replace(found, batch=batch)


@pytest.fixture
def small_tiles(monkeypatch):
    for name in ("softmax", "sigmoid"):
        monkeypatch.setattr(f"counterpoint.kernels.{name}.DENSE", -1)
    monkeypatch.setattr("counterpoint.kernels.plan.ROWS", ROWS)
    monkeypatch.setattr("counterpoint.kernels.plan.KEYS", KEYS)
    for name in ("kernels.softmax_product", "objectives.distillation", "objectives.interclr"):
        monkeypatch.setattr(f"counterpoint.{name}.CHUNK", ROWS * KEYS)
    monkeypatch.setattr("counterpoint.objectives.supremix.SupReMix.CHUNK", ROWS * KEYS)
    monkeypatch.setattr("counterpoint.objectives.uniformity.KoLeo.CHUNK", ROWS)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_no_objective_holds_a_table_of_samples_by_samples_but_those_that_are_named(name, small_tiles):
    case = OBJECTIVES[name]
    sized = {"size": N} if "size" in parameters(case) else {}
    objective = build(case, **sized).float()
    seen = large(CASES[case].scenes[0], case in FEW_CLASSES)
    torch.manual_seed(3)
    with Largest() as largest:
        objective(seen)[0].backward()
    assert (largest.elements > N * N * 3 // 4) == (case in SQUARE), f"{case}: {largest.elements / N / N:.2f} N^2"


def test_symile_with_every_tuple_holds_some_of_them_at_a_time(small_tiles, monkeypatch):
    """N^2 tuples for each anchor of three views: neither they, nor an anchor's logits with them all, are held at once."""
    monkeypatch.setattr("counterpoint.objectives.symile.Symile.CHUNK", ROWS * KEYS)
    monkeypatch.setattr("counterpoint.kernels.plan.KEYS", 8 * KEYS)  # 20 chunks, each again in the backward pass
    objective = build("symile, all").float()
    with Largest() as largest:
        objective(large("three views", False))[0].backward()
    assert ROWS * KEYS <= largest.elements < N * N * 3 // 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clip", "info_nce"])
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_batch_of_65536_pairs_is_contrasted_within_2_gb(name):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), str(HERE / "toy"), *sys.path])}
    command = [sys.executable, str(HERE / "contrast_memory.py"), name, "65536"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) < 2e9, f"{int(done.stdout) / 2**20:.0f} MiB"
