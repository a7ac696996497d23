"""Soft targets, mixtures and distillation beside their formulas: operators, limits, schedules, messages."""

from dataclasses import replace

import pytest
import torch

import building
from counterpoint.batch import View
from counterpoint.by_hand.outputs import outputs
from counterpoint.errors import ComponentError
from counterpoint.kernels import Grouped, info_nce, softmax_product
from counterpoint.kernels.soft import (
    Blend,
    GroupMean,
    Indexed,
    LowRank,
    SoftmaxOf,
    divergence,
    own,
    soft_info_nce,
)
from counterpoint.objectives.albef import ALBEF, MSD
from counterpoint.objectives.clip import CLIP
from counterpoint.objectives.composite import CleanCLIP, ContrastiveGap
from counterpoint.objectives.convirt import ConVIRT
from counterpoint.objectives.cwcl import CWCL
from counterpoint.objectives.dialog2flow import Dialog2Flow
from counterpoint.objectives.distillation import DCD, ModX
from counterpoint.objectives.edited_text import TSVLC
from counterpoint.objectives.info_nce import InfoNCE
from counterpoint.objectives.m3col import M3CoL
from counterpoint.objectives.needs import Offers, check
from counterpoint.objectives.supremix import SupReMix
from counterpoint.randomness import Draw
from counterpoint.views.mix import Mix
from counterpoint.views.pipeline import Pipeline
from counterpoint_toy.parts import Pairs
from objectives.scenes import D, scene

torch.set_num_threads(1)
N, M = 5, 7


def rows(n, seed, dim=D):
    random = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(n, dim, generator=random, dtype=torch.float64), dim=1)


def operators(n=N, m=M):
    """Each operator and the table it stands for."""
    a, b = rows(n, 1, 3), rows(m, 2, 3)
    place, column = torch.tensor([0, 0, 3, 0]), torch.tensor([2, 4, 1, 2])
    weight = torch.tensor([0.5, 0.25, 1.0, 0.125], dtype=torch.float64)
    table = torch.zeros(n, m, dtype=torch.float64).index_put_((place, column), weight, accumulate=True)
    yield Indexed(place, column, weight, (n, m)), table
    yield own(n, m, a), torch.eye(n, m, dtype=torch.float64)
    ids, names = torch.arange(n) % 4, torch.arange(m) % 3
    same = (ids[:, None] == names).double()
    yield GroupMean(ids, names), same / same.sum(1, keepdim=True).clamp(min=1)
    yield LowRank(a, b), a @ b.T
    yield SoftmaxOf(a, b, 0.3), torch.softmax(a @ b.T / 0.3, 1)
    out = ids[:, None] == names
    some = torch.softmax((a @ b.T / 0.3).masked_fill(out, -torch.inf), 1)
    yield SoftmaxOf(a, b, 0.3, (ids, names)), some
    yield Blend(SoftmaxOf(a, b, 0.3), own(n, m, a), 0.3), 0.3 * torch.softmax(a @ b.T / 0.3, 1) + 0.7 * torch.eye(n, m)


@pytest.mark.parametrize("chunk", [softmax_product.CHUNK, 2 * M], ids=["whole", "in chunks"])
def test_operators_are_the_tables_they_stand_for(chunk, monkeypatch):
    monkeypatch.setattr(softmax_product, "CHUNK", chunk)
    keys, queries = rows(M, 3), rows(N, 4)
    for operator, table in operators():
        torch.testing.assert_close(operator(keys), table @ keys)
        torch.testing.assert_close(operator.mass.double(), table.sum(1))
        torch.testing.assert_close(operator.T(queries), table.T @ queries)
        torch.testing.assert_close(operator.T.mass.double(), table.sum(0))
        torch.testing.assert_close(operator.T.T(keys), table @ keys)


def test_softmax_targets_have_the_gradient_of_the_table(monkeypatch):
    ids, names = torch.arange(N) % 4, torch.arange(M) % 3
    out = ids[:, None] == names

    def slopes(operator):
        a, b, keys = (rows(n, seed, 3).requires_grad_() for n, seed in ((N, 1), (M, 2), (M, 3)))
        weights = operator(a, b)
        there = weights @ keys if isinstance(weights, torch.Tensor) else weights(keys)
        back = weights.T @ a if isinstance(weights, torch.Tensor) else weights.T(a)
        return torch.autograd.grad(there.square().sum() + back.square().sum(), (a, b, keys))

    plain = slopes(lambda a, b: torch.softmax((a @ b.T / 0.3).masked_fill(out, -torch.inf), 1))
    for chunk in (softmax_product.CHUNK, M):
        monkeypatch.setattr(softmax_product, "CHUNK", chunk)
        for one, other in zip(plain, slopes(lambda a, b: SoftmaxOf(a, b, 0.3, (ids, names)))):
            torch.testing.assert_close(one, other)


def test_the_loss_is_the_cross_entropy_of_the_table_both_ways():
    q, k = rows(N, 5), rows(M, 6)
    for operator, table in operators():
        plain = -(table * torch.log_softmax(q @ k.T / 0.2, 1)).sum(1)
        torch.testing.assert_close(soft_info_nce(q, k, 0.2, operator, reduction="none"), plain)
        backward = -(table.T * torch.log_softmax(k @ q.T / 0.2, 1)).sum(1)
        torch.testing.assert_close(soft_info_nce(k, q, 0.2, operator.T, reduction="none"), backward)
    q, k = rows(N, 5), rows(N, 6)
    for operator, table in operators(m=N):
        logits = q @ k.T / 0.2
        ways = [-(t * torch.log_softmax(s, 1)).sum(1).mean() for t, s in ((table, logits), (table.T, logits.T))]
        torch.testing.assert_close(soft_info_nce(q, k, 0.2, operator, direction=0.3), 0.3 * ways[0] + 0.7 * ways[1])
    with pytest.raises(ValueError, match="go with N = M"):
        soft_info_nce(rows(N, 1), rows(M, 2), 0.1, own(N, M, q), direction="both")


def test_a_sure_target_keeps_the_digits_of_the_hard_loss():
    q = rows(6, 1).float()
    hard = info_nce(q, q, 0.01)
    assert 0 < hard < 1e-6  # less than a float32 of the log-sum-exp, about 100, can tell
    torch.testing.assert_close(soft_info_nce(q, q, 0.01, own(6, 6, q)), hard, rtol=1e-5, atol=0)


def test_divergence_is_that_of_two_softmaxes_and_zero_of_one():
    q, k, teacher = rows(N, 1), rows(N, 2), (rows(N, 3), rows(N, 4), 0.5)
    ids = torch.tensor([0, 1, 2, 2, 3])
    for exclude in (None, (ids, ids)):
        out = torch.zeros(N, N, dtype=torch.bool) if exclude is None else ids[:, None] == ids
        new, old = ((a @ b.T / t).masked_fill(out, -1e30) for a, b, t in ((q, k, 0.2), teacher))
        p = torch.softmax(old, 1)
        plain = (p * (torch.log_softmax(old, 1) - torch.log_softmax(new, 1))).sum(1)
        torch.testing.assert_close(divergence(q, k, 0.2, teacher, exclude), plain)
        torch.testing.assert_close(divergence(*teacher, teacher, exclude), torch.zeros(N, dtype=torch.float64))


# --- limits ----------------------------------------------------------------------------------------------------------


def value(objective, o):
    torch.manual_seed(3)
    return objective.double()(o)[0]


def clip():
    return CLIP(temperature=0.2, learnable=False)


def test_objectives_without_their_own_terms_are_the_plain_ones():
    for where in ("two modalities", "captions, some missing"):
        o = scene(where)
        plain = value(clip(), o)
        assert torch.equal(value(ConVIRT(temperature=0.2, weight=0.5), o), plain)
        alone = ContrastiveGap(temperature=0.2, align_weight=0.0, uniform_weight=0.0)
        assert torch.equal(value(alone, o), plain)
        torch.testing.assert_close(value(CleanCLIP(temperature=0.2, within_weight=0.0), o), plain)
        torch.testing.assert_close(value(ModX(temperature=0.2, alpha=0.0), o), plain)
        everything = DCD(temperature=0.2, focus=0.0, distil_weight=0.0, negatives=9)
        torch.testing.assert_close(value(everything, o), plain)


def test_tsvlc_without_its_terms_is_clip_with_wider_denominators_and_no_positive_view():
    o = scene("edited text")
    bare = replace(o, student=[e for e in o.student if e.role != "positive"])
    alone = TSVLC(temperature=0.2, learnable=False, negative_weight=0.0, positive_weight=0.0)
    torch.testing.assert_close(value(alone, o), value(clip(), bare))
    assert value(clip(), bare) > value(clip(), replace(o, student=o.student[:2]))


def test_dialog2flow_becomes_the_hard_form_as_its_labels_harden():
    labels = torch.tensor([0, 1, 0, 2, 1])
    a, b, texts = rows(5, 1), rows(5, 2), torch.eye(4, dtype=torch.float64)[labels]
    o = outputs({"text": [a, b], "label": texts}, labels={"class": labels})
    hard = value(Dialog2Flow(label="class"), outputs(a, b, labels={"class": labels}))
    torch.testing.assert_close(value(Dialog2Flow(source="label", label_temperature=0.01), o), hard)
    grouped = info_nce(a, b, 0.05, positives=Grouped(labels, labels), direction="both")
    torch.testing.assert_close(hard, grouped)


def test_cwcl_of_a_source_without_likeness_is_twice_clip_but_for_a_constant_share():
    o = scene("two modalities")
    o.student[1].h = -torch.ones(5, D, dtype=torch.float64)
    same = value(CWCL(source="text", temperature=0.2, learnable=False), o)
    o.student[1].h = torch.eye(5, dtype=torch.float64) - 0.2  # cosine -1/4 between any two
    parted = value(CWCL(source="text", temperature=0.2, learnable=False), o)
    z = [torch.nn.functional.normalize(e.z, dim=1) for e in (o.student[1], o.student[0])]
    logits = torch.log_softmax(z[0] @ z[1].T / 0.2, 1)
    back = -torch.log_softmax(z[1] @ z[0].T / 0.2, 1).diagonal().mean()
    torch.testing.assert_close(same, back - logits.mean())
    w = torch.full((5, 5), 0.375, dtype=torch.float64).fill_diagonal_(1.0)
    torch.testing.assert_close(parted, back - (w / 2.5 * logits).sum(1).mean())


def test_a_share_of_one_makes_the_first_phase_of_m3col_a_contrast_of_pairs():
    o = scene("mixtures, some missing", layout=[("image mixed", [0, 1, 2, 3, 4]), ("text", [0, 1, 2, 3, 4])])
    o.student[0].meta["share"] = torch.ones(5)
    plain = InfoNCE(temperature=0.1, pairs="across")
    ordinary = replace(o, student=[replace(e, role="global") for e in o.student])
    torch.testing.assert_close(value(M3CoL(), o), value(plain, ordinary))


def test_m3col_changes_its_phase_at_its_share_of_the_run():
    o = replace(scene("mixtures"), total_steps=100)
    first, second = value(M3CoL(), o), value(M3CoL(mix_until=0.0), o)
    assert torch.equal(value(M3CoL(), replace(o, step=32)), first)
    assert torch.equal(value(M3CoL(), replace(o, step=33)), second)


def test_albef_ramps_its_distillation_over_the_first_epoch():
    make = lambda **more: ALBEF(modalities=["image", "text"], **more)  # noqa: E731
    o, m = scene("two modalities"), make(size=50, alpha=0.4)
    assert [m._alpha_at(replace(o, step=s)) for s in (0, 5, 10, 20)] == pytest.approx([0.0, 0.2, 0.4, 0.4])
    assert m._alpha_at(replace(o, step=1, epoch=1)) == 0.4
    half = value(make(size=50), replace(o, step=5))
    torch.testing.assert_close(half, value(make(alpha=0.2, ramp=False), o))


def test_albef_queues_momentum_rows_and_keeps_its_temperature_in_bounds():
    o, m = scene("two modalities"), ALBEF(modalities=["image", "text"], queue=9, size=50).double()
    entering = m.enqueue(m.prepare(o))
    assert m.needs().queues == {"keys_image": 9, "keys_text": 9} and entering.keys() == m.needs().queues.keys()
    torch.testing.assert_close(entering["keys_text"].z, torch.nn.functional.normalize(o.momentum[1].z, dim=1))
    for raw, bound in ((20.0, 0.001), (-20.0, 0.5)):
        with torch.no_grad():
            m.temperature.log_scale.fill_(raw)
        assert m(o)[1]["temperature"].item() == pytest.approx(bound)
    assert not m.enqueue(m.prepare(replace(o, momentum=[])))


def test_msd_without_distillation_is_infonce_against_momentum_keys_and_with_it_alone_ends_at_the_momentum():
    o, how = scene("two modalities"), {"modalities": ["image", "text"]}
    plain = InfoNCE(temperature=0.07, pairs="across", momentum=0.995)
    torch.testing.assert_close(value(MSD(alpha=0.0, **how), o), value(plain, o))
    there = replace(o, student=[replace(e, z=e.z.detach().clone().requires_grad_()) for e in o.momentum])
    loss = value(MSD(alpha=1.0, **how), there)
    torch.testing.assert_close(loss, torch.zeros_like(loss))
    assert all(g.abs().max() < 1e-9 for g in torch.autograd.grad(loss, [e.z for e in there.student]))


def test_a_student_like_its_teacher_has_nothing_to_keep_in_mod_x_and_dcd():
    o = scene("two modalities")
    o = replace(o, student=[replace(e, z=e.z.detach().clone().requires_grad_()) for e in o.teacher])
    for diagonal in (False, True):
        assert abs(ModX(diagonal=diagonal).double()(o)[1]["keep"]) < 1e-12
    torch.testing.assert_close(value(DCD(distil_weight=9.0), o), value(DCD(distil_weight=0.0), o))


def test_supremix_without_two_labels_in_the_window_has_no_mixed_positive_and_chunks_change_nothing(monkeypatch):
    o, m = scene("two views"), SupReMix(label="age", window=40.0)
    whole = value(m, o)
    monkeypatch.setattr(SupReMix, "CHUNK", 3 * 4 * 4)
    pieces = value(m, o)
    torch.testing.assert_close(pieces, whole)
    one, other = (torch.autograd.grad(loss, [e.z for e in o.student]) for loss in (whole, pieces))
    for a, b in zip(one, other):
        torch.testing.assert_close(a, b)
    unknown = replace(o.batch, labels={"age": torch.full((5,), torch.nan)})
    assert value(m, replace(o, batch=unknown)) == 0


# --- the view --------------------------------------------------------------------------------------------------------


def signal(n=6, **more):
    data = torch.randn(n, 2, 5, generator=torch.Generator().manual_seed(1))
    return View("ecg", data, torch.arange(n), **more)


def test_mixtures_are_what_their_meta_says_in_any_order_of_the_batch():
    view, index = signal(mask=torch.arange(5) < torch.tensor([5, 2, 3, 5, 1, 4])[:, None]), torch.arange(6) * 7
    mix = Mix(p=1.0)
    kept, mixed = mix(view, Draw(5, index))
    assert [kept.role, mixed.role] == mix.layout(["raw"]) == ["global", "mixed"] and kept.data is view.data
    share, partner = mixed.meta["share"], torch.searchsorted(index, mixed.meta["partner"])
    assert sorted(partner.tolist()) == list(range(6)) and (partner != torch.arange(6)).all()
    expected = share[:, None, None] * view.data + (1 - share)[:, None, None] * view.data[partner]
    torch.testing.assert_close(mixed.data, expected)
    assert torch.equal(mixed.mask, view.mask | (view.mask[partner] & (share < 1)[:, None]))
    turn = torch.tensor([3, 5, 0, 1, 4, 2])
    again = mix(view[turn], Draw(5, index[turn]))[1]
    assert torch.equal(again.data, mixed.data[turn]) and torch.equal(again.meta["partner"], mixed.meta["partner"][turn])


def test_rows_that_are_not_mixed_stay_and_so_does_one_row_alone():
    rest = Mix(p=0.0)(signal(), Draw(1, torch.arange(6)))[1]
    assert torch.equal(rest.data, signal().data) and (rest.meta["share"] == 1).all()
    alone = Mix(p=1.0)(signal(1), Draw(1, torch.arange(1)))[1]
    assert torch.equal(alone.data, signal(1).data) and alone.meta["share"] == 1
    negative = signal(role="negative")
    assert Mix()(negative, Draw(1, torch.arange(6))) == [negative] and Mix().layout(["negative"]) == ["negative"]


@pytest.mark.parametrize("micro", [None, 5])
def test_the_loop_carries_partners_and_shares_to_the_objective(micro, monkeypatch):
    steps = {"signal": [Mix(p=1.0)], "words": []}
    monkeypatch.setattr(building, "pipelines", lambda *_: {m: Pipeline(m, made) for m, made in steps.items()})
    module = building.loop({"m3col": M3CoL()}, micro=micro, steps=2)
    building.train(module, Pairs(size=24, missing=0.3), batch=24, epochs=1)
    kept, mixed, _ = module.last_outputs.student
    index, partner = module.last_outputs.batch.index[mixed.row], mixed.meta["partner"]
    assert torch.equal(kept.row, mixed.row) and torch.equal(partner.sort().values, index.sort().values)
    assert (mixed.meta["share"] < 1).any() and (mixed.meta["share"][partner == index] == 1).all()
    assert module.last_loss > 0


@pytest.mark.parametrize(("a", "b"), [(0.15, 0.15), (2.0, 8.0), (1.0, 1.0), (0.5, 3.0)])
def test_beta_numbers_have_the_moments_of_the_distribution(a, b):
    x = Draw(3, torch.arange(200_000)).beta(a, b).double()
    assert ((x >= 0) & (x <= 1)).all()
    assert x.mean().item() == pytest.approx(a / (a + b), abs=0.005)
    assert x.var().item() == pytest.approx(a * b / ((a + b) ** 2 * (a + b + 1)), abs=0.003)


def one_sided():
    o = scene("two modalities", torch.float32)
    return replace(o, teacher=o.teacher[:1])


# --- messages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConVIRT(weight=1.5), "weight is a share"),
        (lambda: ContrastiveGap()(scene("two views")), "needs two modalities"),
        (lambda: Dialog2Flow(), "one of `source` and `label`; got neither"),
        (lambda: Dialog2Flow(label="class", label_temperature=0.0), "a temperature is positive"),
        (lambda: Dialog2Flow(label="age")(scene("two views")), "is a value, expected a class"),
        (lambda: Dialog2Flow(source="text")(scene("two modalities")), r"views.image: \[\{use: copies, n: 2\}"),
        (lambda: SupReMix(label="age", shape=(1.0, 0.0)), "are positive"),
        (lambda: DCD(negatives=0), "at least 1"),
        (lambda: ModX()(outputs({"image": torch.randn(2, D), "text": torch.randn(2, D)})), "expected `teacher`"),
        (lambda: DCD()(one_sided()), "the teacher has no encoder for 'text'"),
        (lambda: ALBEF(), "albef: needs two modalities"),
        (lambda: MSD(modalities=["image", "text"], alpha=2.0), "msd_medical_vlp: alpha"),
        (lambda: Mix(alpha=0.0), "alpha is positive"),
        (lambda: Mix()(View("text", torch.ones(2, 3).long(), torch.arange(2)), Draw(1, torch.arange(2))), "int64"),
        (lambda: Mix()(signal(meta={"part": torch.arange(6)}), Draw(1, torch.arange(6))), "several rows"),
    ],
)
def test_mistakes_are_explained(make, message):
    with pytest.raises(ComponentError, match=message):
        make()


@pytest.mark.parametrize(("objective", "role"), [(M3CoL(), "mixed"), (TSVLC(), "negative or positive")])
def test_roles_that_no_step_makes_are_asked_for(objective, role):
    offers = Offers({"image": ["global"], "text": ["global"]}, "toy", batch=4)
    assert f"needs views of role {role}" in check("objective", objective.needs(), offers)[0]
