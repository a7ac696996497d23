"""What the foundation's objectives promise beside their formulas: messages, bounds, what enters a queue, authors' shapes."""

from dataclasses import replace

import pytest
import torch

from counterpoint.batch import Outputs, Queued
from counterpoint.by_hand.outputs import outputs
from counterpoint.errors import ComponentError
from counterpoint.kernels import softmax
from counterpoint.objectives.byol import BYOL
from counterpoint.objectives.clip import CLIP
from counterpoint.objectives.info_nce import InfoNCE
from counterpoint.objectives.moco import MoCo
from counterpoint.objectives.needs import Offers, check
from counterpoint.objectives.nt_xent import NTXent
from counterpoint.objectives.simsiam import SimSiam
from counterpoint.objectives.supcon import SupCon
from objectives.foundation import CASES
from objectives.scenes import D, scene

torch.set_num_threads(1)


def test_group_and_label_are_asked_of_the_data():
    offers = Offers({"ecg": ["global", "global"]}, "toy", {"animal": 4}, {"rhythm": 2}, (), 8)
    assert (
        "'patient' is not a group of data 'toy'; it has: animal"
        in check("o", InfoNCE(positives="patient").needs(), offers)[0]
    )
    assert "it has: rhythm" in check("o", SupCon(label="class").needs(), offers)[0]


@pytest.mark.parametrize("base", [InfoNCE, NTXent])
@pytest.mark.parametrize("tiled", [False, True], ids=["dense", "tiled"])
def test_the_decoupled_form_is_a_subclass_and_zero_for_a_batch_of_one(base, tiled, monkeypatch):
    monkeypatch.setattr("counterpoint.kernels.softmax.DENSE", -1 if tiled else softmax.DENSE)
    m = type("Decoupled", (base,), {"denominator": "negatives"})(temperature=0.2)
    o = scene("two views")
    a, b = (torch.nn.functional.normalize(e.z, dim=1) for e in o.student)
    off = lambda s: (s / 0.2).masked_fill(torch.eye(5, dtype=torch.bool), -torch.inf)  # noqa: E731
    own = [off(z @ z.T) for z in (a, b)] if base is NTXent else [off(a @ b.T)[:, :0]] * 2
    ways = [torch.cat([off(s), t], 1).logsumexp(1) for s, t in zip((a @ b.T, b @ a.T), own)]
    plain = (ways[0].mean() + ways[1].mean()) / 2 - (a * b).sum(1).mean() / 0.2
    torch.testing.assert_close(m(o)[0], plain)
    alone = outputs(torch.randn(1, D, requires_grad=True), torch.randn(1, D, requires_grad=True))
    assert m(Outputs(alone.student, alone.batch))[0] == 0  # as the loop makes them


def test_a_learned_temperature_stays_within_its_bound():
    m = CLIP()
    assert m.state_dict().keys() == {"temperature.log_scale"}
    with torch.no_grad():
        m.temperature.log_scale.fill_(9.0)
    loss, parts = m(outputs(torch.randn(4, D), torch.randn(4, D)))
    assert torch.isclose(parts["temperature"], torch.tensor(0.01)) and loss.isfinite()


@pytest.mark.parametrize("name", ["moco", "moco symmetric", "moco across"])
def test_moco_without_a_queue_is_zero_and_enqueues_the_keys_it_used(name):
    where = CASES[name].scenes[0]
    o, m = scene(where), CASES[name].make().double()
    assert m(replace(o, queues={}))[0] == 0
    empty = {q: Queued(torch.zeros(0, D, dtype=torch.float64), torch.zeros(0, dtype=torch.int64)) for q in o.queues}
    assert m(replace(o, queues=empty))[0] == 0
    rows = m.enqueue(m.prepare(o))
    assert rows.keys() == m.needs().queues.keys()
    keys = o.momentum if m.symmetric else o.momentum[1:]
    assert sum(len(e.row) for e in rows.values()) == sum(len(e.row) for e in keys)
    for e in rows.values():
        assert not e.z.requires_grad
        torch.testing.assert_close(e.z.norm(dim=1), torch.ones(len(e.row), dtype=torch.float64))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InfoNCE(temperature=0.0), "positive; got 0.0"),
        (lambda: InfoNCE(positives="patient", label_smoothing=0.1), "got positives: patient"),
        (lambda: SupCon(), "one of `label` and `group`"),
        (lambda: SupCon(label="a", group="b"), "got label: a and group: b"),
        (
            lambda: SupCon(label="age")(outputs(torch.randn(2, D), labels={"age": [0.5, 2.5]})),
            "is a value, expected a class",
        ),
        (lambda: MoCo()(scene("two modalities")), r"modalities: \[image, text\]"),
        (lambda: CLIP(label_smoothing=0.1)(scene("hard negatives")), "label_smoothing"),
        (lambda: BYOL(dim=D)(outputs(torch.randn(2, D), torch.randn(2, D))), "objective BYOL: expected `momentum`"),
    ],
)
def test_mistakes_are_explained(make, message):
    with pytest.raises(ComponentError, match=message):
        make()


def test_the_momentum_rises_to_its_final_value_along_a_half_cosine():
    momentum = BYOL(dim=D).needs().momentum
    assert [momentum.at(p) for p in (0.0, 0.5, 1.0, 2.0)] == pytest.approx([0.996, 0.998, 1.0, 1.0])
    assert MoCo().needs().momentum.at(0.7) == 0.999


def test_predictors_are_those_of_the_authors():
    parts = {cls: [(p.ndim, tuple(p.shape)) for p in cls(dim=2048).predictor.parameters()] for cls in (BYOL, SimSiam)}
    norm = lambda n: [(1, (n,))] * 2  # noqa: E731
    assert parts[BYOL] == [(2, (4096, 2048)), (1, (4096,)), *norm(4096), (2, (2048, 4096))]
    assert parts[SimSiam] == [(2, (512, 2048)), *norm(512), (2, (2048, 512)), (1, (2048,))]


def test_larger_batches_take_the_tiles_and_keep_the_value():
    n, random = 1200, torch.Generator().manual_seed(1)
    a, b = (torch.randn(n, 16, generator=random, dtype=torch.float64).requires_grad_() for _ in range(2))
    loss = CLIP().double()(outputs({"image": a, "text": b}))[0]
    x, y = (torch.nn.functional.normalize(z, dim=1) for z in (a, b))
    logits, target = x @ y.T / torch.tensor(0.07).double(), torch.arange(n)
    plain = (
        torch.nn.functional.cross_entropy(logits, target) + torch.nn.functional.cross_entropy(logits.T, target)
    ) / 2
    torch.testing.assert_close(loss, plain, rtol=1e-6, atol=0)
