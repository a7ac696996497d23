"""What the objectives on prototypes and pseudo labels do over several calls, and the view that tells crops apart."""

from functools import partial

import pytest
import torch
from torch.nn.functional import normalize

import counterpoint
from building import loop, train
from counterpoint.batch import View
from counterpoint.errors import ComponentError
from counterpoint.kernels.kmeans import split_small
from counterpoint.objectives.beclr import BECLR, ClusterMemory
from counterpoint.objectives.clip import CLIP
from counterpoint.objectives.clusters import MCL, MLCD
from counterpoint.objectives.interclr import InterCLR
from counterpoint.objectives.mechanisms.sinkhorn import sinkhorn
from counterpoint.objectives.swav import SwAV
from counterpoint.randomness import Draw
from counterpoint.views.branches import Branches
from counterpoint_toy.parts import Noise, Pairs
from objectives.clusters import plain_mlcd
from objectives.scenes import scene


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_sinkhorn_balances_prototypes_and_assigns_samples_whole():
    q = sinkhorn(randn(40, 5).double() + torch.arange(5), epsilon=0.5, iterations=60)
    torch.testing.assert_close(q.sum(1), torch.ones(40).double())
    torch.testing.assert_close(q.sum(0), torch.full((5,), 8.0).double())
    far = sinkhorn(torch.cat([randn(9, 5), torch.full((1, 5), -1e4)]), epsilon=0.01, iterations=3)
    assert far.isfinite().all()


def test_prototypes_are_unit_rows_before_each_step_and_rest_at_first():
    objective = SwAV(dim=8, prototypes=6, frozen_steps=4)
    start, seen = objective.prototypes.detach().clone(), []
    objective.register_forward_hook(lambda m, *_: seen.append(m.prototypes.detach().clone()))
    train(loop({"swav": objective}, modalities=("signal",)), Pairs(size=32, modalities=["signal"]), batch=16, epochs=4)
    for step, prototypes in enumerate(seen):
        torch.testing.assert_close(prototypes.norm(dim=1), torch.ones(6))
        assert torch.allclose(prototypes, start, atol=1e-6) == (step <= 4)


def test_the_queue_of_swav_waits_for_its_epoch():
    o, m = scene("two views"), SwAV(dim=4, prototypes=6, queue=6, queue_start=2).double().eval()
    without, _ = m(o)
    o.epoch = 2
    assert m(o)[0] != without
    o.student[1].h = o.student[1].h[:, :2]  # as that of another modality may be
    assert len(m.enqueue(m.prepare(o))["keys"].z) == 10
    assert SwAV(dim=4).needs().queues == {} and m.needs().queues == {"keys": 6}


def test_with_one_label_mcl_is_clip():
    o = scene("two modalities")
    o.batch.groups["one"] = torch.zeros(5, dtype=torch.int64)
    torch.testing.assert_close(MCL(group="one")(o)[0], CLIP()(o)[0])
    o.batch.groups["one"] = torch.arange(5)
    assert MCL(group="one")(o)[0] == 0


def test_a_sample_may_have_several_classes():
    o, m = scene("two views"), MLCD(dim=4, classes=6, groups=["patient", "more"], negatives=0.7, scale=5.0).double()
    o.batch.groups["more"] = torch.tensor([3, -1, 5, 1, 2])
    torch.manual_seed(3)
    theirs = plain_mlcd(o, m)
    torch.manual_seed(3)
    torch.testing.assert_close(m(o)[0], theirs)
    o.batch.groups["more"][0] = 6
    with pytest.raises(ComponentError, match="patient, more name class 6 of 6"):
        m(o)


def test_the_memory_of_interclr_fills_clusters_and_then_pulls():
    module = loop({"inter": InterCLR(dim=8, size=48, queue=16, clusters=6, least=2, every=2, negatives=9, momentum=0.9)},
                  modalities=("signal",))  # fmt: skip
    data, memory = Pairs(size=48, modalities=["signal"]), module.objectives["inter"].memory
    train(module, data, batch=16, epochs=1)
    assert memory.seen.all() and memory.clustered and len(memory.labels.unique()) == 6
    found = []
    module.objectives["inter"].register_forward_hook(lambda m, _, result: found.append(float(result[1]["inter"])))
    train(module, data, batch=16, epochs=1)
    assert len(found) == 3 and min(found) > 0


def test_small_clusters_are_filled_from_the_largest():
    rows = normalize(torch.cat([randn(30, 4) * 0.1 + torch.tensor([1.0, 0, 0, 0]), randn(8, 4, seed=1)]), dim=1)
    labels = torch.cat([torch.zeros(30), torch.ones(6), torch.full((2,), 2)]).long()
    centres = torch.stack([rows[labels == c].mean(0) for c in range(3)])
    filled = split_small(rows, labels, centres, 4, seed=0)
    counts = torch.bincount(filled, minlength=3)
    assert counts.sum() == 38 and (counts >= 4).all()
    assert (filled[:30] == 2).any()  # a half of the largest
    assert torch.equal(split_small(rows, labels, centres, 1, seed=0), labels)


def test_a_cluster_memory_starts_when_it_is_full_and_overwrites_the_oldest():
    memory, rows = ClusterMemory(12, 4, 3), normalize(randn(20, 4), dim=1)
    memory.push(rows[:8], 0)
    assert not memory.clustered
    memory.push(rows[8:16], 0)
    assert memory.clustered and (torch.bincount(memory.labels, minlength=3) > 0).all()
    torch.testing.assert_close(memory.rows, torch.cat([rows[12:16], rows[4:12]]))
    memory.push(rows[16:], 0)
    torch.testing.assert_close(memory.rows, torch.cat([rows[12:20], rows[8:12]]))
    for cluster in range(3):
        torch.testing.assert_close(memory.centres[cluster], memory.rows[memory.labels == cluster].mean(0))
    assert memory.neighbours(rows[:5], 2).shape == (5, 2, 4)


def test_beclr_enhances_from_its_epoch_on():
    o = scene("two views", torch.float32)
    m = BECLR(dim=4, memory=10, clusters=2, neighbours=3, start=1)
    m(o)
    torch.manual_seed(0)
    early = m.eval()(o)[0]
    o.epoch = 1
    assert m.memories["teacher"].clustered and m(o)[0] != early


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (partial(SwAV, dim=4, epsilon=0.0), "temperature and epsilon are positive"),
        (partial(MLCD, dim=4, classes=1), "two classes"),
        (partial(InterCLR, dim=4, size=10, clusters=11), "11 clusters of 10 samples"),
        (partial(BECLR, dim=4, memory=5), "at least as many rows as clusters"),
        (partial(Branches, n_global=0), "at least 1 global"),
    ],
)
def test_mistakes_are_named(make, text):
    with pytest.raises(ComponentError, match=text):
        make()


def test_branches_tell_large_views_from_small_ones():
    step = Branches(global_steps=[Noise(sigma=0.1)], local_steps=[Noise(sigma=0.5)], n_global=2, n_local=3)
    assert step.layout(["raw"]) == ["global"] * 2 + ["local"] * 3
    view, ids = View("signal", torch.zeros(4, 2, 8), torch.arange(4)), torch.tensor([4, 9, 2, 7])
    views = step(view, Draw(1, ids))
    assert [v.role for v in views] == step.layout(["raw"])
    assert len({v.data.sum().item() for v in views}) == 5  # each draws for itself
    part = step(view[[2, 0]], Draw(1, ids[[2, 0]]))
    assert all(torch.equal(whole.data[[2, 0]], some.data) for whole, some in zip(views, part, strict=True))
    assert step.prepare(view) is view
    two = counterpoint.outputs(randn(4, 3), randn(4, 3, seed=1), step=0)
    assert SwAV(dim=3, prototypes=4)(two)[0] > 0
