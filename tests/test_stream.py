"""Data that is read from front to back: every sample once an epoch, the same whoever reads, little held, nothing read twice."""

import gzip
import importlib
import json
import pickle
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from counterpoint.data.dataset import Sample, Spec
from counterpoint.data.loader import Loader
from counterpoint.data.plan import Order, Plan, by_group, distinct, neighbours, shuffle
from counterpoint.data.spread import spread
from counterpoint.data.stream import Stream, Stretches
from counterpoint.errors import ComponentError, DataError, RecipeError
from counterpoint.fit.assembly import build_dataset
from counterpoint.recipe import load
from counterpoint.testing.datasets import checks
from tars import shards_of


class Numbers(torch.utils.data.IterableDataset):
    """What can only be read from its first number."""

    def __init__(self, first: int, count: int):
        self.first, self.count = first, count

    def __iter__(self):
        yield from range(self.first, self.first + self.count)


class Cursors(Stream):
    """A stream of torch's iterable datasets."""

    window, together = 12, 3

    def __init__(self, counts, missing=0):
        self.parts = counts
        self.spec = Spec(sum(counts), {"x": {"length": 1}})
        starts = self.stretches().starts()
        self.cursors = [Numbers(int(a), n) for a, n in zip(starts, counts)]
        self.cursors[-1].count -= missing
        self.opened, self.most = [], 0

    def records(self, part):
        self.opened.append(part)
        yield from self.cursors[part]

    def sample(self, record, index):
        self.most = max(self.most, sum(len(part.held) for part in self._open.open.values()))
        assert record == index
        noise = torch.rand(1)
        return Sample({"x": torch.tensor([float(record)]) + noise})


COUNTS = [7, 30, 1, 12, 9, 5, 22]


def plan_of(dataset, batch=8, start=0, **options) -> Plan:
    plan = Plan(shuffle(), Order.of(dataset, batch), 5, **options)
    plan.position = lambda: start
    return plan


def read(dataset, workers=0, **options):
    return [
        (b.index.tolist(), b.inputs["x"].data[:, 0].tolist())
        for b in Loader(dataset, 5, batch_sampler=plan_of(dataset, **options), workers=workers)
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=9), st.integers(1, 5), st.integers(1, 17), st.integers(0, 3))
def test_blocks_hold_every_sample_once_and_a_part_from_front_to_back(parts, together, length, seed):
    stretches = Stretches(parts, together, length)
    blocks = list(stretches.blocks(np.random.default_rng(seed)))
    starts, places = stretches.starts(), np.concatenate([*blocks, np.zeros(0, dtype=np.int64)])
    assert sorted(places.tolist()) == list(range(sum(parts)))
    of = np.searchsorted(starts, places, side="right") - 1
    for part in range(len(parts)):  # side by side, but each forwards
        assert np.all(np.diff(places[of == part]) > 0)
    for block in blocks:
        inside = np.searchsorted(starts, block, side="right") - 1
        assert len(set(inside.tolist())) <= together
        assert all(np.sum(inside == part) <= length for part in inside)


def test_an_epoch_is_the_same_with_any_workers_and_from_any_batch():
    straight = read(Cursors(COUNTS))
    assert sorted(i for index, _ in straight for i in index) == list(range(sum(COUNTS)))
    for workers, start in ((1, 0), (2, 0), (0, 4), (2, 7), (2, 10)):
        assert read(Cursors(COUNTS), workers, start=start) == straight[start:], (workers, start)
    parts = [read(Cursors(COUNTS), world=2, rank=rank) for rank in range(2)]
    assert [a[0] + b[0] for a, b in zip(*parts)] == [index for index, _ in straight]


def test_epochs_differ_and_mix_within_windows():
    plan = plan_of(Cursors(COUNTS))
    first, second = (np.concatenate(plan.batches(epoch)) for epoch in range(2))
    assert first.tolist() != second.tolist() and sorted(first) == sorted(second)
    assert not np.array_equal(first, np.sort(first))


def test_a_part_is_opened_once_an_epoch_and_little_is_held():
    data = Cursors(COUNTS)
    read(data)
    assert sorted(data.opened) == list(range(len(COUNTS)))
    assert data.most <= 2 * data.window


def test_workers_do_not_share_what_the_first_process_has_open():
    data = Cursors(COUNTS)
    straight = read(Cursors(COUNTS))
    torch.manual_seed(0)
    data[30], data[2]  # open, somewhere in the middle, when the workers begin
    assert read(data, 2) == straight
    assert "_open" not in pickle.loads(pickle.dumps(data)).__dict__


def test_any_sample_can_be_asked_for():
    data = Cursors(COUNTS)
    for index in [5, 80, 0, 37, 36, 38, 85, 7]:
        assert int(data[index].inputs["x"]) == index
    for index in (-1, sum(COUNTS)):
        with pytest.raises(IndexError, match=f"sample {index} of a dataset of 86"):
            data[index]


def test_a_part_that_ends_early_is_said_for_each_of_its_samples_and_not_read_again():
    data = Cursors(COUNTS, missing=2)
    for index in (84, 85, 84):
        with pytest.raises(DataError, match="part 6 of the stream ended after 20 of 22 samples"):
            data[index]
    assert data.opened == [6]
    assert int(data[80].inputs["x"]) == 80


@pytest.mark.parametrize("make", [lambda: by_group(by="a"), lambda: distinct(by="a"), lambda: neighbours(by="a")])
def test_samplers_of_another_order_are_refused(make):
    with pytest.raises(ComponentError, match="the data is a stream, which is read from front to back; its sampler is"):
        make()(Order.of(Cursors(COUNTS), 8), np.random.default_rng(0))


def test_a_few_samples_of_a_stream_are_the_first_ones_of_its_parts():
    data = Cursors(COUNTS)
    places = [data.place(i) for i in spread(data, 12).tolist()]
    assert places == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (3, 0), (3, 1), (4, 0), (4, 1), (5, 0), (5, 1), (6, 0)]
    assert spread(data, 100).tolist() == list(range(86))


def test_a_stream_says_what_a_subclass_has_to_define():
    for ask, name in ((lambda s: s.records(0), "records"), (lambda s: s.sample(None, 0), "sample")):
        with pytest.raises(TypeError, match=f"Stream must define {name}"):
            ask(Stream())


def test_an_iterable_dataset_of_torchs_is_refused_with_the_way_on():
    numbers = Numbers(0, 4)
    numbers.spec = Spec(4, {"x": {}})
    recipe = SimpleNamespace(
        data=SimpleNamespace(name="p.numbers", build=lambda: numbers), where=lambda path: f"r.yaml:1: {path}"
    )
    with pytest.raises(
        ComponentError,
        match=r"r.yaml:1: data: 'p.numbers' is one of torch's iterable .*derive it from counterpoint.data.stream.Stream",
    ):
        build_dataset(recipe)


def test_the_stream_of_the_page_works(tmp_path, monkeypatch):
    page = (Path(__file__).parents[1] / "docs/packs.md").read_text()
    (block,) = [found for found in re.findall(r"```python\n(.*?)```", page, flags=re.S) if "(Stream)" in found]
    (tmp_path / "dumps_of_the_page.py").write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    Dumps = importlib.import_module("dumps_of_the_page").Dumps
    for part, first in enumerate((0, 7)):
        lines = [json.dumps([[i, 1.0, 2.0], [3.0, 4.0, 5.0]]) + "\n" for i in range(first, first + 7)]
        (tmp_path / f"{part}.jsonl.gz").write_bytes(gzip.compress("".join(lines).encode()))
    data = Dumps(path=str(tmp_path / "*.gz"))
    for check in checks(data):
        check(data)
    batches = list(Loader(data, 0, batch_sampler=plan_of(data, batch=5), workers=2))
    assert sorted(int(x) for b in batches for x in b.inputs["signal"].data[:, 0, 0]) == list(range(14))
    assert all(torch.equal(b.inputs["signal"].data[:, 0, 0].long(), b.index) for b in batches)
    (tmp_path / "1.jsonl.gz").write_bytes((tmp_path / "1.jsonl.gz").read_bytes()[:-9])
    with pytest.raises(DataError, match=r"1.jsonl.gz: truncated or damaged"):
        Dumps(path=str(tmp_path / "*.gz"))


def test_nothing_is_made_of_a_stream(tmp_path):
    shards_of(tmp_path / "s", [8])
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "data: {use: without, samples: x.txt, of: {use: shards, path: s, inputs: {signal: npy}}}\n"
        "encoders: {signal: ecg.resnet1d}\nobjective: nt_xent\n".replace("path: s", f"path: {tmp_path / 's'}")
    )
    with pytest.raises(RecipeError, match=r"data.of: 'shards' is a stream, of which no other dataset can be made"):
        load(recipe).data.build()
