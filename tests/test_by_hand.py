"""A loop of one's own: what is given by hand is what the loop would give, and what is lacking is said.

Dimensions: B samples, D width of z, K rows of a queue.
"""

import re
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

import counterpoint
from counterpoint import cli, encoded, outputs, recipe
from counterpoint.batch import Batch, Outputs, Queued
from counterpoint.by_hand.outputs import ByHand, NotSaid
from counterpoint.errors import ComponentError
from counterpoint.objectives.called import described
from counterpoint.objectives.needs import Offers, check
from counterpoint.packs import aliases, registry
from counterpoint.packs.builtin import TABLES
from objectives.scenes import everything, scene

HERE = Path(__file__).parent
FAMILIES = sorted(path.stem for path in (HERE / "objectives").glob("*.py") if path.stem not in ("scenes", "ranks"))
CASES = {name: case for family in FAMILIES for name, case in import_module(f"objectives.{family}").CASES.items()}
B, D = 6, 8


def rows(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


A, Z, K = rows(B, D, seed=1), rows(B, D, seed=2), rows(B, D, seed=3)
TWO = {"image": A, "text": Z}
INDEX = torch.arange(B)
NONE = torch.zeros(0, D)


def build(name, **parameters):
    torch.manual_seed(0)
    return counterpoint.build("objective", name, **parameters)


def called(objective, seen):
    torch.manual_seed(3)
    return objective(seen)[0]


# --- the 64 objectives ---------------------------------------------------------------------------------------------------


def by_hand(o, needs):
    """The same batch in the words of a call: tensors, and `encoded` where a view has more than z."""
    said = lambda e: encoded(  # noqa: E731
        e.z, h=e.h, tokens=e.tokens, mask=e.mask, map=e.map, heads=e.heads, role=e.role, row=e.row, meta=e.meta,
        layers=e.layers, input=e.input, input_mask=e.input_mask, view=e.view,
    )  # fmt: skip
    sides = {side: [{e.modality: said(e)} for e in getattr(o, side)] for side in ("student", "momentum", "teacher")}
    return outputs(
        *sides["student"],
        momentum=sides["momentum"] if needs.momentum else (),
        teacher=sides["teacher"] if needs.teacher else (),
        queues={name: o.queues[name] for name in needs.queues},
        index=o.batch.index, groups=o.batch.groups, labels=o.batch.labels,
        step=0, epoch=0, total_steps=1,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*does not look at views of role")
@pytest.mark.parametrize("name", CASES)
def test_a_call_has_the_value_and_the_gradient_that_the_loop_has(name):
    where = CASES[name].scenes[-1]
    torch.manual_seed(0)
    theirs, ours = (CASES[name].make().double() for _ in range(2))
    ours.load_state_dict(theirs.state_dict())
    o = scene(where)
    loss, again = called(theirs, o), called(ours, by_hand(o, ours.needs()))
    torch.testing.assert_close(again, loss, rtol=1e-12, atol=1e-13)
    found = [torch.autograd.grad(x, everything(o), allow_unused=True, materialize_grads=True) for x in (again, loss)]
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)


def test_all_objectives_are_called():
    assert {name.partition(" ")[0].rstrip(",") for name in CASES} == set(TABLES["objective"])


# --- what a formula depends on and nobody said (A) -----------------------------------------------------------------------

MOMENTUM = {"momentum": [{"image": A, "text": Z}]}
QUEUES = {"queues": {"keys_image": NONE, "keys_text": NONE}}
MODALITIES = {"modalities": ["image", "text"]}
ASKS = {
    "sogclr": ({"size": 9}, lambda **more: outputs(A, Z, index=INDEX, **more), "epoch"),
    "isogclr": ({"size": 9}, lambda **more: outputs(A, Z, index=INDEX, **more), "epoch"),
    "swav": ({"dim": D, "prototypes": 4}, lambda **more: outputs(A, Z, **more), "step"),
    "swav with a queue": (
        {"dim": D, "prototypes": 4, "frozen_steps": 0, "queue": 5},
        lambda **more: outputs(A, Z, queues={"keys": K}, **more),
        "epoch",
    ),
    "albef": (MODALITIES | {"size": 9}, lambda **more: outputs(TWO, **MOMENTUM, **QUEUES, **more), "epoch"),
    "beclr": ({"dim": D}, lambda **more: outputs(A, Z, momentum=[A, Z], **more), "epoch"),
    "mochi": (
        {"start": 2, "hard": 3, "pairs": 2, "own": 2},
        lambda **more: outputs(A, Z, momentum=[A, Z], queues={"keys": K}, **more),
        "epoch",
    ),
    "feat_transform": (
        {"start": 2},
        lambda **more: outputs(A, Z, momentum=[A, Z], queues={"keys": K}, **more),
        "epoch",
    ),
    "interclr": (
        {"dim": D, "size": 9, "clusters": 2},
        lambda **more: outputs(A, Z, momentum=[A, Z], queues={"keys": K}, index=INDEX, **more),
        "epoch",
    ),
    "m3col": ({}, lambda **more: outputs(TWO, {"image": mixed(K)}, index=INDEX, **more), "total_steps"),
}


def mixed(z):
    return encoded(z, role="mixed", meta={"partner": INDEX.roll(1), "share": torch.full((B,), 0.7)})


@pytest.mark.parametrize("name", ASKS)
def test_what_the_formula_depends_on_is_asked_for(name):
    parameters, give, wanted = ASKS[name]
    objective = build(name.partition(" ")[0], **parameters)
    before = {key: value.clone() for key, value in objective.state_dict().items()}
    with pytest.raises(
        ComponentError,
        match=rf"objective {type(objective).__name__}: .* depends on the {wanted.replace('_', ' ')}.*outputs\(\.\.\., {wanted}=",
    ):
        objective(give())
    assert all(torch.equal(value, before[key]) for key, value in objective.state_dict().items())
    assert objective(give(step=0, epoch=0, total_steps=10))[0].isfinite()


@pytest.mark.parametrize(
    ("name", "parameters", "give"),
    [
        ("sogclr", {"size": 9, "gamma": 1.0}, lambda: outputs(A, Z, index=INDEX)),
        ("swav", {"dim": D, "prototypes": 4, "frozen_steps": 0}, lambda: outputs(A, Z)),
        ("albef", MODALITIES | {"ramp": False}, lambda: outputs(TWO, **MOMENTUM, **QUEUES)),
        ("albef", MODALITIES | {"alpha": 0.0}, lambda: outputs(TWO, **MOMENTUM, **QUEUES)),
        ("beclr", {"dim": D, "start": 0}, lambda: outputs(A, Z, momentum=[A, Z])),
        ("mochi", {"hard": 3, "pairs": 2, "own": 2}, lambda: outputs(A, Z, momentum=[A, Z], queues={"keys": K})),
        ("m3col", {"mix_until": 0.0}, lambda: outputs(TWO)),
    ],
)
def test_what_the_formula_does_not_depend_on_is_not_asked_for(name, parameters, give):
    assert build(name, **parameters)(give())[0].isfinite()


def test_whatever_is_done_with_what_nobody_said_asks_for_it():
    for use in (
        int,
        float,
        bool,
        hash,
        len,
        list,
        str.format,
        lambda x: x + 1,
        lambda x: 2 * x,
        lambda x: x < 3,
        torch.tensor,
    ):
        with pytest.raises(ComponentError, match=r"outputs\(\.\.\., epoch=epoch\)"):
            use(outputs(A, Z).epoch) if use is not str.format else f"{outputs(A, Z).epoch:d}"
    o = outputs(A, Z)
    assert isinstance(replace(o, student=o.student).step, NotSaid) and replace(o, step=3).step == 3
    o.epoch = 4
    assert o.epoch == 4 and outputs(A, Z, epoch=5, step=torch.tensor(6)).step == 6


def test_the_memory_of_sogclr_is_used_after_the_first_epoch():
    objective, seen = build("sogclr", size=B), partial(outputs, A, Z, index=INDEX)
    first = objective(seen(epoch=0))[0]
    assert torch.equal(objective(seen(epoch=0))[0], first)
    later = objective(outputs(A, K, index=INDEX, epoch=1))[0]
    assert not torch.equal(later, build("sogclr", size=B)(outputs(A, K, index=INDEX, epoch=1))[0])


# --- plain mistakes (B and F) --------------------------------------------------------------------------------------------

FACTS = {"image": {"token_width": 4}, "text": {"token_width": 4, "vocabulary": 9}}
TOKENS = rows(B, 3, 4)
WORDS = torch.arange(B * 5).view(B, 5) % 9
CODED = encoded(A, heads={"logvar": A}, input=rows(B, 2, 5))
MISTAKES = [
    ("moco", {}, lambda: outputs(A, Z, momentum=[A, Z], queues={"moco": K}), "'moco' is not a queue of it; valid: keys", "needs the queue 'keys'"),
    ("moco", {}, lambda: outputs(A, Z, momentum=[A, Z], queues={"key": K}), "did you mean 'keys'"),
    ("moco", {}, lambda: outputs(A, Z, momentum=[A, Z]), "needs the queue 'keys'", "queues={'keys': rows}"),
    ("moco", {}, lambda: outputs(A, Z, queues={"keys": K}), "expected `momentum`", "momentum=[ka, kb]"),
    ("moco", {}, lambda: outputs(A, momentum=[K], queues={"keys": K}), "another view of the sample than its query", "encoded(k, view=1)"),
    ("moco", {}, lambda: outputs(encoded(A, view=1), momentum=[encoded(K, view=0)], queues={"keys": K}), "nothing to compare"),
    ("moco", {}, lambda: outputs(A, Z, momentum=[K], queues={"keys": K}), "1 of 'input', of which the student has 2"),
    ("moco", {}, lambda: outputs(A, Z, momentum=[A, Z], queues={"keys": rows(D, 30)}), "expected (K, 8)", "rows.T"),
    ("moco", {}, lambda: outputs(A, Z, momentum=[A, Z], queues=K), "queues: expected a mapping", "got a tensor (6, 8)"),
    ("moco", {}, lambda: outputs(A, Z, momentum=K), "momentum: expected a list of views", "got a tensor (6, 8)"),
    ("moco", {}, lambda: outputs(TWO, {"image": Z}, momentum=[TWO, {"image": Z}], queues={"keys": K}), "modalities: [image, text]"),
    ("moco", MODALITIES, lambda: outputs({"image": A, "txt": Z}, momentum=[{"image": A, "txt": Z}], **QUEUES), "did you mean 'txt'"),
    ("moco", MODALITIES, lambda: outputs(TWO, momentum=[{"image": A, "txt": encoded(Z, view=1)}], **QUEUES), "view 1 of the student is one of 'text'"),
    ("moco", {"drop_own": True}, lambda: outputs(A, Z, momentum=[A, Z], queues={"keys": K}, index=INDEX), "does not say whose its rows are"),
    ("moco", {"drop_own": True}, lambda: outputs(A, Z, momentum=[A, Z], queues={"keys": Queued(K, INDEX)}), "index=index"),
    ("esimcse", {}, lambda: outputs(A, Z, momentum=[A, Z], queues={"key": K}), "'key' is not a queue of it; did you mean 'keys'"),
    ("simcse", {}, lambda: outputs(A, Z, queues={"keys": K}), "'keys' is not a queue of it; it takes none"),
    ("nnclr", {"dim": D}, lambda: outputs(A, Z), "needs the queue 'support'"),
    ("albef", MODALITIES, lambda: outputs(TWO, **MOMENTUM, epoch=1), "'keys_image'", "'keys_text'"),
    ("info_nce", {"pairs": "acros"}, lambda: outputs(A, Z), "did you mean 'across'"),
    ("info_nce", {"pairs": "imge"}, lambda: outputs(TWO), "did you mean 'image'"),
    ("info_nce", {"pairs": "image"}, lambda: outputs({"image": [A, Z]}), "two views of one sample", "{'image': zi, 'text': zt}"),
    ("info_nce", {"positives": "patient"}, lambda: outputs(A, Z, groups={"pateint": INDEX}), "'patient' is not a group of the batch; it has: pateint"),
    ("gram", {"anchor": "imge"}, lambda: outputs(TWO), "did you mean 'image'"),
    ("convirt", {"query": "imge"}, lambda: outputs(TWO), "did you mean 'image'"),
    ("cwcl", {"source": "imge"}, lambda: outputs(TWO), "did you mean 'image'"),
    ("dialog2flow", {"source": "labl"}, lambda: outputs({"text": [A, Z], "label": K}), "did you mean 'label'"),
    ("dialog2flow", {"source": "text"}, lambda: outputs(TWO), "two views of one sample", "{'image': [za, zb]}"),
    ("oneencoder", {"anchor": "imge"}, lambda: outputs(TWO), "did you mean 'image'"),
    ("sogclr", {"size": 9, "modalities": ["image", "txt"]}, lambda: outputs(TWO, index=INDEX, epoch=0), "did you mean 'text'"),
    ("nt_xent", {}, lambda: outputs(A), "two views of one sample", "counterpoint.outputs(za, zb)"),
    ("nt_xent", {}, lambda: outputs(A[:1], Z[:1]), "a batch of 1", "drop_last"),
    ("nt_xent", {}, lambda: outputs(A, Z, index=torch.zeros(B, dtype=torch.int64)), "a batch of 1"),
    ("nt_xent", {}, lambda: outputs(encoded(A[:2], row=[0, 1]), encoded(Z[:2], row=[2, 3])), "nothing to compare"),
    ("nt_xent", {}, lambda: outputs(encoded(A, row=INDEX), encoded(Z[:, :5], row=INDEX)), "views of one width", "(6, 5)"),
    ("cleanclip", {}, lambda: outputs(TWO), "needs 2 views of 'image'"),
    ("contrastive_gap", {}, lambda: outputs(A, Z), "needs 2 modalities, the outputs have 1"),
    ("supcon", {"label": "class"}, lambda: outputs(A, labels={"clas": INDEX}), "'class' is not a label of the batch; it has: clas"),
    ("supcon", {"label": "class"}, lambda: outputs(A, labels=INDEX), "labels: expected a mapping", "got a tensor (6,)"),
    ("supcon", {"group": "patient"}, lambda: outputs(A, groups=INDEX), "groups: expected a mapping"),
    ("supcon", {"group": "patient"}, lambda: outputs(A, groups={"patient": rows(B)}), "groups: 'patient': expected whole numbers"),
    ("supcon", {"label": "class"}, lambda: outputs(A, labels={"class": INDEX[:4]}), "labels: 'class': expected (6,)", "got (4,)"),
    ("supcon", {"label": "class"}, lambda: outputs(A, labels={"class": list("abcdef")}), "labels: 'class': expected numbers"),
    ("g_simclr", {}, lambda: outputs(A, Z), "'cluster' is not a group"),
    ("mlcd", {"dim": D, "classes": 4}, lambda: outputs(A, groups={"cluster": INDEX}), "name class 5 of 4"),
    ("supremix", {"label": "age"}, lambda: outputs(A, Z), "'age' is not a label"),
    ("coca", {"facts": FACTS}, lambda: outputs({"image": A, "text": encoded(Z, input=WORDS)}), "'image' gives no tokens"),
    ("coca", {"facts": FACTS}, lambda: outputs({"image": encoded(A, tokens=TOKENS), "text": Z}), "'text' gives no input"),
    ("coca", {"facts": {"image": {}, "text": {"vocabulary": 9}}}, lambda: None, "facts of 'image' do not say token_width"),
    ("matching", {"facts": FACTS}, lambda: outputs(TWO), "'image' gives no tokens", "'text' gives no tokens"),
    ("matching", {"facts": FACTS}, lambda: outputs({"imge": encoded(A, tokens=TOKENS), "text": encoded(Z, tokens=TOKENS)}), "did you mean 'imge'"),
    ("matching", {"facts": {"image": {}}}, lambda: None, "facts of 'image' do not say token_width"),
    ("filip", {}, lambda: outputs(TWO), "'image' gives no tokens", "tokens=tokens, mask=mask"),
    ("autotcl", {}, lambda: outputs(A, Z), "gives no tokens"),
    ("cmim", {"dim": D, "facts": {"input": {"channels": 2}}}, lambda: outputs(A), "gives no input", "heads={'logvar': logvar}"),
    ("cmim", {"dim": D, "facts": {"signal": {"channels": 2}}}, lambda: outputs(CODED), "'signal' is not a modality"),
    ("amcl", {"dim": D, "heads": ["a"]}, lambda: outputs(A, Z), "needs heads that also give a; they give: z alone", "heads={'a': a}"),
    ("sepclr", {"label": "class"}, lambda: outputs(A, Z), "common, salient", "'class' is not a label"),
    ("unfused", {"facts": {"audio": {"layer_widths": (3, 5)}}, "dim": D}, lambda: outputs(encoded(A, layers=[A[:, :3]]), groups={"cluster": INDEX}), "layer_widths of 'input'"),
    ("unfused", {"facts": {"input": {"layer_widths": (3, 5)}}, "dim": D}, lambda: outputs(encoded(A, layers=[A[:, :3]]), groups={"cluster": INDEX}), "expected 2 layers"),
    ("unfused", {"facts": {"input": {"layer_widths": (3,)}}, "dim": D}, lambda: outputs(encoded(A, layers=[A[:, :3]]), groups={"cluster": INDEX + 4}), "names class 9"),
    ("pixpro", {"dim": 4}, lambda: outputs(A, Z, momentum=[A, Z]), "gives no map", "meta={'place': place}"),
    ("tsvlc", {}, lambda: outputs(TWO), "needs views of role negative or positive", "role='negative'"),
    ("m3col", {}, lambda: outputs(TWO, index=INDEX, step=0, total_steps=9), "needs views of role mixed"),
    ("m3col", {}, lambda: outputs(TWO, {"image": encoded(K, role="mixed")}, index=INDEX, step=0, total_steps=9), "lacks partner, share"),
    ("selfdistill_fpt", {"role": "clean"}, lambda: outputs(A, teacher=[A]), "needs views of role clean"),
    ("selfdistill_fpt", {}, lambda: outputs(A), "expected `teacher`", "teacher=[ta, tb]"),
    ("selfdistill_fpt", {}, lambda: outputs(A, teacher=[encoded(A, view=3)]), "none is the same"),
    ("mod_x", {}, lambda: outputs(TWO, teacher=[{"image": A}]), "no encoder for 'text'"),
    ("swav", {"dim": D, "prototypes": 4}, lambda: outputs(*(encoded(z, role="local") for z in (A, Z)), step=0), "nothing to compare"),
    ("swav", {"dim": 5, "prototypes": 4}, lambda: outputs(A, Z, step=0), "cannot take what it was given (input z (6, 8)"),
    ("byol", {"dim": 4}, lambda: outputs(A, Z, momentum=[A, Z]), "objective BYOL: cannot take", "shapes"),
    ("sogclr", {"size": 4}, lambda: outputs(A, Z, index=INDEX, epoch=0), "holds 4 samples", "index 5", "size=6"),
    ("isogclr", {"size": 9}, lambda: outputs(A, Z, epoch=0), "index=index"),
    ("interclr", {"dim": D, "size": 4, "clusters": 2}, lambda: outputs(A, Z, momentum=[A, Z], queues={"keys": Queued(K, INDEX)}, index=INDEX, epoch=0, step=0), "holds 4 samples"),
    ("nt_xent", {}, lambda: outputs(A, Z, index=INDEX.float()), "index: expected whole numbers", "float32"),
    ("nt_xent", {}, lambda: outputs(A, Z, index=INDEX[:4]), "index: expected (6,)", "got (4,)"),
    ("nt_xent", {}, lambda: outputs(A, Z, index=INDEX - 1), "from 0; got -1"),
    ("nt_xent", {}, lambda: outputs(A, Z[:4]), "of one shape; got input (6, 8), input (4, 8)", "row=row"),
    ("nt_xent", {}, lambda: outputs(A, encoded(Z, row=INDEX + 1)), "places of the batch, 0 to 5; got 1 to 6"),
    ("nt_xent", {}, lambda: outputs(A, encoded(Z, role="negativ")), "did you mean 'negative'"),
    ("nt_xent", {}, lambda: outputs(A, [Z]), "got list"),
    ("nt_xent", {}, lambda: outputs(), "got nothing"),
    ("nt_xent", {}, lambda: outputs(A[0], Z[0]), "expected a tensor (B, D)", "got a tensor (8,)"),
    ("nt_xent", {}, lambda: outputs(A.long(), Z), "floating point", "int64"),
    ("nt_xent", {}, lambda: outputs(A, Z, epoch=-1), "epoch: expected a whole number"),
    ("nt_xent", {}, lambda: outputs(A, Z, step=0.5), "step: expected a whole number"),
    ("nt_xent", {}, lambda: outputs(encoded(A, tokens=A), Z), "tokens: expected (n, L, C)", "got a tensor (6, 8)"),
    ("nt_xent", {}, lambda: outputs(encoded(A, tokens=TOKENS, mask=TOKENS[..., 0]), Z), "mask: expected bool (n, L)"),
    ("nt_xent", {}, lambda: outputs(encoded(A, tokens=TOKENS, mask=TOKENS[:, :2, 0] > 0), Z), "is not the mask"),
    ("nt_xent", {}, lambda: outputs(encoded(A, heads={"a": A[:3]}), Z), "heads['a']: expected (n, ...) with n = 6"),
    ("nt_xent", {}, lambda: outputs(encoded(A, row=[0, 1]), Z), "row: expected (6,)"),
    ("symile", {}, lambda: outputs(A, Z, draws={"order": INDEX}), "did you mean 'orders'"),
    ("symile", {}, lambda: outputs(A, Z, draws={"orders": INDEX}), "draws: 'orders': expected (2, 1, 6), got (6,)"),
    ("nt_xent", {}, lambda: outputs(A, Z, draws={"start": 0.5}), "it draws nothing"),
    ("nt_xent", {}, lambda: A, "wrap tensors"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "parameters", "give", "words"), [(n, p, g, w) for n, p, g, *w in MISTAKES])
def test_a_plain_mistake_is_said(name, parameters, give, words):
    with pytest.raises(ComponentError) as said:
        build(name, **parameters)(give())
    assert all(word in str(said.value) for word in words), said.value


def test_what_is_given_and_not_looked_at_is_said():
    with pytest.warns(UserWarning, match="NTXent does not look at `momentum`"):
        build("nt_xent")(outputs(A, Z, momentum=[A, Z]))
    with pytest.warns(UserWarning, match="NTXent does not look at views of role 'negative'"):
        build("nt_xent")(outputs(A, Z, encoded(K, role="negative")))
    with pytest.warns(UserWarning, match="one tensor stands for two views") as found:
        build("nt_xent")(outputs(A, A))
    assert found[0].filename == __file__


@pytest.mark.filterwarnings("error")
def test_negatives_that_are_looked_at_need_no_word():
    plain, more = (build("info_nce")(outputs(A, Z, *views))[0] for views in ((), (encoded(K, role="negative"),)))
    assert more > plain


def test_a_zero_is_a_zero_in_the_loop_and_where_the_queue_is_empty():
    """A batch without a pair is no mistake there: what is lacking was said before training."""
    o = outputs(encoded(A[:2], row=[0, 1]), encoded(Z[:2], row=[2, 3]))
    assert build("nt_xent")(Outputs(o.student, o.batch))[0] == 0
    assert build("moco")(outputs(A, Z, momentum=[A, Z], queues={"keys": NONE}))[0] == 0
    assert build("mcl_multistage")(outputs(A, Z, groups={"cluster": INDEX}))[0] == 0  # its formula says so


def test_objectives_are_called_with_outputs_alone():
    for give in (lambda f: f(A, Z), lambda f: f(A, labels=INDEX), lambda f: f([A, Z]), lambda f: f(Batch({}, INDEX))):
        with pytest.raises(
            ComponentError, match=r"expected Outputs, got \w+.*objective\(counterpoint.outputs\(za, zb\)\)"
        ):
            give(build("nt_xent"))


def test_pairs_of_no_kind_are_refused_by_whoever_asks():
    o = Outputs(outputs(TWO).student, Batch({}, INDEX))
    with pytest.raises(ComponentError, match="did you mean 'across'"):
        o.pairs("acros")
    assert len(o.pairs("image")) == len(o.pairs("across")) == 1
    with pytest.raises(ComponentError, match="'patient' is not a group of the queue; it has: none"):
        Queued(K, INDEX).ids("patient")


def test_an_error_that_is_not_ours_keeps_its_cause_and_running_out_of_memory_its_type(monkeypatch):
    objective = build("nt_xent")
    for error, wanted in ((KeyError("a"), ComponentError), (torch.OutOfMemoryError("full"), torch.OutOfMemoryError)):
        monkeypatch.setattr(objective, "loss", lambda seen, error=error: (_ for _ in ()).throw(error))
        with pytest.raises(wanted) as said:
            objective(outputs(A, Z))
        assert error in (said.value, said.value.__cause__)


def test_a_recipe_is_told_the_same_before_training():
    offers = Offers({"ecg": ["global", "global"]}, "toy", batch=8, size=104)
    said = lambda name, **parameters: check("r.yaml:3: objective", build(name, **parameters).needs(), offers)  # noqa: E731
    assert said("info_nce") == said("sogclr", size=104) == said("moco") == []
    assert "did you mean 'across'" in said("info_nce", pairs="acros")[0]
    assert "a second modality under `encoders`" in said("info_nce", pairs="ecg")[0]
    assert said("sogclr", size=10) == [
        "r.yaml:3: objective: its state holds 10 samples, and the data have 104; leave `size` out, and they say it"
    ]
    assert "'imge' is not a modality of the recipe" in said("gram", anchor="imge")[0]
    assert "views of role clean, and no step under `views` makes one" in said("selfdistill_fpt", role="clean")[0]
    assert (
        "add views.ecg: [{use: copies, n: 2}, ...]"
        in check("o", build("dialog2flow", source="t").needs(), Offers({"ecg": ["global"], "t": ["global"]}, "toy"))[0]
    )


# --- one rule for z and for queues (C) -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "queue"), [("moco", "keys"), ("esimcse", "keys"), ("mochi", "keys"), ("nnclr", "support")]
)
def test_rows_of_a_queue_are_normalised_as_z_is(name, queue):
    parameters = {"mochi": {"hard": 3, "pairs": 2, "own": 2}, "nnclr": {"dim": D}}.get(name, {})
    more = {} if name == "nnclr" else {"momentum": [A, Z]}
    found = [
        called(build(name, **parameters), outputs(A, Z, queues={queue: held}, **more))
        for held in (K, 7 * K, normalize(K))
    ]
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], found[2])
    raw = build("moco", normalize=False)
    losses = [raw(outputs(A, Z, momentum=[A, Z], queues={"keys": held}))[0] for held in (K, 7 * K)]
    assert not torch.isclose(*losses)


def test_in_the_loop_the_rows_of_a_queue_are_left_as_they_are():
    o = outputs(A, Z, momentum=[A, Z], queues={"keys": K})
    queue = build("moco").prepare(Outputs(o.student, o.batch, o.momentum, queues=o.queues)).queues["keys"]
    assert queue.z.data_ptr() == K.data_ptr()


# --- what a view may hold (D) --------------------------------------------------------------------------------------------


def test_views_have_rows_of_their_own():
    captions = encoded(rows(4, D, seed=4), row=[0, 0, 2, 5])
    (pair,) = outputs({"image": A, "text": captions}).pairs("across")
    assert pair.row.tolist() == [0, 0, 2, 5] and torch.equal(pair.q, A[[0, 0, 2, 5]])
    o = outputs(encoded(A[:2], row=[1, 0]), encoded(Z[:3], row=[3, 0, 1]))
    assert len(o.batch) == 4
    assert len(outputs(encoded(A[:2], row=[1, 0]), index=range(9)).batch) == 9
    with pytest.raises(ComponentError, match="6 rows, and the batch 9 samples"):
        outputs(encoded(A[:2], row=[1, 0]), index=range(9), momentum=[encoded(A, view=7)])


def test_momentum_views_are_the_students_in_order_of_their_modality():
    o = outputs({"image": A}, {"text": [Z, K]}, momentum=[{"text": [Z, K]}, {"image": A}])
    assert [(e.modality, e.view) for e in o.momentum] == [("text", 1), ("text", 2), ("image", 0)]
    same = outputs(encoded(A[:2], row=[4, 1], role="local"), index=range(6), momentum={"input": A[:2]}).momentum[0]
    assert (same.role, same.row.tolist()) == ("local", [4, 1])


def test_half_precision_becomes_float32():
    o = outputs(A.bfloat16(), encoded(Z.half()), queues={"keys": K.half()})
    assert {e.z.dtype for e in o} == {o.queues["keys"].z.dtype} == {torch.float32}
    assert outputs(A.double()).student[0].z.dtype == torch.float64


def test_masks_and_labels_are_what_the_loop_makes_of_them():
    view = encoded(A, input=WORDS)
    assert view.input_mask.all() and view.h is view.z and view.view == -1
    o = outputs(A, labels={"sick": INDEX > 2, "age": INDEX.float()}, groups={"patient": [0, 0, 1, 1, 2, -1]})
    assert o.batch.labels["sick"].dtype == o.batch.groups["patient"].dtype == torch.int64
    assert o.batch.labels["age"].dtype == torch.float32 and type(o) is ByHand
    assert described(outputs(A, momentum=[A])) == "input z (6, 8); momentum input z (6, 8)"


# --- after the loss (E) --------------------------------------------------------------------------------------------------


def test_what_enters_a_queue_knows_whose_it_is():
    objective = build("moco", symmetric=True, **MODALITIES)
    o = outputs(TWO, momentum=[TWO], queues={"keys_image": NONE, "keys_text": NONE}, index=INDEX + 3)
    entering = objective.entering(o)
    assert entering.keys() == objective.needs().queues.keys()
    torch.testing.assert_close(entering["keys_text"].z, normalize(Z, dim=1))
    assert entering["keys_text"].index.tolist() == (INDEX + 3).tolist()
    assert build("nt_xent").entering(outputs(A, Z)) == {}


# --- random numbers (G) --------------------------------------------------------------------------------------------------

MOCO = {"momentum": [A, Z], "queues": {"keys": K}}
CODE = {"heads": {"logvar": 0.1 * A}, "input": rows(B, 2, 5)}
BOTH = {"image": encoded(A, tokens=TOKENS), "text": encoded(Z, tokens=TOKENS)}
DRAWS = {
    "mochi": (
        {"hard": 3, "pairs": 2, "own": 2},
        lambda **more: outputs(A, Z, **MOCO, **more),
        {"i": INDEX.view(B, 1) % 3 * torch.ones(1, 2, dtype=torch.int64), "j": torch.zeros(B, 2, dtype=torch.int64),
         "a": rows(B, 2).sigmoid(), "third": torch.ones(B, 2, dtype=torch.int64), "b": rows(B, 2).sigmoid() / 2},
    ),
    "feat_transform": (
        {},
        lambda **more: outputs(A, Z, **MOCO, **more),
        {"l": 1 + rows(B, D).sigmoid(), "order": INDEX.flip(0), "m": rows(B, D).sigmoid()},
    ),
    "hallucinator": ({"dim": D}, lambda **more: outputs(A, Z, **MOCO, **more), {"r": 0.05}),
    "beclr": ({"dim": D, "memory": 8, "clusters": 2, "neighbours": 2, "start": 0}, lambda **more: outputs(A, Z, momentum=[A, Z], **more), {"seed": 5}),
    "matching": ({"facts": FACTS, "width": 8, "heads": 2, "layers": 1}, lambda **more: outputs(BOTH, **more), {"wrong_key": INDEX.roll(1), "wrong_query": INDEX.roll(2)}),
    "mlcd": ({"dim": D, "classes": 9}, lambda **more: outputs(A, groups={"cluster": INDEX}, **more), {"negatives": rows(B, 9) > 0}),
    "symile": ({}, lambda **more: outputs(A, Z, K, **more), {"orders": torch.stack([INDEX.roll(n) for n in range(1, 7)]).view(3, 2, B)}),
    "interclr": (
        {"dim": D, "size": 6, "clusters": 2, "pool": 4, "negatives": 3},
        lambda **more: outputs(A, Z, **MOCO, index=INDEX, epoch=1, step=1, **more),
        {"partner": INDEX.roll(1), "negatives": torch.stack([INDEX.roll(n) for n in (1, 2, 3)], 1)},
    ),
    "cmim": ({"dim": D, "facts": {"input": {"channels": 2}}, "width": 8}, lambda **more: outputs(encoded(Z, **CODE), **more), {"e": K}),
    "autotcl": ({"stretches": 3}, lambda **more: outputs(*(encoded(z, tokens=rows(B, 11, 4)) for z in (A, Z)), **more), {"start": 0.25}),
    "supremix": ({"label": "age"}, lambda **more: outputs(A, Z, labels={"age": INDEX.float()}, **more), {"shares": rows(2 * B, 2 * B).sigmoid()}),
}  # fmt: skip


def losses(name, times=3, **more):
    """The losses of some calls in a row, the first of which may only fill a memory."""
    parameters, give, _ = DRAWS[name]
    objective = build(name, **parameters)
    return torch.stack([objective(give(**more))[0].detach() for _ in range(times)])


@pytest.mark.parametrize("name", DRAWS)
def test_a_generator_and_given_numbers_take_the_place_of_torchs_own(name):
    generator = lambda seed: torch.Generator().manual_seed(seed)  # noqa: E731
    found = []
    for seed in (1, 2):
        build(name, **DRAWS[name][0])  # whatever torch's own generator has given before
        torch.manual_seed(seed)
        found.append((losses(name, generator=generator(5)), losses(name, draws=DRAWS[name][2], generator=generator(5))))
    assert torch.equal(*(with_generator for with_generator, _ in found))
    assert torch.equal(*(given for _, given in found)) and found[0][1].isfinite().all()
    if name != "beclr":  # it draws where k-means begins, and two clusters are found from anywhere
        assert not torch.equal(found[0][0], found[0][1]) and not torch.equal(
            found[0][0], losses(name, generator=generator(6))
        )


def test_every_objective_that_draws_says_what_and_is_tried():
    for name in TABLES["objective"]:
        component = registry.installed().find("objective", name)
        drawn = component.load().draws
        assert bool(drawn) == (name in DRAWS) and set(drawn) == set(DRAWS.get(name, ({}, None, {}))[2])
        if drawn:
            told = component.doc.partition("Drawn")[2]
            assert all(re.search(rf"\b{word}\b", told) for word in drawn), name


def softmax_term(q, k, negatives, temperature):
    logits = torch.stack([q @ k, *(q @ n for n in negatives)]) / temperature
    return logits.logsumexp(0) - logits[0]


def drawn_loss(name, **parameters):
    return build(name, **{**DRAWS[name][0], **parameters})(DRAWS[name][1](draws=DRAWS[name][2]))[0]


def test_mochi_with_given_numbers_is_its_formula():
    (q, k, queue), d, terms = (normalize(x, dim=1) for x in (A, Z, K)), DRAWS["mochi"][2], []
    for n in range(B):
        hard = queue[(queue @ q[n]).argsort(descending=True)]
        h = [d["a"][n, s] * hard[d["i"][n, s]] + (1 - d["a"][n, s]) * hard[d["j"][n, s]] for s in range(2)]
        g = [d["b"][n, s] * q[n] + (1 - d["b"][n, s]) * hard[d["third"][n, s]] for s in range(2)]
        terms.append(softmax_term(q[n], k[n], [*queue, *(normalize(x, dim=0) for x in h + g)], 0.2))
    torch.testing.assert_close(drawn_loss("mochi"), torch.stack(terms).mean())


def test_feature_transform_with_given_numbers_is_its_formula():
    (q, k, queue), (s, order, m) = (normalize(x, dim=1) for x in (A, Z, K)), DRAWS["feat_transform"][2].values()
    x, y, n = s * q + (1 - s) * k, s * k + (1 - s) * q, m * queue + (1 - m) * queue[order]
    terms = [softmax_term(x[i], y[i], n, 0.2) for i in range(B)]
    torch.testing.assert_close(drawn_loss("feat_transform"), torch.stack(terms).mean())


def test_hallucinator_with_a_given_number_is_its_formula():
    objective = build("hallucinator", dim=D)
    (k, queue), r = (normalize(x, dim=1) for x in (Z, K)), 0.05
    h = objective.mlp(torch.cat([A, (1 + r) * A - r * k], 1))
    terms = [softmax_term(normalize(p[i], dim=0), k[i], queue, 0.2) for p in (A, h) for i in range(B)]
    torch.testing.assert_close(drawn_loss("hallucinator"), torch.stack(terms).mean())


def test_symile_with_given_orders_is_its_formula():
    z, orders, terms = [normalize(x, dim=1) for x in (A, Z, K)], DRAWS["symile"][2]["orders"], []
    for a in range(3):
        b, c = (z[v] for v in range(3) if v != a)
        first, second = orders[a]
        whose = torch.where(first == second, first, INDEX)  # the sample that does not meet a tuple
        tuples = b[first] * c[second]
        terms += [softmax_term(z[a][i], b[i] * c[i], tuples[whose != i], 1.35) for i in range(B)]
    torch.testing.assert_close(drawn_loss("symile"), torch.stack(terms).mean())


def test_mlcd_with_given_negatives_is_its_formula():
    objective, negatives = build("mlcd", dim=D, classes=9), DRAWS["mlcd"][2]["negatives"]
    s = 64 * normalize(A, dim=1) @ normalize(objective.centres, dim=1).T
    out = negatives & ~torch.eye(B, 9, dtype=torch.bool)
    terms = [torch.log1p(s[i, out[i]].double().exp().sum()) + torch.log1p((-s[i, i]).double().exp()) for i in range(B)]
    torch.testing.assert_close(drawn_loss("mlcd").double(), torch.stack(terms).mean(), rtol=1e-5, atol=0)


def test_cmim_with_given_noise_codes_as_its_formula_says():
    z, v, e = Z, 0.1 * A, K
    code = z + (v / 2).exp() * e
    log_q = torch.distributions.Normal(z, (v / 2).exp()).log_prob(code).sum(1)
    log_p = torch.distributions.Normal(0, 1).log_prob(code).sum(1)
    _, parts = build("cmim", **DRAWS["cmim"][0])(DRAWS["cmim"][1](draws=DRAWS["cmim"][2]))
    torch.testing.assert_close(parts["codes"], -(log_q + log_p).mean() / 2)


def test_matching_looks_at_the_partners_that_were_given():
    objective, d = build("matching", **DRAWS["matching"][0]), DRAWS["matching"][2]
    o = outputs(BOTH)
    i, j = torch.cat([INDEX, INDEX, d["wrong_query"]]), torch.cat([INDEX, d["wrong_key"], INDEX])
    truth = (torch.arange(3 * B) < B).long()
    expected = torch.nn.functional.cross_entropy(objective._logits(*o.student, i, j), truth)
    torch.testing.assert_close(drawn_loss("matching"), expected)


def test_supremix_with_shares_of_one_mixes_the_anchor_with_nothing():
    """A mixture that is the anchor itself: its logit is 1 / T, and its weight that of its label, 1."""
    given = {"shares": torch.ones(B, B)}
    objective = build("supremix", label="age", window=0.5, magnify=False)
    z, age = normalize(A, dim=1), torch.tensor([0.0, 0, 1, 1, 2, 2])
    loss = objective(outputs(encoded(A), encoded(A[:0], row=[]), labels={"age": age}, draws=given))[0]
    logits, terms = z @ z.T / 0.3, []
    for i in range(B):
        others, same = torch.arange(B) != i, (age == age[i]) & (torch.arange(B) != i)
        mixtures = torch.full((int((age != age[i]).sum()),), float(logits[i, i]))
        terms.append(torch.cat([logits[i, others], mixtures]).logsumexp(0) - logits[i, same].mean())
    torch.testing.assert_close(loss, torch.stack(terms).mean())


# --- names and parameters (F) --------------------------------------------------------------------------------------------


def find(kind, name):
    return registry.installed().find(kind, name).name


@pytest.mark.parametrize(
    ("kind", "name", "canonical"),
    [
        *[("objective", n, "nt_xent") for n in ("simclr", "SimCLR", "ntxent", "NT-Xent", "NTXentLoss", "nt xent")],
        *[("objective", n, "info_nce") for n in ("infonce", "info-nce", "InfoNCE", "info_nce_loss", "cpc")],
        *[("objective", n, "barlow_twins") for n in ("barlow", "BarlowTwins", "barlow-twins")],
        ("objective", "vic_reg", "vicreg"),
        ("objective", "sig_lip", "siglip"),
        ("objective", "supervised_contrastive", "supcon"),
        ("objective", "SupConLoss", "supcon"),
        ("encoder", "InceptionTime", "ecg.inception_time"),
        ("objective", "TripletMarginLoss", "triplet"),
        ("encoder", "resnet1d", "ecg.resnet1d"),
        ("encoder", "ecg.ResNet1d", "ecg.resnet1d"),
        ("encoder", "text-transformer", "text_transformer"),
        ("view", "Token-Mask", "token_mask"),
        ("evaluator", "linear-probe", "linear_probe"),
        ("head", "MLP", "mlp"),
    ],
)
def test_a_component_has_other_names(kind, name, canonical):
    assert find(kind, name) == canonical


def test_a_ramp_over_the_first_epoch_asks_how_long_that_is():
    objective = counterpoint.build("objective", "albef", **MODALITIES)
    seen = outputs(TWO, **MOMENTUM, **QUEUES, step=3, epoch=0)
    with pytest.raises(ComponentError, match="build it with size="):
        objective(seen)


def test_a_canonical_name_wins_and_an_alias_is_none():
    for kind, table in aliases.ALIASES.items():
        known = set(registry.installed().names(kind))
        spellings = {aliases.plain(name, kind) for name in known}
        assert set(table.values()) <= known
        assert not {aliases.plain(name, kind) for name in (*table, *aliases.NEAR.get(kind, {}))} & spellings
    assert all(find("objective", name) == name for name in TABLES["objective"])


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("objective", "contrastive_loss", "there is no loss with a margin over pairs"),
        ("objective", "npair", "info_nce, direction: forward"),
        ("objective", "mocov2", "{use: moco, temperature: 0.2}"),
        ("objective", "DINO", "swav"),
        ("objective", "nt_xnt", "did you mean 'nt_xent'"),
        ("encoder", "ResNet", "write 'ecg.resnet' or 'medical.resnet'"),
    ],
)
def test_what_is_only_near_is_said_and_not_put_in_its_place(kind, name, words):
    with pytest.raises(ComponentError, match=re.escape(words)):
        find(kind, name)


def test_a_recipe_by_another_name_keeps_the_canonical_one(tmp_path):
    text = (
        "data: {use: ecg.pigcvp}\nencoders: {pressure: {use: ResNet1d}}\nobjective: {use: SimCLR, temperature: 0.2}\n"
    )
    (tmp_path / "r.yaml").write_text(text)
    kept = recipe.load(tmp_path / "r.yaml").as_yaml()
    assert "use: nt_xent" in kept and "use: ecg.resnet1d" in kept and "SimCLR" not in kept


@pytest.mark.parametrize(("name", "first"), [("simclr", "objective nt_xent"), ("ResNet1d", "encoder ecg.resnet1d")])
def test_show_knows_other_names(name, first, capsys):
    assert cli.main(["show", name]) == 0
    assert capsys.readouterr().out.startswith(first)


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("info_nce", {"temprature": 1}, "unknown parameter 'temprature'; did you mean 'temperature'?"),
        ("info_nce", {"temperature": "hot"}, "temperature: expected a number, got 'hot'"),
        ("info_nce", {"learnable": 3}, "learnable: expected true or false, got 3"),
        ("moco", {"queue": True}, "queue: expected an integer, got true"),
        ("moco", {"queue": 2.5}, "queue: expected an integer"),
        ("symile", {"negatives": "n_sqared"}, "did you mean 'n_squared'"),
        ("amcl", {"heads": ["a", 3], "dim": 4}, "heads[1]: expected a string, got 3"),
        ("byol", {}, "dim must be given"),
        ("info_nce", {"temperature": "hot", "learnable": 3}, "learnable: expected true or false"),
    ],
)
def test_parameters_are_checked_as_a_recipes_are(name, parameters, words):
    with pytest.raises(ComponentError, match=rf"objective '{name}': .*") as said:
        counterpoint.build("objective", name, **parameters)
    assert words in str(said.value)


def test_numbers_of_other_libraries_and_objects_are_parameters():
    assert build("info_nce", temperature=np.float32(0.5)).temperature.fixed == 0.5
    assert build("moco", queue=np.int64(7)).queue == 7
    heads = {"a": counterpoint.build("head", "linear", width=4)}
    assert counterpoint.build("head", "several", heads=heads, z="a").heads["a"] is heads["a"]


# --- the page ------------------------------------------------------------------------------------------------------------

PAGE = (HERE.parent / "docs" / "own_loop.md").read_text(encoding="utf-8")
BLOCKS = {
    title: re.findall(r"```python\n(.*?)```", part, flags=re.S)
    for title, part in re.findall(r"^#+ ([^\n]*)\n(.*?)(?=^#+ |\Z)", PAGE, flags=re.S | re.M)
}


def notebook(title, part=0):
    """The names that the code under a heading leaves, run after that of the first, and of SimCLR where it trains nothing."""
    torch.manual_seed(0)
    names = {}
    shown = BLOCKS[title][part]
    for block in [*BLOCKS["Your own loop"], *([] if "losses" in shown else BLOCKS["SimCLR"]), shown]:
        exec(compile(block, f"own_loop.md: {title}", "exec"), names)
    return names


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize(
    "title", ["SimCLR", "MoCo: a queue and a momentum encoder", "SogCLR: a state for every sample", "FILIP: tokens"]
)
def test_the_loop_of_the_page_learns(title):
    assert all(block.count("\n") <= 25 for block in BLOCKS[title])
    names = notebook(title)
    falling = torch.tensor(names["losses"])
    if title.startswith("MoCo"):  # a longer queue is harder; then it is full
        assert falling[0] == 0 and len(names["queue"].rows().z) == 256
        falling = falling[6:]
        apart = [(a - b).abs().max() for a, b in zip(names["follower"].parameters(), names["encoder"].parameters())]
        assert all(0 < gap < 1 for gap in apart)
    if title.startswith("SogCLR"):
        assert names["state"]["objective"]["log_s"].isfinite().all()
    assert (
        falling[-3:].mean() < 0.9 * falling[:3].mean() if falling[0] > 0 else falling[-3:].mean() < falling[:3].mean()
    )


def test_the_lightning_module_of_the_page_trains_and_keeps_the_state(tmp_path):
    import lightning

    names = notebook("Lightning and Accelerate")
    module = names["Contrast"]()
    trainer = lightning.Trainer(
        max_epochs=4, logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
        default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, names["loader"])
    assert module.losses[-1] < module.losses[0]
    (kept,) = tmp_path.rglob("*.ckpt")
    assert "objective.prototypes" in torch.load(kept, weights_only=False)["state_dict"]


def test_the_lines_for_accelerate_run():
    pytest.importorskip("accelerate")
    assert notebook("Lightning and Accelerate", 1)["loss"].isfinite()


def test_the_page_gathers_with_a_gradient():
    names = notebook("Several processes")
    assert names["za"].requires_grad and names["loss"].isfinite()


class Ranks:
    """What torch.distributed would tell each of two processes whose rows are known."""

    def __init__(self, rows):
        self.rows, self.rank = rows, 0  # of both processes, one after the other

    is_initialized, get_world_size, get_rank = lambda self: True, lambda self: 2, lambda self: self.rank

    def all_gather(self, parts, mine):
        (found,) = [r for r in self.rows if torch.equal(r.chunk(2)[self.rank], mine)]
        for part, whole in zip(parts, found.chunk(2)):
            part.copy_(whole)


def test_rows_that_are_gathered_as_on_the_page_have_the_gradient_of_one_process():
    names = notebook("Several processes")
    tower, clip, x, y = names["make_encoder"](), build("clip"), rows(8, 32, seed=1), rows(8, 32, seed=2)
    embedded = {"a": tower(x), "b": tower(y)}
    expected = torch.autograd.grad(clip(outputs(embedded))[0], tower.parameters())
    ranks = names["dist"] = Ranks([z.detach() for z in embedded.values()])
    found = []
    for ranks.rank in range(2):
        views = {m: names["whole"](tower(z).chunk(2)[ranks.rank]) for m, z in (("a", x), ("b", y))}
        found.append(torch.autograd.grad(clip(outputs(views))[0], tower.parameters()))
    for one, two, alone in zip(*found, expected):
        torch.testing.assert_close((one + two) / 2, alone)


@pytest.mark.parametrize(("mark", "kept"), [("parameters", "parameters"), ("state", "buffers")])
def test_the_page_says_which_objectives_have_parameters_and_state(mark, kept):
    said = set(re.findall(r"`(\w+)`", PAGE.partition(f"<!-- {mark} -->")[2].partition("<!-- end -->")[0]))
    plain = {
        name.partition(" ")[0].rstrip(","): case.make() for name, case in reversed(CASES.items()) if "," not in name
    }
    asked = {"info_nce", "dcl"}  # with learnable=True, as the tests try them
    assert said == {name for name, objective in plain.items() if [*getattr(objective, kept)()]} - asked
