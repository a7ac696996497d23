"""The order of samples: a pure function of (seed, epoch), each sample once, started anywhere."""

import numpy as np
import pytest

from counterpoint.data.plan import Order, Plan, by_group, shuffle
from counterpoint.errors import ComponentError

GROUPS = {"animal": np.array([0, 0, 0, 1, 1, 2, -1, -1, 3, 3, 3, 3, 4, 4, 5])}


def plan(sampler=None, size=15, batch=4, world=1, rank=0, seed=3):
    return Plan(sampler or shuffle(), Order(size, batch, 2 * world, GROUPS), seed, world, rank)


@pytest.mark.parametrize("sampler", [shuffle(), by_group(by="animal"), by_group(by="animal", per_group=3)])
@pytest.mark.parametrize("size,batch", [(15, 4), (15, 15), (15, 40), (15, 7)])
def test_every_sample_once_an_epoch(sampler, size, batch):
    made = plan(sampler, size, batch)
    for epoch in range(3):
        batches = made.batches(epoch)
        assert sorted(np.concatenate(batches)) == list(range(size))
        assert len(batches) == len(made)
        assert all(len(b) >= 2 for b in batches)


def test_epochs_and_seeds_differ_and_repeat():
    a, b = plan(), plan()
    assert all(np.array_equal(x, y) for x, y in zip(a.batches(1), b.batches(1)))
    assert not np.array_equal(np.concatenate(a.batches(0)), np.concatenate(a.batches(1)))
    assert not np.array_equal(np.concatenate(a.batches(0)), np.concatenate(plan(seed=4).batches(0)))


@pytest.mark.parametrize("done", range(9))
def test_it_goes_on_at_any_position(done):
    made = plan()
    straight = [place for epoch in range(3) for place in made_epoch(epoch)]
    made.position = lambda: done
    rest = list(made)
    assert rest == straight[done : done + len(rest)]
    assert len(rest) == len(made) - done % len(made)


def made_epoch(epoch):
    made = plan()
    made.position = lambda: epoch * len(made)
    return list(made)


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_cut_the_global_batch(world):
    parts = [list(plan(world=world, rank=rank, batch=6)) for rank in range(world)]
    whole = plan(world=world, batch=6).batches(0)
    for pieces, expected in zip(zip(*parts), whole, strict=True):
        assert [i for piece in pieces for _, i in piece] == list(expected)
        assert all(pieces)


def test_groups_stand_together():
    """Full handfuls of a group are in one batch; unknown groups are nobody's partner."""
    for epoch in range(5):
        for batch in plan(by_group(by="animal", per_group=2), batch=4).batches(epoch)[:2]:
            ids = GROUPS["animal"][batch]
            assert -1 not in ids
            assert sorted(np.unique(ids, return_counts=True)[1].tolist()) in ([2, 2], [4])


def test_an_unknown_group_is_named():
    with pytest.raises(ComponentError, match="'aniaml' is not a group of the data; did you mean 'animal'"):
        plan(by_group(by="aniaml"))
