"""What objectives of denominators and queues promise beside their formulas: limits, state, what is queued."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from building import towers
from counterpoint.batch import Queued, View
from counterpoint.by_hand.outputs import outputs
from counterpoint.errors import ComponentError
from counterpoint.fit.assembly import momentum_of
from counterpoint.objectives.decoupled import DCL, DCLW
from counterpoint.objectives.hard import HardContrastive
from counterpoint.objectives.individual import ISogCLR, SogCLR
from counterpoint.objectives.info_nce import InfoNCE
from counterpoint.objectives.mixing import FeatureTransform, Hallucinator, MoCHi
from counterpoint.objectives.moco import Contriever, MoCo
from counterpoint.objectives.neighbours import NNCLR
from counterpoint.objectives.nt_xent import MultiviewNTXent, NTXent
from counterpoint.objectives.objective import Momentum, Needs
from counterpoint.objectives.simcse import ESimCSE, SimCSE
from counterpoint.randomness import beta_quantile
from counterpoint.towers.momentum import MomentumTowers
from objectives.denominators import cosine, ordered_pairs, plain_global
from objectives.scenes import D, average, everything, lse, scene

torch.set_num_threads(1)


def value(m, o):
    torch.manual_seed(3)
    return m.double()(o)[0]


def slopes(m, o):
    return torch.autograd.grad(value(m, o), everything(o), allow_unused=True, materialize_grads=True)


def assert_same(m, other, o, factor=1.0):
    torch.testing.assert_close(value(m, o), factor * value(other, o))
    for ours, theirs in zip(slopes(m, o), slopes(other, o)):
        torch.testing.assert_close(ours, factor * theirs)


# ---- denominators ----


def test_dcl_is_nt_xent_without_the_positive_in_the_denominator():
    o = scene("two views")
    odds = [(cosine(a, p) / 0.1 - lse(cosine(a, n) / 0.1 for n in rest)).exp() for a, p, rest in ordered_pairs(o)]
    torch.testing.assert_close(value(NTXent(), o), value(DCL(), o) + average(torch.log(1 + x) for x in odds))


def test_dcl_still_pulls_a_pair_that_is_close():
    a = torch.eye(4, 8, requires_grad=True)
    b = normalize(torch.eye(4, 8) + 0.01 * torch.eye(8).flip(0)[:4], dim=1)
    pull = [torch.autograd.grad(m(outputs(a, b))[0], a)[0].norm() for m in (DCL(), NTXent())]
    assert pull[0] > 100 * pull[1]


def test_dclw_has_dcl_as_its_limit_and_weighs_distant_pairs_more():
    assert_same(DCLW(sigma=1e9), DCL(), scene("two views"))
    weighted = DCLW().positive(torch.tensor([0.9, 0.9, 0.1])) / torch.tensor([0.9, 0.9, 0.1])
    assert weighted[2] > 1 > weighted[0] and torch.isclose(weighted.mean(), torch.tensor(1.0))


def test_multiview_nt_xent_is_the_pairwise_one_for_two_views_and_not_for_three():
    assert_same(MultiviewNTXent(), NTXent(), scene("two views"))
    assert value(MultiviewNTXent(), scene("three views")) > value(NTXent(), scene("three views")) + 0.1


def test_simcse_is_info_nce_in_one_direction():
    assert_same(SimCSE(), InfoNCE(temperature=0.05, direction="forward"), scene("hard negatives"))
    o = scene("two views")
    assert_same(ESimCSE(), SimCSE(), replace(o, queues={}))
    assert value(ESimCSE(), o) > value(SimCSE(), o)


def test_all_negatives_are_the_ordinary_loss_and_pieces_change_nothing(monkeypatch):
    o = scene("rows missing")
    assert_same(HardContrastive(share=1.0), MoCo(temperature=0.3, drop_own=True), o)
    assert_same(HardContrastive(share=1.0, queue=None), InfoNCE(temperature=0.3), o)
    for make in (partial(HardContrastive, share=0.5), partial(HardContrastive, share=0.5, queue=None, simple=1.0)):
        whole = slopes(make(), o)
        monkeypatch.setattr(HardContrastive, "ELEMENTS", 12)
        for one, other in zip(slopes(make(), o), whole):
            torch.testing.assert_close(one, other)
        monkeypatch.undo()


# ---- state by sample ----


def test_sogclr_without_memory_has_the_gradient_of_dcl():
    o = scene("rows missing")
    for ours, theirs in zip(slopes(SogCLR(size=64, gamma=1.0), o), slopes(DCL(temperature=0.1), o)):
        torch.testing.assert_close(ours, 2 * 0.1 * theirs)  # the sum of two views' means, undivided by T


@pytest.mark.parametrize("state", ["mean", "sum"])
@pytest.mark.parametrize("base", [SogCLR, partial(ISogCLR, rate=0.05, rho=0.3)])
@pytest.mark.parametrize("where", ["two views", "three views", "rows missing", "captions, some missing"])
def test_the_state_of_every_epoch_is_that_of_the_formula(base, state, where):
    names = ["image", "text"] if where == "captions, some missing" else None
    m = base(size=64, modalities=names, state=state).double()
    for epoch in (0, 1, 2):
        o = replace(scene(where), epoch=epoch)
        o.student[0].z.data += 0.3 * epoch
        loss, left = plain_global(o, m)
        before = {key: buffer.clone() for key, buffer in m.state_dict().items()}
        torch.testing.assert_close(value(m, o), loss)
        for key, wanted in left.items():
            found = [getattr(m, buffer)[key] for buffer in ("log_s", "u", "tau") if hasattr(m, buffer)]
            torch.testing.assert_close(found, list(wanted))
        idle = torch.ones_like(m.log_s, dtype=torch.bool)
        for key in left:
            idle[key] = False
        assert all(torch.equal(buffer[idle], before[name][idle]) for name, buffer in m.state_dict().items())


def test_a_sample_that_is_new_after_the_first_epoch_starts_from_its_own_estimate():
    o = scene("two views")
    fresh, old = SogCLR(size=64), SogCLR(size=64)
    torch.testing.assert_close(value(fresh, replace(o, epoch=3)), value(old, o))


def test_temperatures_fall_among_like_negatives_and_rise_where_few_hold_the_weight():
    m = ISogCLR(size=8, temperature=0.5)
    like = [torch.zeros(4, 8).index_fill_(1, torch.tensor([0]), 1.0) + 1e-3 * torch.eye(4, 8)] * 2
    m(outputs(like[0], like[1].clone(), index=torch.arange(4), epoch=0))
    assert (m.tau[0, :4] < 0.5).all() and (m.tau[0, 4:] == 0.5).all()
    m = ISogCLR(size=8, temperature=0.05)
    twins = torch.eye(8)[[0, 0, 1, 2, 3, 4, 5, 6]]
    m(outputs(twins, twins.clone(), index=torch.arange(8), epoch=0))
    assert (m.tau[0, :2] > 0.05).all()


# ---- queues and mixing ----

MIXED = [
    MoCo,
    partial(MoCHi, hard=3, pairs=2, own=2),
    FeatureTransform,
    partial(Hallucinator, dim=D),
    Contriever,
    partial(HardContrastive, share=0.5),
]


@pytest.mark.parametrize("make", MIXED)
def test_queues_take_the_keys_before_any_mixing(make):
    o, m = scene("two views"), make().double()
    value(m, o)
    rows = m.enqueue(m.prepare(o))["keys"]
    z = o.momentum[1].z.detach()
    torch.testing.assert_close(rows.z, z if isinstance(m, Contriever) else normalize(z, dim=1))
    assert not rows.z.requires_grad


@pytest.mark.parametrize("make", MIXED)
def test_an_empty_queue_gives_a_zero_loss(make):
    o = scene("two views")
    assert value(make(), replace(o, queues={})) == 0
    nothing = Queued(torch.zeros(0, D, dtype=torch.float64), torch.zeros(0, dtype=torch.int64))
    assert value(make(), replace(o, queues={"keys": nothing})) == 0


def test_mixing_that_is_off_or_has_not_started_is_moco():
    o, plain = scene("two views"), MoCo(temperature=0.2)
    assert_same(FeatureTransform(positive=None, negative=None), plain, o)
    assert_same(FeatureTransform(start=1), plain, o)
    assert_same(MoCHi(start=1), plain, o)
    later = replace(o, epoch=1)
    assert value(MoCHi(start=1), later) > value(plain, later) < value(FeatureTransform(start=1), later)


def test_synthetic_negatives_made_in_pieces_are_the_same(monkeypatch):
    o, make = scene("two views"), partial(MoCHi, hard=4, pairs=3, own=2)
    whole = [value(make(), o), *slopes(make(), o)]
    monkeypatch.setattr(MoCHi, "ELEMENTS", 40)
    for one, other in zip([value(make(), o), *slopes(make(), o)], whole):
        torch.testing.assert_close(one, other)


def test_a_synthetic_negative_lies_nearer_than_the_ones_it_is_made_of():
    m, q = MoCHi(hard=6, pairs=0, own=64).double(), scene("two views").student[0].z.detach()
    queue, unit = scene("two views").queues["keys"].z, normalize(q, dim=1)
    u = [torch.rand(5, n, dtype=torch.float64) for n in (0, 0, 0, 64, 64)]
    made = m._logits(unit, queue, None, u) * m.temperature
    found = m._hardest(unit, queue, None)[0]
    source = (unit[:, None] * queue[found.gather(1, (u[3] * 6).long())]).sum(-1)
    assert (made >= source - 1e-9).all()


@pytest.mark.parametrize(
    ("a", "b"), [(0.05, 0.05), (0.15, 0.4), (0.5, 1.0), (1.0, 0.2), (1.6, 1.6), (2.0, 2.0), (3.0, 1.0), (200.0, 40.0)]
)
def test_beta_numbers_have_their_distribution(a, b):
    u = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    x = beta_quantile(u, a, b)
    assert (x >= 0).all() and (x <= 1).all() and (x.diff() >= 0).all()
    assert x.mean().item() == pytest.approx(a / (a + b), abs=1e-4)
    assert x.var().item() == pytest.approx(a * b / ((a + b) ** 2 * (a + b + 1)), rel=1e-3)
    if (a, b) == (2.0, 2.0):  # its distribution function is 3 x^2 - 2 x^3
        torch.testing.assert_close(3 * x**2 - 2 * x**3, u, atol=1e-5, rtol=0)
    if b == 1.0:
        torch.testing.assert_close(x**a, u, atol=1e-5, rtol=0)
    if a == 1.0:
        near = x < 0.999  # nearer to 1, what is left of 1 - x is rounding
        torch.testing.assert_close((1 - (1 - x) ** b)[near], u[near], atol=1e-5, rtol=0)
    torch.testing.assert_close(beta_quantile(u.float(), a, b).double(), x, atol=2e-3, rtol=0)


def test_esimcse_queues_the_first_view_and_wants_no_dropout():
    o, m = scene("two views"), ESimCSE().double()
    torch.testing.assert_close(m.enqueue(m.prepare(o))["keys"].z, normalize(o.momentum[0].z.detach(), dim=1))
    assert m.needs().momentum == Momentum(0.995, dropout=False) and m.needs().queues == {"keys": 160}


def test_nnclr_queues_the_first_view_as_embedded_and_waits_for_a_queue():
    o, m = scene("two views"), NNCLR(dim=D, hidden=8).double()
    torch.testing.assert_close(m.enqueue(m.prepare(o))["support"].z, normalize(o.student[0].z.detach(), dim=1))
    assert value(m, replace(o, queues={})) == 0


def test_nnclr_among_its_own_rows_is_info_nce_with_detached_anchors():
    o, plain = scene("two views"), NNCLR(dim=D, predictor=False)
    own = torch.cat([normalize(e.z.detach(), dim=1) for e in o.student])
    held = Queued(own, torch.full((len(own),), -1))
    torch.testing.assert_close(
        value(plain, replace(o, queues={"support": held})), value(InfoNCE(temperature=0.1, direction="both"), o)
    )


# ---- momentum encoders without dropout ----


def test_momentum_encoders_without_dropout_keep_their_batch_statistics():
    tower = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    for dropout in (True, False):
        copies = MomentumTowers(nn.ModuleDict({"x": tower}), dropout).train()
        _, norm, drop = copies.towers["x"]
        assert norm.training and drop.training == dropout
        assert not any(module.training for module in copies.eval().modules())
    batches = MomentumTowers(nn.ModuleDict(towers(("signal",), norm=True)), dropout=False).train()
    one = View("signal", torch.randn(1, 2, 32), torch.zeros(1, dtype=torch.int64))
    assert batches.towers["signal"](one, 0).z.isfinite().all()


def test_one_objective_that_wants_no_dropout_has_its_way():
    problems = SimpleNamespace(found=[])
    needs = {"a": Needs(momentum=Momentum(0.9)), "b": Needs(momentum=Momentum(0.9, dropout=False)), "c": Needs()}
    merged = lambda needs, **chosen: momentum_of(  # noqa: E731
        SimpleNamespace(momentum=SimpleNamespace(**({"decay": None, "final": None} | chosen)), where=str),
        needs,
        problems,
    )
    assert merged(needs) == Momentum(0.9, dropout=False)
    assert merged(needs, decay=0.5) == Momentum(0.5, dropout=False)
    assert merged({"a": needs["a"]}, decay=0.5) == Momentum(0.5)
    assert not problems.found


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DCLW(sigma=0.0), "sigma is positive; got 0.0"),
        (lambda: SogCLR(size=4, gamma=0.0), r"gamma in \(0, 1\].*got 0.1, 0.0 and mean"),
        (lambda: SogCLR(size=4, state="last"), "state mean or sum"),
        (lambda: ISogCLR(size=4, lowest=0.5, highest=0.1), "0 < lowest <= highest"),
        (lambda: HardContrastive(share=0.0), r"share is in \(0, 1\]; got 0.0"),
        (lambda: MoCo(label_smoothing=1.0), r"label_smoothing is in \[0, 1\); got 1.0"),
        (lambda: MoCHi(hard=0), "hard >= 1"),
        (lambda: MoCHi(pairs=0, own=0), "some synthetic negatives"),
        (lambda: FeatureTransform(positive=-1.0), "parameters of Beta are positive; got -1.0, 1.6"),
        (lambda: ESimCSE(queue=0), "queue is positive; got 0"),
        (lambda: NNCLR(dim=D, queue=0), "positive; got 0.1 and 0"),
    ],
)
def test_mistakes_are_explained(make, message):
    with pytest.raises(ComponentError, match=message):
        make()
