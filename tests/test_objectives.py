"""Every core objective against its formula, written again as plain loops; and what holds for all of them.

Dimensions: B samples, n rows of a view, D width of z. Values and gradients are compared in float64.
"""

import inspect
import io
from dataclasses import replace
from functools import partial
from typing import get_type_hints

import pytest
import torch

from counterpoint.batch import Batch, Encoded, Outputs, Queued, outputs
from counterpoint.errors import ComponentError
from counterpoint.kernels import softmax
from counterpoint.objectives.byol import BYOL
from counterpoint.objectives.clip import CLIP
from counterpoint.objectives.info_nce import InfoNCE
from counterpoint.objectives.moco import MoCo
from counterpoint.objectives.nt_xent import NTXent
from counterpoint.objectives.objective import Needs, Offers, check
from counterpoint.objectives.redundancy import BarlowTwins, VICReg
from counterpoint.objectives.siglip import SigLIP
from counterpoint.objectives.simsiam import SimSiam
from counterpoint.objectives.supcon import SupCon
from counterpoint.objectives.uniformity import AlignUniform, KoLeo

torch.set_num_threads(1)
D = 4
FULL = [0, 1, 2, 3, 4]
SCENES = {  # views as (modality, rows): partners may be missing, a sample may have several rows
    "two views": [("ecg", FULL), ("ecg", FULL)],
    "three views": [("ecg", FULL), ("ecg", FULL), ("ecg", FULL)],
    "rows missing": [("ecg", [0, 1, 3, 4]), ("ecg", [4, 2, 1, 0])],
    "two modalities": [("image", FULL), ("text", FULL)],
    "captions, some missing": [("image", [0, 1, 2, 4]), ("text", [1, 1, 2, 3, 4, 4])],
    "views and modalities": [("image", FULL), ("image", FULL), ("text", [0, 2, 3])],
    "hard negatives": [("text", FULL), ("text", FULL), ("text negative", [0, 1, 1, 4])],
}


def scene(name, dtype=torch.float64, layout=None):
    """Outputs of a scene. Samples 1 and 3 share a patient, so do 0 and 4 a label; sample 2 is unknown."""
    random = torch.Generator().manual_seed(7)
    draw = lambda n: torch.randn(n, D, generator=random, dtype=torch.float64).to(dtype)  # noqa: E731
    sides = {"student": [], "momentum": []}
    for view, (title, rows) in enumerate(layout or SCENES[name]):
        modality, _, role = title.partition(" ")
        for side in sides.values():
            z, row = draw(len(rows)).requires_grad_(), torch.tensor(rows, dtype=torch.int64)
            side.append(Encoded(modality, role or "global", view, row, z, z))
    batch = Batch({}, torch.tensor([40, 10, 20, 30, 50]))
    batch.groups["patient"] = torch.tensor([0, 1, -1, 1, 2])
    batch.labels["class"] = torch.tensor([3, 1, -1, 2, 3])
    names = ("keys", "keys_image", "keys_text", "keys_ecg")
    queues = {
        q: Queued(torch.nn.functional.normalize(draw(6), dim=1), torch.tensor([1, 2, 10, 40, 50, 3])) for q in names
    }
    return Outputs(batch=batch, queues=queues, **sides)


# --- plain loops -----------------------------------------------------------------------------------------------------


def unit(v):
    return v / v.norm()


def dot(a, b):
    return (unit(a) * unit(b)).sum()


def total(terms):
    return torch.stack(list(terms)).sum()


def average(terms):
    terms = list(terms)
    return total(terms) / len(terms)


def lse(terms):
    terms = list(terms)
    return torch.stack(terms).exp().sum().log() if terms else torch.tensor(-torch.inf, dtype=torch.float64)


def view_pairs(o, which="all"):
    views = [e for e in o.student if e.role != "negative"]
    for n, a in enumerate(views):
        for b in views[n + 1 :]:
            if which == "all" or (which == "within") == (a.modality == b.modality):
                yield a, b


def aligned(a, b):
    return [(i, j) for i, r in enumerate(a.row) for j, s in enumerate(b.row) if r == s]


def who(o, e, i, by="index"):
    sample = e.row[i]
    index = int(o.batch.index[sample])
    name = index if by == "index" else int({**o.batch.groups, **o.batch.labels}[by][sample])
    return name if by == "index" or name >= 0 else f"unknown {index}"


def plain_info_nce(o, m, which="all", by="index"):
    scale, eps, losses = 1 / m.temperature(), m.label_smoothing, []
    hard = [e for e in o.student if e.role == "negative"]

    def way(a, b, pairs):
        terms = []
        more = [e.z[j] for e in hard if e.modality == b.modality for j in range(len(e.row))]
        for i, j in pairs:
            same = [q for _, q in pairs if who(o, b, q, by) == who(o, a, i, by)]
            others = [q for _, q in pairs if who(o, b, q, by) != who(o, a, i, by)]
            candidates = [scale * dot(a.z[i], b.z[q]) for q in others] + [scale * dot(a.z[i], v) for v in more]
            if by == "index":
                pos = scale * dot(a.z[i], b.z[j])
                logps = [x - lse([pos, *candidates]) for x in [pos, *candidates]]
                terms.append(-(1 - eps) * logps[0] - eps * average(logps))
            else:
                positives = [scale * dot(a.z[i], b.z[q]) for q in same]
                terms.append(average(lse(positives + candidates) - x for x in positives))
        return average(terms)

    for a, b in view_pairs(o, which):
        if pairs := aligned(a, b):
            back = way(b, a, [(j, i) for i, j in pairs])
            losses.append(m.direction * way(a, b, pairs) + (1 - m.direction) * back)
    return average(losses)


def across(o):
    return "across" if len({e.modality for e in o.student}) > 1 else "all"


def plain_clip(o, m):
    return plain_info_nce(o, m, across(o))


def plain_nt_xent(o, m):
    scale, terms = 1 / m.temperature(), []
    rows = [(e, i) for e in o.student if e.role != "negative" for i in range(len(e.row))]
    for a, i in rows:
        for b, j in rows:
            if a is not b and who(o, a, i) == who(o, b, j):
                pos = scale * dot(a.z[i], b.z[j])
                rest = [scale * dot(a.z[i], c.z[k]) for c, k in rows if who(o, c, k) != who(o, a, i)]
                terms.append(lse([pos, *rest]) - pos)
    return average(terms)


def plain_siglip(o, m):
    t, bias, losses = m.log_scale.exp(), m.bias, []
    for a, b in view_pairs(o, across(o)):
        pairs = aligned(a, b)
        terms = [torch.log(1 + torch.exp(-(t * dot(a.z[i], b.z[j]) + bias))) for i, j in pairs]
        for i, _ in pairs:
            for _, j in pairs:
                if who(o, a, i) != who(o, b, j):
                    terms.append(torch.log(1 + torch.exp(t * dot(a.z[i], b.z[j]) + bias)))
        losses.append(total(terms) / len(pairs))
    return average(losses)


def plain_moco(o, m):
    losses = []
    for a in o.student:
        for b in o.momentum:
            if (
                a.role == "negative"
                or b.role == "negative"
                or not (b.view > a.view or (m.symmetric and b.view < a.view))
            ):
                continue
            if (m.modalities is None) != (a.modality == b.modality):
                continue
            queue = o.queues["keys" if m.modalities is None else f"keys_{b.modality}"]
            terms = []
            for i, j in aligned(a, b):
                pos = dot(a.z[i], b.z[j].detach()) / m.temperature
                seen = [z for z, n in zip(queue.z, queue.index) if not (m.drop_own and n == who(o, a, i))]
                rest = [dot(a.z[i], z) / m.temperature for z in seen]
                terms.append(lse([pos, *rest]) - pos)
            losses.append(average(terms))
    return average(losses)


def plain_momentum_info_nce(o, m):
    """Abbaspourazad et al., 2024: every student view against the momentum encoder's other views, positives by patient."""
    losses = []
    for a in o.student:
        for b in o.momentum:
            if a.view == b.view:
                continue
            pairs = aligned(a, b)
            terms = []
            for i, _ in pairs:
                logits = [dot(a.z[i], b.z[j].detach()) / m.temperature() for _, j in pairs]
                own = [x for x, (_, j) in zip(logits, pairs) if who(o, b, j, "patient") == who(o, a, i, "patient")]
                terms.append(average(lse(logits) - x for x in own))
            losses.append(average(terms))
    return average(losses)


def plain_predictor(m, z):
    first, norm, _, last = m.predictor
    x = z @ first.weight.T + (0 if first.bias is None else first.bias)
    spread = ((x - x.mean(0)) ** 2).mean(0)
    x = norm.weight * (x - x.mean(0)) / torch.sqrt(spread + norm.eps) + norm.bias
    return torch.where(x > 0, x, 0.0) @ last.weight.T + (0 if last.bias is None else last.bias)


def plain_byol(o, m):
    losses = []
    for a, b in view_pairs(o):
        one = 0.0
        for x, y in ((a, b), (b, a)):
            target = next(e.z.detach() for e in o.momentum if e.view == y.view)
            p = plain_predictor(m, x.z)
            one = one + average(((unit(p[i]) - unit(target[j])) ** 2).sum() for i, j in aligned(x, y))
        losses.append(one)
    return average(losses)


def plain_simsiam(o, m):
    losses = []
    for a, b in view_pairs(o):
        for x, y in ((a, b), (b, a)):
            p = plain_predictor(m, x.z)
            losses.append(-average(dot(p[i], y.z[j].detach()) for i, j in aligned(x, y)))
    return average(losses)


def columns(a, b):
    pairs = aligned(a, b)
    return torch.stack([a.z[i] for i, _ in pairs]), torch.stack([b.z[j] for _, j in pairs])


def plain_barlow(o, m):
    losses = []
    for a, b in view_pairs(o):
        x, y = ((z - z.mean(0)) / torch.sqrt(((z - z.mean(0)) ** 2).mean(0) + m.eps) for z in columns(a, b))
        terms = []
        for d in range(D):
            for e in range(D):
                c = average(x[i, d] * y[i, e] for i in range(len(x)))
                terms.append((1 - c) ** 2 if d == e else m.weight * c**2)
        losses.append(total(terms))
    return average(losses)


def plain_vicreg(o, m):
    losses = []
    for a, b in view_pairs(o):
        x, y = columns(a, b)
        n = len(x)
        loss = m.weights[0] * average((x[i, d] - y[i, d]) ** 2 for i in range(n) for d in range(D))
        for z in (x, y):
            z = z - z.mean(0)
            cov = [[total(z[i, d] * z[i, e] for i in range(n)) / (n - 1) for e in range(D)] for d in range(D)]
            loss = loss + m.weights[1] * m.share * average(
                (1 - (cov[d][d] + m.eps).sqrt()).clamp(min=0) for d in range(D)
            )
            loss = loss + m.weights[2] * total(cov[d][e] ** 2 for d in range(D) for e in range(D) if d != e) / D
        losses.append(loss)
    return average(losses)


def plain_supcon(o, m):
    by, terms = m.group or m.label, []
    rows = [(e, i) for e in o.student if e.role != "negative" for i in range(len(e.row))]
    for n, (a, i) in enumerate(rows):
        logits = [dot(a.z[i], b.z[j]) / m.temperature for b, j in rows]
        rest = [x for k, x in enumerate(logits) if k != n]
        same = [logits[k] for k, (b, j) in enumerate(rows) if k != n and who(o, b, j, by) == who(o, a, i, by)]
        terms.append(average(lse(rest) - x for x in same) if same else a.z[i].sum() * 0)
    return m.factor * average(terms)


def plain_align_uniform(o, m):
    align = [
        average((unit(a.z[i]) - unit(b.z[j])).norm() ** m.alpha for i, j in aligned(a, b)) for a, b in view_pairs(o)
    ]
    uniform = []
    for e in (e for e in o.student if e.role != "negative"):
        pairs = [(i, j) for i in range(len(e.row)) for j in range(i) if e.row[i] != e.row[j]]
        uniform.append(average((-m.t * ((unit(e.z[i]) - unit(e.z[j])) ** 2).sum()).exp() for i, j in pairs).log())
    return m.align_weight * average(align) + m.uniform_weight * average(uniform)


def plain_koleo(o, m):
    losses = []
    for e in (e for e in o.student if e.role != "negative"):
        terms = []
        for i, r in enumerate(e.row):
            distances = [(unit(e.z[i]) - unit(e.z[j])).norm() for j, s in enumerate(e.row) if s != r]
            terms.append(-(min(distances) + m.eps).log())
        losses.append(average(terms))
    return average(losses)


ONE = ("two views", "three views", "rows missing")
MANY = ("two modalities", "captions, some missing", "views and modalities")
ALL = (*ONE, *MANY, "hard negatives")
CASES = {  # name -> (how it is built, its plain loops, scenes)
    "info_nce": (InfoNCE, plain_info_nce, ALL),
    "info_nce learned": (partial(InfoNCE, learnable=True, temperature=0.3), plain_info_nce, ALL),
    "info_nce group": (partial(InfoNCE, positives="patient"), partial(plain_info_nce, by="patient"), ALL),
    "info_nce within": (
        partial(InfoNCE, pairs="within", direction="forward"),
        partial(plain_info_nce, which="within"),
        ONE,
    ),
    "info_nce across": (partial(InfoNCE, pairs="across", direction=0.3), partial(plain_info_nce, which="across"), MANY),
    "info_nce momentum": (partial(InfoNCE, positives="patient", momentum=0.99), plain_momentum_info_nce, ONE),
    "nt_xent": (NTXent, plain_nt_xent, ALL),
    "clip": (CLIP, plain_clip, (*ONE, *MANY)),
    "clip smoothed": (partial(CLIP, label_smoothing=0.1), plain_clip, (*ONE, *MANY)),
    "siglip": (SigLIP, plain_siglip, ALL),
    "moco": (MoCo, plain_moco, (*ONE, "hard negatives")),
    "moco symmetric": (partial(MoCo, symmetric=True), plain_moco, ONE),
    "moco, own rows out": (partial(MoCo, drop_own=True), plain_moco, ONE),
    "moco across": (partial(MoCo, modalities=["image", "text"], symmetric=True), plain_moco, MANY),
    "byol": (partial(BYOL, dim=D, hidden=24), plain_byol, ALL),
    "simsiam": (partial(SimSiam, dim=D, hidden=6), plain_simsiam, ALL),
    "barlow_twins": (BarlowTwins, plain_barlow, ALL),
    "vicreg": (VICReg, plain_vicreg, ALL),
    "vicreg released": (partial(VICReg, variance_mean=True), plain_vicreg, ONE),
    "supcon label": (partial(SupCon, label="class"), plain_supcon, ALL),
    "supcon group": (partial(SupCon, group="patient", base_temperature=0.07), plain_supcon, ALL),
    "align_uniform": (AlignUniform, plain_align_uniform, ALL),
    "align_uniform, alpha 3": (partial(AlignUniform, alpha=3.0, uniform_weight=0.5), plain_align_uniform, ONE),
    "koleo": (KoLeo, plain_koleo, ALL),
}
EVERY = pytest.mark.parametrize("name", CASES)


def build(name, **changes):
    torch.manual_seed(0)
    return partial(CASES[name][0], **changes)().double()


def leaves(o, m):
    return [e.z for e in o.student] + [p for p in m.parameters() if p.requires_grad]


def gradients(loss, wanted):
    return torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)


# --- properties ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tiled", [False, True], ids=["dense", "tiled"])
@pytest.mark.parametrize(("name", "where"), [(name, s) for name, case in CASES.items() for s in case[2]])
def test_value_and_gradient_are_those_of_the_formula(name, where, tiled, monkeypatch):
    monkeypatch.setattr("counterpoint.kernels.softmax.DENSE", -1 if tiled else softmax.DENSE)
    monkeypatch.setattr("counterpoint.kernels.sigmoid.DENSE", -1 if tiled else softmax.DENSE)
    o, m = scene(where), build(name)
    ours, theirs = m(o)[0], CASES[name][1](o, m)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)
    wanted = leaves(o, m)
    for a, b in zip(gradients(ours, wanted), gradients(theirs, wanted)):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


def shuffled(o):
    """The same batch with its samples, and the rows of each view, in another order."""
    order = torch.tensor([3, 0, 4, 1, 2])  # sample order[s] now stands at s
    place = order.argsort()
    turn = lambda e: replace(e, z=e.z.flip(0), h=e.h.flip(0), row=place[e.row].flip(0))  # noqa: E731
    table = lambda columns: {name: column[order] for name, column in columns.items()}  # noqa: E731
    batch = Batch({}, o.batch.index[order], table(o.batch.groups), table(o.batch.labels))
    return replace(o, batch=batch, student=[turn(e) for e in o.student], momentum=[turn(e) for e in o.momentum])


@EVERY
def test_the_order_of_the_batch_does_not_matter(name):
    for where in CASES[name][2]:
        o, m = scene(where), build(name)
        torch.testing.assert_close(m(o)[0], m(shuffled(o))[0], rtol=1e-9, atol=1e-10)


def odd_batches(where):
    layout = SCENES[where]
    yield "one sample", scene(where, torch.float32, [(title, [0]) for title, _ in layout])
    yield "no row in a view", scene(where, torch.float32, [(layout[0][0], []), *layout[1:]])
    yield "no row at all", scene(where, torch.float32, [(title, []) for title, _ in layout])
    yield "no common sample", scene(where, torch.float32, [(t, [n % 5]) for n, (t, _) in enumerate(layout)])
    same = scene(where, torch.float32)
    same.batch.index = torch.full((5,), 8)
    yield "one sample five times", same
    twins = scene(where, torch.float32)
    yield (
        "equal rows",
        twins.map(lambda t: t[:1].expand_as(t).detach().clone().requires_grad_() if t.is_floating_point() else t),
    )
    yield (
        "zero vectors",
        scene(where, torch.float32).map(lambda t: (t * 0).detach().requires_grad_() if t.is_floating_point() else t),
    )


def assert_finite(m, o, what):
    loss, parts = m(o)
    assert loss.ndim == 0 and loss.isfinite(), what
    assert all(part.isfinite().all() and not part.requires_grad for part in parts.values()), what
    for gradient in torch.autograd.grad(loss, leaves(o, m), allow_unused=False):
        assert gradient.isfinite().all(), what
    return loss


@EVERY
def test_odd_batches_give_a_finite_loss_connected_to_everything(name):
    for where in CASES[name][2]:
        for what, o in odd_batches(where):
            loss = assert_finite(build(name).float(), o, f"{where}: {what}")
            if what in ("no row at all", "no common sample") and not name.startswith(("supcon", "koleo", "align")):
                assert loss == 0, what


@EVERY
@pytest.mark.parametrize("temperature", [1e-3, 1e3])
def test_extreme_temperatures_stay_finite(name, temperature):
    cls = getattr(CASES[name][0], "func", CASES[name][0])
    if "temperature" not in inspect.signature(cls).parameters:
        assert not hasattr(build(name), "temperature")
        return
    for where in CASES[name][2]:
        assert_finite(build(name, temperature=temperature).float(), scene(where, torch.float32), where)


@EVERY
def test_embeddings_rounded_to_bfloat16_stay_close(name):
    where = CASES[name][2][0]
    exact = build(name).eval()(scene(where))[0]
    rounded = scene(where).map(lambda t: t.bfloat16().float() if t.is_floating_point() else t)
    loss = build(name).float().eval()(rounded)[0]
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), exact, rtol=0.05, atol=0.05)


@EVERY
def test_state_survives_a_checkpoint(name):
    where = CASES[name][2][0]
    m = build(name)
    for _ in range(3):
        optimise_once(m, scene(where))
    file = io.BytesIO()
    torch.save(m.state_dict(), file)
    file.seek(0)
    again = build(name)
    again.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        assert torch.equal(m.eval()(scene(where))[0], again.eval()(scene(where))[0])


def optimise_once(m, o):
    loss, _ = m(o)
    own = [p for p in m.parameters() if p.requires_grad]
    with torch.no_grad():
        for p, g in zip(own, torch.autograd.grad(loss, own) if own else ()):
            p -= 0.1 * g


@EVERY
def test_the_signature_is_one_a_recipe_can_fill(name):
    cls = getattr(CASES[name][0], "func", CASES[name][0])
    hints = get_type_hints(cls.__init__, include_extras=True)
    for parameter in list(inspect.signature(cls).parameters.values()):
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY and parameter.name in hints


@EVERY
def test_needs_are_met_by_the_scenes_and_refuse_a_batch_without_negatives(name):
    m = build(name)
    needs = m.needs()
    assert isinstance(needs, Needs)
    for where in CASES[name][2]:
        views = {}
        for title, _ in SCENES[where]:
            modality, _, role = title.partition(" ")
            views.setdefault(modality, []).append(role or "global")
        offers = Offers(views, "toy", {"patient": 3}, {"class": 2}, (), 5)
        assert check("objective", needs, offers) == []
        alone = check("objective", needs, replace(offers, batch=1))
        assert bool(alone) == (not name.startswith("moco"))  # a queue gives negatives to a batch of one


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
    assert assert_finite(m, alone, "one sample") == 0


def test_a_learned_temperature_stays_within_its_bound():
    m = CLIP()
    assert m.state_dict().keys() == {"temperature.log_scale"}
    with torch.no_grad():
        m.temperature.log_scale.fill_(9.0)
    loss, parts = m(outputs(torch.randn(4, D), torch.randn(4, D)))
    assert torch.isclose(parts["temperature"], torch.tensor(0.01)) and loss.isfinite()


@pytest.mark.parametrize("name", ["moco", "moco symmetric", "moco across"])
def test_moco_without_a_queue_is_zero_and_enqueues_the_keys_it_used(name):
    where = CASES[name][2][0]
    o, m = scene(where), build(name)
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


def test_every_registered_objective_has_its_plain_loops():
    from counterpoint.builtin import TABLES

    assert set(TABLES["objective"]) == {name.partition(" ")[0].rstrip(",") for name in CASES}
