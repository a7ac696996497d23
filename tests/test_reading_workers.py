"""A reading worker that hangs, dies or raises is named with its sample, and the run ends: row R10 of the table."""

import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
import torch

from counterpoint.data.dataset import Dataset, Spec
from counterpoint.data.files import Files
from counterpoint.data.guard import Skipped
from counterpoint.data.loader import Bounded, Loader, Noting
from counterpoint.data.reader import Reader
from counterpoint.errors import ComponentError, DataError, TrainingError
from counterpoint.evaluate.embed import loader


class Odd(Dataset):
    """Reading sample 5 does something else."""

    def __init__(self, does):
        self.does = does
        self.spec = Spec(size=12, modalities={"x": {"length": 3}})

    def inputs(self, index):
        if index == 5:
            self.does()
        return {"x": torch.full((3,), float(index))}

    def told(self, index):
        return f"x {index}.wav"


def hang():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(100)


def read(does, workers=2, batch=2):
    return [batch.index.tolist() for batch in loader(Odd(does), batch, workers)]


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setenv("COUNTERPOINT_READING_TIMEOUT", "0.5")


@pytest.mark.fault("R10")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_hangs_is_waited_for_for_so_long(workers):
    worker = {1: 0, 2: 0}[workers]  # batches go to workers in turn: sample 5 is in the third
    with pytest.raises(
        TrainingError, match=rf"worker {worker} gave nothing for \d+ s; last sample 5 \(x 5.wav\)\. A slow"
    ):
        read(hang, workers)


@pytest.mark.fault("R10")
def test_a_slow_worker_is_waited_for_as_long_as_every_sample_comes(monkeypatch):
    """A batch may take longer than a sample may."""
    monkeypatch.setenv("COUNTERPOINT_READING_TIMEOUT", "1.5")
    monkeypatch.setattr(Odd, "inputs", lambda self, index: time.sleep(0.3) or {"x": torch.zeros(3)})
    assert read(None, workers=1, batch=12) == [list(range(12))]


@pytest.mark.fault("R10")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_dies_is_named(number):
    died = rf"worker 0 was ended by {number.name}; last sample 5 \(x 5.wav\); when memory is short, fewer workers"
    with pytest.raises(TrainingError, match=died):
        read(lambda: os.kill(os.getpid(), number))


@pytest.mark.fault("R10")
def test_a_worker_that_dies_while_it_hands_a_batch_over_is_named():
    """Then the connection breaks, before torch looks whether the worker lives."""
    worker = multiprocessing.get_context("fork").Process(target=os._exit, args=(3,))
    worker.start()
    batches = Odd(lambda: None)
    noting = Noting(batches, 0, 1)
    noting.notes[:] = [worker.pid, 5, 0]

    class Broken:
        _workers = (worker,)

        def __next__(self):
            raise ConnectionResetError(104, "Connection reset by peer")

    with pytest.raises(TrainingError, match=r"worker 0 died; last sample 5 \(x 5.wav\)"):
        next(Bounded(Broken(), noting))


@pytest.mark.fault("R10")
def test_a_worker_that_exits_is_named():
    with pytest.raises(TrainingError, match=r"worker 0 died; last sample 5 \(x 5.wav\)"):
        read(lambda: os._exit(0))


def raise_(error):
    raise error


@pytest.mark.fault("R10")
@pytest.mark.parametrize("workers", [0, 2])
def test_whatever_a_dataset_raises_names_the_sample(workers):
    skipped = Skipped(size=12, limit=0.0)
    with pytest.raises(DataError, match=r"sample 5: KeyError: 'lead' \(test_reading_workers.py:\d+\)$"):
        for batch in loader(Odd(lambda: raise_(KeyError("lead"))), 2, workers):
            skipped(batch)


@pytest.mark.fault("R10")
@pytest.mark.parametrize(
    "error,kind,said",
    [
        (ComponentError("install it: pip install x"), ComponentError, "install it: pip install x"),
        (MemoryError("17 GB"), DataError, "sample 5: MemoryError: 17 GB"),
    ],
)
def test_what_a_worker_raises_is_one_line(error, kind, said):
    with pytest.raises(kind) as raised:
        for batch in loader(Odd(lambda: raise_(error)), 2, 2):
            Skipped(size=12, limit=0.0)(batch)
    assert str(raised.value).startswith(said) and len(str(raised.value).splitlines()) == 1


@pytest.mark.fault("R10")
def test_what_does_not_stack_is_one_line_from_a_worker_too(monkeypatch):
    monkeypatch.setattr(Odd, "inputs", lambda self, index: {"x": torch.zeros(3 + index, 2 + index)})
    with pytest.raises(DataError) as raised:
        read(None)
    assert str(raised.value).startswith("modality 'x': rows differ in more than one dimension")
    assert len(str(raised.value).splitlines()) == 1


def test_a_healthy_loader_gives_every_batch_and_can_be_asked_again():
    order = [[(0, i) for i in part] for part in np.array_split(np.arange(12), 5)]
    batches = Loader(Odd(lambda: None), 3, batch_sampler=order, workers=2, keep=True)
    for _ in range(2):
        assert [b.index.tolist() for b in batches] == [[i for _, i in part] for part in order]


def test_files_tell_which_they_are():
    class Plain(Reader):
        def is_file(self, cell):
            return cell.endswith(".wav")

    found = Files(
        spec=None, cells={"a": ["x.wav", ""], "b": [["y.wav", "x.wav"], ["text"]]}, readers={"a": Plain(), "b": Plain()},
        groups={}, labels={}, classes={},
    )  # fmt: skip
    assert found.files() == ["x.wav", "y.wav"]
    assert found.told(0) == "a x.wav, b y.wav" and found.told(1) == "b text"
