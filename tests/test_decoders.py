"""Objectives with decoders: what reaches them, their limits, and runs with them."""

from math import exp, log

import pytest
import torch

import counterpoint
from building import loop, towers
from counterpoint.batch import Batch, View
from counterpoint.errors import ComponentError
from counterpoint.heads.projection import MLP, Several
from counterpoint.objectives.cmim import CMIM, coordinates
from counterpoint.objectives.coca import CoCa
from counterpoint.objectives.info_nce import InfoNCE
from counterpoint.objectives.mechanisms.decoder import Decoder
from counterpoint.objectives.self_distillation import SelfDistillation
from test_fit import QUESTIONS, RECIPE, command

FACTS = {"signal": {"channels": 2, "token_width": 16}, "words": {"vocabulary": 40, "token_width": 16}}
SIGNAL = {"signal": FACTS["signal"]}


def coded():
    made = towers()
    for tower in made.values():
        tower.head = Several(heads={name: MLP(width=16, dim=8) for name in ("mean", "logvar")}, z="mean")
    return made


def some_batch():
    rows = torch.arange(7)
    words = View("words", torch.arange(21).view(7, 3), rows, torch.arange(3) < (1 + rows % 3)[:, None])
    return Batch({"signal": View("signal", torch.randn(7, 2, 64), rows), "words": words}, rows + 20)


def cmim(facts=FACTS, **options):
    torch.manual_seed(0)
    return CMIM(dim=8, facts=facts, width=8, depth=1, heads=2, **options)


def test_the_input_of_a_view_reaches_objectives_that_ask_for_it_and_no_other():
    batch = some_batch()
    for micro in (None, 3):
        module = loop({"cmim": cmim()}, made=coded(), micro=micro)
        student = module.forward_pass.outputs(batch, 4, 0).student
        for e, view in zip(
            student,
            [v for m in module.towers for v in module.forward_pass.views(m, batch.inputs[m], batch.index, 4)],
            strict=True,
        ):
            assert torch.equal(e.input, view.data)
            assert (e.input_mask is None) == (e.modality == "signal")
    assert torch.equal(student[2].input_mask, batch.inputs["words"].mask)
    assert module.last_outputs is None
    plain = loop({"nce": InfoNCE()}, made=coded())
    assert all(e.input is None for e in plain.forward_pass.outputs(batch, 4, 0).student)


def test_micro_batches_and_a_missing_modality_train_a_decoder():
    found = []
    for micro in (None, 3):
        module = loop({"cmim": cmim()}, made=coded(), micro=micro)
        batch = some_batch()
        torch.manual_seed(0)
        batch.inputs["signal"] = View("signal", torch.randn(7, 2, 64), torch.arange(7))
        loss, _ = module.contrast(module.forward_pass.outputs(batch, 0, 0))
        loss.backward()
        found.append([p.grad for p in module.parameters()])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5)
    del batch.inputs["words"]
    module.zero_grad()
    loss, _ = module.contrast(module.forward_pass.outputs(batch, 0, 0))
    loss.backward()
    assert all(
        p.grad is not None and not p.grad.any() for p in module.objectives["cmim"].decoders["words"].parameters()
    )


# --- limits of cMIM --------------------------------------------------------------------------------------------------


def repulsion(codes, **options):
    return cmim(temperature=0.5, **options)._repulsion(codes, torch.arange(len(codes)))


@pytest.mark.parametrize("n", [2, 9, 60])
def test_the_repulsion_of_equal_and_of_orthogonal_codes(n):
    equal, apart = torch.ones(n, 3, dtype=torch.float64), torch.eye(n, dtype=torch.float64)
    torch.testing.assert_close(repulsion(equal), torch.full((n,), log(2.0), dtype=torch.float64))
    torch.testing.assert_close(repulsion(apart), torch.full((n,), log(1 + exp(-2.0)), dtype=torch.float64))
    torch.testing.assert_close(repulsion(equal, negatives="sum"), torch.full((n,), log(n), dtype=torch.float64))


def test_codes_repel_and_become_certain():
    """A step against the gradient takes the codes apart, and the variances down to their floor but not below."""
    codes = torch.tensor([[1.0, 0.0], [1.0, 0.1]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(repulsion(codes).sum(), codes)
    cosine = lambda rows: torch.nn.functional.cosine_similarity(*rows, dim=0)  # noqa: E731
    assert cosine(codes - 0.01 * slope) < cosine(codes)
    z = torch.randn(4, 2, 8)
    for spread, sign in ((0.0, 1.0), (-20.0, 0.0)):
        v = torch.full((4, 8), spread, requires_grad=True)
        o = counterpoint.outputs({"signal": z[:, 0]})
        o.student[0].heads["logvar"], o.student[0].input = v, torch.zeros(4, 2, 6)
        terms = cmim(SIGNAL, noise=1e3, contrast_weight=0.0)(o)[0]
        (slope,) = torch.autograd.grad(terms, v)
        assert torch.all(slope.sign() == sign) if spread else slope.mean() > 0


def test_places_have_coordinates_of_their_own():
    for sizes in ((50,), (6, 7), (3, 4, 5)):
        found = coordinates(sizes, torch.zeros(1))
        assert len(found.unique(dim=0)) == len(found) == torch.Size(sizes).numel()


# --- the decoder -----------------------------------------------------------------------------------------------------


def test_a_token_is_predicted_from_those_before_it_and_the_memory():
    torch.manual_seed(0)
    decoder = Decoder(9, 4, 8, alone=1, crossing=1, heads=2)
    ids, memory = torch.randint(9, (2, 6)), torch.randn(2, 3, 4)
    before, changed = decoder(ids, memory), ids.clone()
    changed[:, 4] = (ids[:, 4] + 1) % 9
    after = decoder(changed, memory)
    torch.testing.assert_close(after[:, :4], before[:, :4])
    assert not torch.allclose(after[:, 4], before[:, 4]) and not torch.allclose(decoder(ids, 2 * memory), before)


def test_a_text_in_parts_costs_what_it_costs_whole(monkeypatch):
    torch.manual_seed(0)
    decoder = Decoder(9, 4, 8, alone=1, crossing=1, heads=2)
    ids, real, memory = torch.randint(9, (5, 6)), torch.ones(5, 6, dtype=torch.bool), torch.randn(5, 3, 4)
    found = []
    for held in (1 << 24, 1):
        monkeypatch.setattr("counterpoint.kernels.by_rows.HELD", held)
        total, count = decoder.surprise(ids, real, memory)
        decoder.zero_grad()
        total.sum().backward()
        found.append([total.detach(), count, *(p.grad.clone() for p in decoder.parameters())])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two)


def test_a_decoder_learns_to_say_what_it_is_shown():
    """Four texts told apart by the memory alone: their cost falls to nothing."""
    torch.manual_seed(0)
    decoder = Decoder(6, 4, 16, alone=1, crossing=1, heads=2)
    ids, real = torch.tensor([[0, a, b] for a in (1, 2) for b in (3, 4)]), torch.ones(4, 3, dtype=torch.bool)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=0.02)
    for _ in range(120):
        total, count = decoder.surprise(ids, real, torch.eye(4)[:, None])
        optimizer.zero_grad()
        total.sum().backward()
        optimizer.step()
    assert total.sum() / count.sum() < 0.05


# --- mistakes, and runs ----------------------------------------------------------------------------------------------


def test_mistakes_are_said():
    both = {"a": FACTS["words"], "b": FACTS["words"]}
    with pytest.raises(ComponentError, match=r"which modality is the text.*a, b"):
        CoCa(facts=both)
    with pytest.raises(ComponentError, match=r"'wrods' is no modality with a vocabulary; did you mean 'words'"):
        CoCa(facts=FACTS, text="wrods")
    with pytest.raises(ComponentError, match="heads must divide"):
        CoCa(facts=FACTS, width=10, heads=4)
    with pytest.raises(ComponentError, match="say neither channels nor a vocabulary"):
        CMIM(dim=8, facts={"graph": {}})
    o = counterpoint.outputs({"signal": torch.randn(4, 8)})
    o.student[0].heads["logvar"], o.student[0].input = torch.zeros(4, 8), torch.zeros(4, 2, 6, 6)
    with pytest.raises(ComponentError, match="of 1 axes"):
        cmim(SIGNAL)(o)
    o = counterpoint.outputs(torch.randn(4, 8), teacher=[torch.randn(4, 6)])
    with pytest.raises(ComponentError, match="8 wide, the teacher's 6"):
        SelfDistillation()(o)


def test_a_captioner_trains_on_texts(tmp_path):
    words = ["ant", "bee", "cow", "dog", "elk", "fly", "gnu", "hen"]
    rows = [
        f"where is the {a} {i},the {a} {i} is in the {b} house"
        for i, (a, b) in enumerate(zip(words * 5, words[::-1] * 5))
    ]
    (tmp_path / "pairs.csv").write_text("\n".join(["question,answer", *rows]))
    (tmp_path / "recipe.yaml").write_text(QUESTIONS)
    change = "objective={use: coca, text: answer, width: 16, alone: 1, crossing: 1, heads: 2}"
    done = command(tmp_path, "fit", "recipe.yaml", change, "loader.micro_batch=7", "baselines={}")
    assert done.returncode == 0, done.stderr
    assert "caption" in (tmp_path / "runs/questions-1/metrics.csv").read_text()


@pytest.mark.slow
def test_a_mutual_information_machine_is_killed_and_resumed(tmp_path):
    head = "{use: several, z: mean, heads: {mean: {use: mlp, dim: 8}, logvar: {use: mlp, dim: 8}}}"
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("{use: mlp, dim: 8}", head))
    words = ["objective={use: cmim, width: 8, heads: 2}", "weights={}", "trainer.max_epochs=2"]
    killed = command(tmp_path, "fit", "recipe.yaml", *words, env={"TOY_STEP": "3", "TOY_SIGNAL": "SIGKILL"})
    assert killed.returncode == -9, killed.stderr
    resumed = command(tmp_path, "fit", "--resume", "latest")
    assert resumed.returncode == 0, resumed.stderr
    straight = command(tmp_path, "fit", "recipe.yaml", *words)
    assert straight.returncode == 0
    last = [max((tmp_path / f"runs/pairs-{k}/checkpoints").glob("*.ckpt")) for k in (1, 2)]
    one, two = (torch.load(path, weights_only=True)["state_dict"] for path in last)
    assert all(torch.equal(one[name], two[name]) for name in one)
