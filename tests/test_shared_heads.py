"""Heads with parts that modalities share, and the head that looks at a whole batch."""

import pytest
import torch

from building import Gradients, loop, towers, train
from counterpoint.batch import Batch, Features, View
from counterpoint.errors import ComponentError
from counterpoint.heads.codebook import FiniteTokens, Universal, sparsemax
from counterpoint.heads.projection import Linear
from counterpoint.heads.whitening import GroupWhitening, Whitening, inverse_root
from counterpoint.loop.learning import parameter_groups
from counterpoint.loop.optimizers import sgd
from counterpoint.objectives.clip import CLIP
from counterpoint.objectives.whitenedcse import WhitenedCSE
from counterpoint.towers.sharing import share
from counterpoint.towers.storing import load_weights, save_towers
from counterpoint.towers.tower import Tower
from counterpoint_toy.parts import Pairs
from test_fit import RECIPE, command


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- whitening -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_groups_are_white_after_it(groups):
    torch.manual_seed(1)
    whiten = GroupWhitening(6, groups, eps=0.0).double()
    x = draws(50, 6) @ draws(6, 6, seed=1) + 3.0
    white = whiten(x)
    torch.testing.assert_close(white.mean(0), torch.zeros(6, dtype=torch.float64))
    torch.testing.assert_close(white.square().mean(0), torch.ones(6, dtype=torch.float64))
    if groups == 1:
        torch.testing.assert_close(white.T @ white / 50, torch.eye(6, dtype=torch.float64))
        assert (white * x).sum() > 0  # ZCA: each channel stays nearest to itself


def test_the_gradient_of_the_inverse_root_is_finite_for_equal_eigenvalues():
    a = draws(2, 4, 4)
    a = (a @ a.mT).requires_grad_()
    symmetric = lambda m: inverse_root((m + m.mT) / 2, 0.1)  # noqa: E731
    assert torch.autograd.gradcheck(symmetric, (a,))
    equal = torch.eye(4, dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad(inverse_root(equal)[0, 0], equal)
    torch.testing.assert_close(slope, torch.diag(torch.tensor([-0.5, 0, 0, 0], dtype=torch.float64)))


def test_an_evaluation_depends_on_no_other_row_and_is_near_what_training_saw():
    torch.manual_seed(0)
    head = Whitening(width=8, groups=4).double()
    x = draws(64, 8) @ draws(8, 8, seed=1)
    for _ in range(200):
        head(x)
    head.eval()
    torch.testing.assert_close(head(x)[:3], head(x[:3]))
    white = head.whiten(x)
    torch.testing.assert_close(white.mean(0), torch.zeros(8, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(white.square().mean(0), torch.ones(8, dtype=torch.float64), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rows", [0, 1, 2, 3])
def test_few_rows_are_finite(rows):
    head = Whitening(width=6, groups=2)
    h = torch.randn(rows, 6, requires_grad=True)
    head(h).sum().backward()
    assert torch.isfinite(h.grad).all() and head(h).shape == (rows, 6)


def whitening_loop(micro=None, modalities=("signal",)):
    made = towers(modalities)
    made["signal"] = Tower("signal", made["signal"].encoder, Whitening(width=16, dim=8, groups=4))
    return loop({"white": WhitenedCSE()}, modalities=modalities, micro=micro, made=made, optimizer=sgd(lr=0.0))


def test_the_whole_batch_is_whitened_whatever_the_micro_batch():
    found = []
    for micro in (None, 5):
        seen = Gradients()
        module = whitening_loop(micro)
        train(module, Pairs(size=32, modalities=["signal"]), batch=32, epochs=1, callbacks=[seen])
        assert int(module.towers["signal"].head.whiten.num_batches_tracked) == 2  # two views, each once
        found.append(torch.cat([seen.seen[0][name].flatten() for name in sorted(seen.seen[0])]))
    assert (found[1] - found[0]).norm() < 1e-3 * found[0].norm()


def test_views_are_whitened_apart():
    module = whitening_loop()
    batch = Batch({"signal": View("signal", torch.randn(32, 2, 64), torch.arange(32))}, torch.arange(32))
    head = module.towers["signal"].head
    head.map.weight.data.copy_(torch.eye(16)[:8])
    head.map.bias.data.zero_()
    for e in module.forward_pass.outputs(batch, 0, 0).student:
        torch.testing.assert_close(e.z.atanh().mean(0), torch.zeros(8), atol=1e-3, rtol=0)


def test_a_batch_without_the_modality_that_is_whitened():
    module = whitening_loop(modalities=("signal", "words"))
    batch = Batch({"words": View("words", torch.ones(4, 3, dtype=torch.long), torch.arange(4))}, torch.arange(4))
    loss, _ = module.contrast(module.forward_pass.outputs(batch, 0, 0))
    loss.backward()
    assert all(p.grad is not None and not p.grad.any() for p in module.towers["signal"].parameters())


# --- shared parts ----------------------------------------------------------------------------------------------------


def sharing(cls=FiniteTokens, **options):
    made = towers()
    for seed, tower in enumerate(made.values()):
        torch.manual_seed(seed)
        tower.head = cls(token_width=16, dim=8, **options)
    return share(made)


def test_a_shared_part_is_one_parameter():
    made = sharing(codes=5)
    assert made["signal"].head.codes is made["words"].head.codes
    groups = parameter_groups([(tower, 1.0) for tower in made.values()], 0.1, 0.0)
    assert sum(p is made["words"].head.codes for group in groups for p in group["params"]) == 1


@pytest.mark.parametrize("make", [lambda: sharing(codes=5), lambda: sharing(Universal, depth=1, heads=2)])
def test_shared_parts_train_save_and_load(make, tmp_path):
    made, again = make(), make()
    before = {name: p.clone() for name, p in again["words"].head.named_parameters()}
    train(loop({"clip": CLIP()}, made=made), Pairs(size=32, missing=0.3), batch=16, epochs=1)
    (name,) = type(made["words"].head).shared
    parts = [getattr(tower.head, name) for tower in made.values()]
    assert parts[0] is parts[1]
    save_towers(made, tmp_path / "e.safetensors")
    load_weights(again, tmp_path / "e.safetensors")
    for key, value in made["words"].head.named_parameters():
        assert torch.equal(value, dict(again["words"].head.named_parameters())[key])
        assert not torch.equal(value, before[key])
    assert getattr(again["signal"].head, name) is getattr(again["words"].head, name)


def test_parts_of_another_form_and_heads_of_another_class():
    made = towers()
    made["signal"].head, made["words"].head = (
        FiniteTokens(token_width=16, dim=8, codes=5),
        FiniteTokens(token_width=16, dim=8, codes=6),
    )
    with pytest.raises(
        ComponentError, match=r"heads\.words: shares its codes with heads\.signal, and is made otherwise"
    ):
        share(made)
    made["words"].head = Linear(width=16, dim=8)
    share(made)


def test_a_frozen_shared_part_stays():
    made = sharing(Universal, depth=1, heads=2, train_shared=False)
    before = {name: p.clone() for name, p in made["signal"].head.stack.named_parameters()}
    train(loop({"clip": CLIP()}, made=made), Pairs(size=32), batch=16, epochs=1)
    assert all(torch.equal(p, before[name]) for name, p in made["words"].head.stack.named_parameters())


# --- tokens to codes -------------------------------------------------------------------------------------------------


def test_sparsemax_is_the_nearest_point_of_the_simplex():
    logits = 2 * draws(20, 7)
    weights = sparsemax(logits)
    torch.testing.assert_close(weights.sum(1), torch.ones(20, dtype=torch.float64))
    assert (weights >= 0).all() and (weights == 0).any()
    others = draws(1000, 7, seed=2).softmax(1)
    nearest = torch.cdist(logits, others).min(1).values
    assert ((logits - weights).norm(dim=1) <= nearest).all()
    assert torch.autograd.gradcheck(sparsemax, (logits.requires_grad_(),))


@pytest.mark.parametrize("pool", ["max", "mean", "sum"])
def test_the_formula_of_the_codes(pool):
    head = FiniteTokens(token_width=6, dim=4, codes=5, pool=pool, temperature=0.5).double()
    tokens, mask = draws(3, 4, 6), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], dtype=torch.bool)
    z = head(Features(tokens.mean(1), tokens, mask))
    for i in range(3):
        real = [head.query(tokens[i, n]) for n in range(4) if mask[i, n]]
        a = torch.stack([torch.stack([q @ c / 2.0 / 0.5 for q in real]) for c in head.codes])  # (K, L)
        a = a.amax(1) if pool == "max" else a.mean(1) if pool == "mean" else a.sum(1)
        torch.testing.assert_close(z[i], sum(w * c for w, c in zip(sparsemax(a), head.codes)))


@pytest.mark.parametrize("cls", [FiniteTokens, Universal])
def test_padding_has_no_influence(cls):
    torch.manual_seed(0)
    head = cls(token_width=6, dim=8, **({"codes": 9} if cls is FiniteTokens else {"depth": 1})).double().eval()
    tokens, mask = draws(2, 4, 6), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]], dtype=torch.bool)
    z = head(Features(tokens.mean(1), tokens, mask))
    torch.testing.assert_close(z[1:], head(Features(tokens[1:, 0], tokens[1:, :2], mask[1:, :2])))
    changed = torch.where(mask[..., None], tokens, 100.0)
    torch.testing.assert_close(z, head(Features(tokens.mean(1), changed, mask)))


def test_an_encoder_without_tokens_gives_its_h_as_one():
    head = Universal(token_width=6, dim=8, depth=1).double().eval()
    h = draws(3, 6)
    torch.testing.assert_close(head(Features(h)), head(Features(h, h[:, None])))


# --- from the command line -------------------------------------------------------------------------------------------

HEADS = {
    "oneencoder": ("{use: oneencoder, dim: 8, depth: 1, heads: 2}", "{use: oneencoder}"),
    "fdt": ("{use: fdt, dim: 8, codes: 12}", "{use: clip}"),
    "whitening": ("{use: whitening, dim: 8, groups: 4}", "{use: info_nce}"),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_run_trains_and_its_scores_are_those_of_the_loaded_encoder(name, tmp_path):
    head, objective = HEADS[name]
    recipe = RECIPE.replace("{use: mlp, dim: 8}", head).replace("callbacks: [toy.chaos]\n", "")
    (tmp_path / "recipe.yaml").write_text(recipe.replace("max_epochs: 4", "max_epochs: 1"))
    done = command(tmp_path, "fit", "recipe.yaml", f"objective={objective}", "weights={}")
    assert done.returncode == 0, done.stderr
    table = done.stdout.split("\n\n")[0]
    assert command(tmp_path, "evaluate", "pairs-1").stdout.startswith(table)
