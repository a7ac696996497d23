"""What holds for every objective: its formula, written again as plain loops, and the rest of the interface.

Dimensions: B samples, n rows of a view, D width of z. Values and gradients are compared in float64.
"""

import inspect
import io
import os
import socket
import subprocess
import sys
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import get_type_hints

import pytest
import torch

from counterpoint.batch import Batch
from counterpoint.kernels import softmax
from counterpoint.objectives.needs import Needs, Offers, check
from counterpoint.packs.builtin import TABLES
from objectives.scenes import HEADS, SCENES, TENSORS, everything, scene

torch.set_num_threads(1)
HERE = Path(__file__).parent
FAMILIES = sorted(path.stem for path in (HERE / "objectives").glob("*.py") if path.stem not in ("scenes", "ranks"))
CASES = {name: case for family in FAMILIES for name, case in import_module(f"objectives.{family}").CASES.items()}
EVERY = pytest.mark.parametrize("name", CASES)


def build(name, **changes):
    torch.manual_seed(0)
    return partial(CASES[name].make, **changes)().double()


def called(m, o):
    """The loss, with the generators seeded as the loop seeds them before every call."""
    torch.manual_seed(3)
    return m(o)[0]


def leaves(o, m):
    return everything(o) + [p for p in m.parameters() if p.requires_grad]


def gradients(loss, wanted):
    return torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)


@pytest.mark.parametrize("tiled", [False, True], ids=["dense", "tiled"])
@pytest.mark.parametrize(("name", "where"), [(name, s) for name, case in CASES.items() for s in case.scenes])
def test_value_and_gradient_are_those_of_the_formula(name, where, tiled, monkeypatch):
    monkeypatch.setattr("counterpoint.kernels.softmax.DENSE", -1 if tiled else softmax.DENSE)
    monkeypatch.setattr("counterpoint.kernels.sigmoid.DENSE", -1 if tiled else softmax.DENSE)
    o, m = scene(where), build(name)
    torch.manual_seed(3)
    theirs = CASES[name].plain(o, m)  # first: a call may move the objective's state
    ours = called(m, o)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)
    wanted = leaves(o, m)
    for a, b in zip(gradients(ours, wanted), gradients(theirs, wanted)):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


@EVERY
def test_nothing_learns_through_the_momentum_encoders_or_the_teacher(name):
    for where in CASES[name].scenes:
        o, m = scene(where), build(name)
        fixed = [t for e in o.momentum + o.teacher for t in (e.z, e.h, e.tokens, e.map, *e.heads.values(), *e.layers)]
        assert all(not gradient.any() for gradient in gradients(called(m, o), fixed))


def turned(e, place):
    """The rows of an Encoded in reverse, of samples that now stand at `place`."""
    turn = lambda t: None if t is None else t.flip(0)  # noqa: E731
    fields = {name: turn(getattr(e, name)) for name in TENSORS}
    fields |= {kind: {name: turn(t) for name, t in getattr(e, kind).items()} for kind in ("heads", "meta")}
    fields["layers"] = tuple(turn(layer) for layer in e.layers)
    return replace(e, **fields, row=place[e.row].flip(0))


def shuffled(o):
    """The same batch with its samples, and the rows of each view, in another order."""
    order = torch.tensor([3, 0, 4, 1, 2])  # sample order[s] now stands at s
    place = order.argsort()
    table = lambda columns: {name: column[order] for name, column in columns.items()}  # noqa: E731
    batch = Batch({}, o.batch.index[order], table(o.batch.groups), table(o.batch.labels))
    sides = {side: [turned(e, place) for e in getattr(o, side)] for side in ("student", "momentum", "teacher")}
    return replace(o, batch=batch, **sides)


@EVERY
def test_the_order_of_the_batch_does_not_matter(name):
    for where in CASES[name].scenes:
        o, m, again = scene(where), build(name), build(name)
        torch.testing.assert_close(called(m, o), called(again, shuffled(o)), rtol=1e-9, atol=1e-10)


def odd_batches(where):
    layout, real = SCENES[where], torch.float32
    yield "one sample", scene(where, real, [(title, [0]) for title, _ in layout])
    yield "no row in a view", scene(where, real, [(layout[0][0], []), *layout[1:]])
    yield "no row at all", scene(where, real, [(title, []) for title, _ in layout])
    yield "no common sample", scene(where, real, [(t, [n % 5]) for n, (t, _) in enumerate(layout)])
    same = scene(where, real)
    same.batch.index = torch.full((5,), 8)
    yield "one sample five times", same
    anew = lambda change: lambda t: change(t).detach().clone().requires_grad_() if t.requires_grad else t  # noqa: E731
    yield "equal rows", scene(where, real).map(anew(lambda t: t[:1].expand_as(t)))
    yield "zero vectors", scene(where, real).map(anew(lambda t: t * 0))


def assert_finite(m, o, what):
    torch.manual_seed(3)
    loss, parts = m(o)
    assert loss.ndim == 0 and loss.isfinite(), what
    assert all(part.isfinite().all() and not part.requires_grad for part in parts.values()), what
    connected = [e.z for e in o.student] + [p for p in m.parameters() if p.requires_grad]
    for gradient in torch.autograd.grad(loss, connected, allow_unused=False, retain_graph=True):
        assert gradient.isfinite().all(), what
    assert all(gradient.isfinite().all() for gradient in gradients(loss, everything(o))), what
    return loss


@pytest.mark.fault("R11")
@EVERY
def test_odd_batches_give_a_finite_loss_connected_to_everything(name, record_property):
    survived = 0
    for where in CASES[name].scenes:
        for what, o in odd_batches(where):
            record_property("survived", survived := survived + 1)
            loss = assert_finite(build(name).float(), o, f"{where}: {what}")
            if what in ("no row at all", "no common sample") and CASES[name].zero_without_pairs:
                assert loss == 0, what


def parameters(name):
    return inspect.signature(getattr(CASES[name].make, "func", CASES[name].make)).parameters


@pytest.mark.fault("R11")
@EVERY
@pytest.mark.parametrize("temperature", [1e-4, 1e3])
def test_extreme_temperatures_stay_finite(name, temperature):
    if "temperature" not in parameters(name):
        assert not hasattr(build(name), "temperature")
        return
    for where in CASES[name].scenes:
        assert_finite(build(name, temperature=temperature).float(), scene(where, torch.float32), where)


@pytest.mark.fault("R11")
@EVERY
@pytest.mark.parametrize("size", [1e-4, 100.0])
def test_embeddings_of_half_precision_and_any_size_stay_finite(name, size):
    """What an encoder in float16 gives: 1e-8 at the least, or rows as long as a run that diverges has them."""
    for where in CASES[name].scenes:
        halved = scene(where, torch.float32).map(
            lambda t: (size * t.detach()).half().float().requires_grad_(t.requires_grad) if t.is_floating_point() else t
        )
        for e, plain in zip(halved.student, scene(where, torch.float32).student):
            e.heads |= {
                head: x for head, x in plain.heads.items() if name.startswith("cmim")
            }  # a logarithm is no embedding
        assert_finite(build(name).float(), halved, where)


@EVERY
def test_embeddings_rounded_to_bfloat16_stay_close(name):
    where = CASES[name].scenes[0]
    exact = called(build(name).eval(), scene(where))
    rounded = scene(where).map(lambda t: t.bfloat16().float() if t.is_floating_point() else t)
    loss = called(build(name).float().eval(), rounded)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), exact, rtol=0.05, atol=0.05)


@EVERY
def test_autocast_around_it_changes_nothing(name):
    where = CASES[name].scenes[0]
    plain = called(build(name).float(), scene(where, torch.float32))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(called(build(name).float(), scene(where, torch.float32)), plain)


@EVERY
def test_state_survives_a_checkpoint(name):
    where = CASES[name].scenes[0]
    m = build(name)
    for _ in range(3):
        optimise_once(m, scene(where))
    file = io.BytesIO()
    torch.save(m.state_dict(), file)
    file.seek(0)
    again = build(name)
    again.load_state_dict(torch.load(file, weights_only=True))
    for _ in range(2):  # in training mode, so that what moves must move alike
        assert torch.equal(called(m, scene(where)), called(again, scene(where)))
    with torch.no_grad():
        assert torch.equal(called(m.eval(), scene(where)), called(again.eval(), scene(where)))


@EVERY
def test_evaluation_moves_no_state(name):
    m = build(name).eval()
    before = {key: value.clone() for key, value in m.state_dict().items()}
    for where in CASES[name].scenes:
        called(m, scene(where))
    assert all(torch.equal(value, before[key]) for key, value in m.state_dict().items())


def optimise_once(m, o):
    loss, own = called(m, o), [p for p in m.parameters() if p.requires_grad]
    with torch.no_grad():
        for p, g in zip(own, torch.autograd.grad(loss, own) if own else ()):
            p -= 0.1 * g


@EVERY
def test_the_signature_is_one_a_recipe_can_fill(name):
    cls = getattr(CASES[name].make, "func", CASES[name].make)
    hints = get_type_hints(cls.__init__, include_extras=True)
    for parameter in parameters(name).values():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY and parameter.name in hints


@EVERY
def test_needs_are_met_by_the_scenes_and_refuse_a_batch_without_negatives(name):
    m = build(name)
    needs = m.needs()
    assert isinstance(needs, Needs)
    for where in CASES[name].scenes:
        views = {}
        for title, _ in SCENES[where]:
            modality, _, role = title.partition(" ")
            views.setdefault(modality, []).append(role or "global")
        labels, features = {"class": 2, "age": None}, ("tokens", "map", "input", "layers")
        heads, records = (*HEADS, "map", "scores"), dict.fromkeys(views, ("place",))
        offers = Offers(views, "toy", {"patient": 3}, labels, features, 5, heads, teacher=True, records=records)
        assert check("objective", needs, offers) == []
        alone = check("objective", needs, replace(offers, batch=1))
        assert bool(alone) == CASES[name].refuses_one


@pytest.fixture(scope="module")
def on_two_ranks(tmp_path_factory):
    """case -> loss and gradients of the whole batch, half of which each of two processes encoded."""
    path = tmp_path_factory.mktemp("ranks") / "found.pt"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path_of = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path_of, "OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}"]
    command = [*launcher, str(HERE / "objectives" / "ranks.py"), str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(path, weights_only=True)


@pytest.mark.xdist_group("objectives on two ranks")
@EVERY
def test_two_processes_have_the_loss_and_gradients_of_one(name, on_two_ranks):
    o, m = scene(CASES[name].scenes[0]), build(name)
    loss = called(m, o)
    expected = [loss, *gradients(loss, leaves(o, m))]
    for ours, theirs in zip(expected, on_two_ranks[name], strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-8, atol=1e-9)


def test_every_registered_objective_is_tried():
    assert set(TABLES["objective"]) == {name.partition(" ")[0].rstrip(",") for name in CASES}
