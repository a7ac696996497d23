"""Views that learn: by a loss of their own, with exactly its gradient, or by the objective."""

from itertools import pairwise

import lightning
import pytest
import torch

from building import Gradients, assert_same_state, loop, towers, train
from counterpoint.batch import Features
from counterpoint.fit.assembly import assemble
from counterpoint.fit.run import fit
from counterpoint.heads.projection import MLP
from counterpoint.loop.optimizers import adamw, sgd
from counterpoint.objectives.autotcl import AutoTCL as Objective
from counterpoint.objectives.info_nce import InfoNCE
from counterpoint.randomness import seed_all
from counterpoint.recipe import load
from counterpoint.towers.tower import Tower
from counterpoint.views.autotcl import AutoTCL
from counterpoint.views.branches import Branches
from counterpoint.views.generator import TrainableView, ViewGenerator
from counterpoint.views.pipeline import Pipeline
from counterpoint_toy.parts import Noise, Pairs


class Steps(torch.nn.Module):
    """Time steps as tokens; h is their maximum, behind batch norm and dropout when wanted."""

    gives = frozenset({"tokens"})
    width = token_width = 12

    def __init__(self, norm=False):
        super().__init__()
        self.conv = torch.nn.Conv1d(2, 12, 5, padding=2)
        self.last = (
            torch.nn.Sequential(torch.nn.BatchNorm1d(12), torch.nn.Dropout(0.2)) if norm else torch.nn.Identity()
        )

    def forward(self, data):
        tokens = self.last(self.conv(data)).transpose(1, 2)
        return Features(tokens.amax(1), tokens)


class Gain(ViewGenerator):
    """Ordinary: it learns by the objective."""

    def __init__(self):
        super().__init__()
        self.log_gain = torch.nn.Parameter(torch.zeros(2, 1))

    def forward(self, view, draw):
        return view.replace(data=view.data * self.log_gain.exp())


def augmentation(**options):
    seed_all(5)
    return AutoTCL(**{"channels": 2, "hidden": 6, "depth": 2, "sparsity": 0.5, "consistency": 0.3, **options})


def taught(*, norm=False, micro=None, optimizer=None, objective=None, steps=None):
    seed_all(1)
    made = {"signal": Tower("signal", Steps(norm), MLP(width=12, dim=8))}
    objectives = {"loss": objective or Objective(stretches=4)}
    module = loop(objectives, modalities=("signal",), made=made, micro=micro, optimizer=optimizer)
    module.pipelines["signal"] = Pipeline("signal", steps or [augmentation(), Noise(sigma=0.05)])
    module.forward_pass.layouts["signal"] = module.pipelines["signal"].layout()
    return module


def signals(size=16, missing=0.0):
    return Pairs(size=size, modalities=["signal"], missing=missing)


def gradients(module, **options):
    seen = Gradients()
    train(module, signals(), callbacks=[seen], **{"batch": 16, "epochs": 1, **options})
    return seen.seen


class Separately(lightning.Callback):
    """The gradients of two separate backward passes over every batch, made before its step."""

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        step, tower, view = trainer.fit_loop.epoch_loop.total_batch_idx, module.towers["signal"], module.view
        index, raw = batch.index, batch.inputs["signal"]
        of = lambda loss, part: torch.autograd.grad(loss, list(part.parameters()), allow_unused=True)  # noqa: E731
        encoder, _ = module.contrast(module.forward_pass.outputs(batch, step, 0))
        self.encoder = of(encoder, tower)
        tower.eval()
        made = module.pipelines["signal"](raw, index, module.training_plan.seed, step)
        seen = [tower(v, n) for n, v in enumerate(made)]
        self.view = of(view.own_loss(module.forward_pass.outputs(batch, step, 0).__class__(seen, batch))[0], view)
        tower.train()


@pytest.mark.parametrize("micro", [None, 5])
def test_each_loss_reaches_its_own_parameters_alone(micro):
    module = taught(optimizer=sgd(lr=0.0), micro=micro)
    module.view, apart, seen = module.pipelines["signal"].steps[0], Separately(), Gradients()
    train(module, signals(), batch=16, epochs=1, callbacks=[apart, seen])
    tower = [seen.seen[0].get(f"towers.signal.{name}") for name, _ in module.towers["signal"].named_parameters()]
    view = [seen.seen[0].get(f"pipelines.signal.steps.0.{name}") for name, _ in module.view.named_parameters()]
    assert any(g.any() for g in tower) and all(g.any() for g in view)
    for ours, theirs in zip([*tower, *view], [*apart.encoder, *apart.view], strict=True):
        torch.testing.assert_close(ours, torch.zeros_like(ours) if theirs is None else theirs, rtol=1e-4, atol=1e-6)


def test_micro_batches_give_the_gradients_of_the_whole_batch():
    (whole,) = gradients(taught(optimizer=sgd(lr=0.0)))
    for micro in (5, 8):
        (cut,) = gradients(taught(optimizer=sgd(lr=0.0), micro=micro))
        assert cut.keys() == whole.keys()
        for name, expected in whole.items():
            torch.testing.assert_close(cut[name], expected, rtol=1e-4, atol=1e-6)


class Together(ViewGenerator):
    whole_batch = True

    def forward(self, view, draw):
        return view.replace(data=view.data - view.data.mean(0))


def test_micro_batches_after_a_step_that_sees_the_whole_batch():
    """Also within another step, and with a step that learns by the objective before it."""
    steps = lambda: [Gain(), Branches(global_steps=[augmentation()], n_global=1, n_local=0), Together()]  # noqa: E731
    (whole,) = gradients(taught(optimizer=sgd(lr=0.0), steps=steps()))
    (cut,) = gradients(taught(optimizer=sgd(lr=0.0), steps=steps(), micro=5))
    assert whole["pipelines.signal.steps.0.log_gain"].any()
    for name, expected in whole.items():
        torch.testing.assert_close(cut[name], expected, rtol=1e-4, atol=1e-6)


def test_what_learns_by_the_objective_is_not_moved_by_the_loss_of_a_view():
    """With and without a loss of the view, all other gradients are equal; without it, the view has none."""
    (both,) = gradients(taught(optimizer=sgd(lr=0.0), steps=[Gain(), augmentation()], norm=True))
    silent = augmentation()
    silent.own_loss = lambda outputs: (torch.zeros(()), {})
    (alone,) = gradients(taught(optimizer=sgd(lr=0.0), steps=[Gain(), silent], norm=True))
    for name, gradient in alone.items():
        if "steps.1" in name:
            assert not gradient.any()
        else:
            assert torch.equal(gradient, both[name]), name


def test_the_loss_of_a_view_moves_no_batch_statistics():
    quiet, loud = (taught(norm=True, steps=[augmentation(every=every), Noise(sigma=0.1)]) for every in (100, 1))
    for module in (quiet, loud):
        module.pipelines["signal"].steps[0].lr = 0.0
        train(module, signals(), batch=8, epochs=1)
    assert_same_state(quiet.towers, loud.towers)
    assert int(loud.towers["signal"].encoder.last[0].num_batches_tracked) == 2 * 2


class States(lightning.Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, module, *rest):
        self.seen.append([p.detach().clone() for p in module.pipelines.parameters()])


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_view_learns_only_in_its_steps(accumulate):
    """Neither momentum nor weight decay moves it in the others."""
    seen, module = States(), taught(optimizer=adamw(lr=0.01, weight_decay=0.1), steps=[augmentation(every=3)])
    train(module, signals(32), batch=4, epochs=1, callbacks=[seen], accumulate_grad_batches=accumulate)
    ends = seen.seen[accumulate - 1 :: accumulate]
    moved = [any(not torch.equal(a, b) for a, b in zip(one, two)) for one, two in pairwise(ends)]
    assert moved == [step % 3 == 0 for step in range(1, len(ends))] and True in moved


def test_its_learning_rate_is_its_own():
    module = taught(steps=[Gain(), augmentation(lr=0.5)], optimizer=adamw(lr=0.01))
    groups = module.configure_optimizers()["optimizer"].param_groups
    view = set(module.pipelines["signal"].steps[1].parameters())
    rates = {(group["initial_lr"], p in view) for group in groups for p in group["params"]}
    assert rates == {(0.01, False), (0.5, True)}
    assert sum(len(group["params"]) for group in groups) == len([p for p in module.parameters() if p.requires_grad])


def test_a_run_stopped_between_its_steps_ends_bit_identical(tmp_path):
    class Stop(lightning.Callback):
        def on_train_batch_end(self, trainer, module, *rest):
            if trainer.fit_loop.epoch_loop.batch_progress.total.ready == 3:
                trainer.save_checkpoint(tmp_path / "stopped.ckpt")
                raise KeyError("stopped")

    make = lambda: taught(norm=True, micro=5, steps=[augmentation(every=2), Noise(sigma=0.1)])  # noqa: E731
    straight, resumed = make(), make()
    train(straight, signals(), epochs=3)
    with pytest.raises(KeyError):
        train(make(), signals(), epochs=3, callbacks=[Stop()])
    train(resumed, signals(), epochs=3, ckpt=tmp_path / "stopped.ckpt")
    assert_same_state(straight, resumed)
    assert all(torch.equal(a, b) for a, b in zip(_moments(straight), _moments(resumed), strict=True))


def _moments(module):
    state = module.optimizers().state_dict()["state"]
    return [value for number in state for value in state[number].values()]


def test_momentum_encoders_see_the_same_views():
    from counterpoint.objectives.moco import MoCo

    module = taught(objective=MoCo(queue=8), steps=[augmentation()])
    before = [p.detach().clone() for p in module.pipelines.parameters()]
    train(module, signals(), batch=8, epochs=1)
    assert all(not torch.equal(a, b) for a, b in zip(before, module.pipelines.parameters()))
    assert not any("pipelines" in name for name, _ in module.momentum.named_parameters())


def test_a_batch_without_the_modality_leaves_the_view_with_a_zero_gradient():
    module = loop({"loss": InfoNCE()}, made=towers())
    module.pipelines["signal"] = Pipeline("signal", [augmentation()])
    module.forward_pass.layouts["signal"] = module.pipelines["signal"].layout()
    data, seen = Pairs(size=8), Gradients()
    whole = data.inputs
    data.inputs = lambda index: {"words": whole(index)["words"]}
    train(module, data, batch=8, epochs=1, callbacks=[seen])
    found = [g for name, g in seen.seen[0].items() if name.startswith("pipelines.signal")]
    assert len(found) == len(list(module.pipelines["signal"].parameters())) and not any(g.any() for g in found)


def test_a_trainable_view_says_what_it_lacks():
    class Bare(TrainableView):
        pass

    with pytest.raises(TypeError, match="Bare must define own_loss"):
        Bare().own_loss(None)


RECIPE = """
data:      {use: toy.pairs, size: 24, modalities: [signal]}
loader:    {batch: 4, workers: 0}
encoders:  {signal: {use: toy.conv}}
views:     {signal: [{use: autotcl, hidden: 4, depth: 1, every: 2}]}
objective: {use: nt_xent}
trainer:   {max_epochs: 1, accelerator: cpu}
"""


def test_a_recipe_trains_a_view_and_logs_its_loss(tmp_path):
    """Its initial weights depend on the seed alone; its loss is the mean over the steps in which it learned."""
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    made = lambda seed: assemble(load(tmp_path / "recipe.yaml", [f"seed={seed}"])).pipelines["signal"]  # noqa: E731
    assert_same_state(made(1), made(1))
    assert not torch.equal(next(made(1).parameters()), next(made(2).parameters()))
    run = fit(load(tmp_path / "recipe.yaml"), root=tmp_path / "runs")
    logged = [row.split(",") for row in (run.folder / "metrics.csv").read_text().splitlines()]
    kept = [float(value) for _, _, name, value in logged if name == "view/signal/kept"]
    assert kept and all(0.3 < value < 0.7 for value in kept)  # about a half at first, and not half of that
    assert {"view/signal", "view/signal/mmd", "loss"} <= {row[2] for row in logged}
