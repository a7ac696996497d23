"""Properties of the shared loop: one path, exact whatever the micro-batch, the missing modality or the interruption."""

import pytest
import torch

from building import Gradients, assert_same_state, loop, towers, train
from counterpoint.batch import Batch, View
from counterpoint.data.collate import collate
from counterpoint.errors import ComponentError, TrainingError
from counterpoint.evaluate.embed import embed
from counterpoint.heads.projection import MLP, Identity
from counterpoint.loop.optimizers import adamw, sgd
from counterpoint.objectives.info_nce import InfoNCE
from counterpoint.objectives.moco import MoCo
from counterpoint.objectives.objective import Objective
from counterpoint.runs.checkpoints import Checkpoints
from counterpoint.towers.tower import Tower
from counterpoint.towers.tuning import tune
from counterpoint.views.copies import Copies
from counterpoint.views.pipeline import Pipeline
from counterpoint_toy.parts import Pairs, Remember


class Tune:
    rank, alpha, targets = 2, 4.0, ["stem.0"]


def everything():
    """Objectives that together ask for every service."""
    return {
        "nce": InfoNCE(temperature=0.3, learnable=True, pairs="across"),
        "moco": MoCo(temperature=0.3, queue=37, momentum=0.9, modalities=["signal", "words"]),
        "remember": Remember(size=48),
    }


def gradients(micro, **options):
    seen = Gradients()
    module = loop({"nce": InfoNCE(temperature=0.3, learnable=True)}, micro=micro, optimizer=sgd(lr=0.0), **options)
    train(module, Pairs(size=48, missing=0.3), batch=48, epochs=2, callbacks=[seen])
    return seen.seen


def test_micro_batches_give_the_gradient_of_the_whole_batch():
    whole = gradients(None)
    for micro in (5, 16):
        for expected, got in zip(whole, gradients(micro), strict=True):
            assert expected.keys() == got.keys()
            for name in expected:
                torch.testing.assert_close(got[name], expected[name], rtol=1e-4, atol=1e-6)


def test_micro_batches_count_batch_statistics_once():
    made = towers(("signal",), norm=True)
    module = loop({"nce": InfoNCE()}, modalities=("signal",), micro=8, made=made)
    train(module, Pairs(size=32, modalities=["signal"]), batch=32, epochs=1)
    tracked = made["signal"].encoder.last[0].num_batches_tracked
    assert int(tracked) == 2 * 4  # two views, four micro-batches, none counted again in the backward pass


def test_micro_batches_replay_dropout():
    """Dropout masks of a micro-batch are the same when it is computed again: the gradient is that of one function."""
    module = loop({"nce": InfoNCE()}, modalities=("signal",), norm=True, micro=8)
    made, index = module.towers["signal"], torch.arange(8)
    raw = View("signal", torch.randn(8, 2, 64, generator=torch.Generator().manual_seed(0)), index)
    module.trainer = None
    first, again = (module.forward_pass.make(made, raw, index, 3, 1, 0)[0].z for _ in range(2))
    others = [
        module.forward_pass.make(made, raw, index, 3, 2, 0)[0].z,
        module.forward_pass.make(made, raw, index, 3, 1, 0, "momentum")[0].z,
    ]
    assert torch.equal(first, again)
    assert not any(torch.equal(first, other) for other in others)


@pytest.mark.fault("R1")
@pytest.mark.parametrize("stop", [1, 4, 5, 6, 9, 11])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_stopped_anywhere_ends_bit_identical(stop, accumulate, tmp_path):
    import lightning

    class Stop(lightning.Callback):
        def on_train_batch_end(self, trainer, module, *rest):
            done = trainer.fit_loop.epoch_loop.batch_progress.total.ready
            if done >= stop and not trainer.fit_loop._should_accumulate():
                trainer.save_checkpoint(tmp_path / "stopped.ckpt")
                raise KeyError("stopped")

    options = {"batch": 16, "epochs": 4, "accumulate_grad_batches": accumulate, "gradient_clip_val": 0.5}
    data = Pairs(size=48, missing=0.3)
    straight = loop(everything(), norm=True)
    train(straight, data, **options)
    with pytest.raises(KeyError):
        train(loop(everything(), norm=True), data, callbacks=[Stop()], **options)
    resumed = loop(everything(), norm=True)
    train(resumed, data, ckpt=tmp_path / "stopped.ckpt", **options)
    assert_same_state(straight, resumed)


def test_a_modality_absent_from_a_whole_batch():
    """No row of a modality: zero rows connected to the graph, and a finite loss."""
    module = loop(everything(), norm=True)
    batch = Batch({"signal": View("signal", torch.randn(4, 2, 64), torch.arange(4))}, torch.arange(4))
    student, momentum, _ = module.forward_pass.encode(batch, 0)
    assert [len(e.row) for e in student] == [4, 4, 0]
    assert [e.view for e in student] == [e.view for e in momentum] == [0, 1, 2]
    outputs_grad = sum(e.z.sum() for e in student)
    outputs_grad.backward()
    assert all(p.grad is not None for p in module.towers.parameters())
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in module.towers["words"].parameters())


def test_a_view_of_a_sample_does_not_depend_on_its_batch():
    module = loop({"nce": InfoNCE()}, modalities=("signal",))
    data, index = torch.randn(6, 2, 64), torch.tensor([9, 4, 7, 1, 30, 2])
    whole = module.pipelines["signal"](View("signal", data, torch.arange(6)), index, 7, 3)
    part = module.pipelines["signal"](View("signal", data[[4, 1]], torch.arange(2)), index[[4, 1]], 7, 3)
    later = module.pipelines["signal"](View("signal", data, torch.arange(6)), index, 7, 4)
    for before, after, other in zip(whole, part, later, strict=True):
        assert torch.equal(before.data[[4, 1]], after.data)
        assert not torch.equal(before.data, other.data)
    assert not torch.equal(whole[0].data, whole[1].data)


def test_queues_hold_what_was_pushed_and_momentum_follows():
    module = loop({"moco": MoCo(queue=20, momentum=0.9)}, modalities=("signal",))
    start = {name: p.clone() for name, p in module.momentum.named_parameters()}
    train(module, Pairs(size=32, modalities=["signal"]), batch=16, epochs=1)
    for queue in module.queues["moco"].values():
        rows = queue.rows()
        assert len(rows.z) == 20 and queue.seen == 32 * (queue.seen // 32)
        torch.testing.assert_close(rows.z.norm(dim=1), torch.ones(20))
        assert set(rows.index.tolist()) <= set(range(32))
    assert any(not torch.equal(p, start[name]) for name, p in module.momentum.named_parameters())


def test_frozen_and_partly_frozen_towers_stay_as_they_were():
    made = towers(norm=True)
    tune(made["signal"], ["stem.0.*"])
    tune(made["words"], "none")
    before = {m: {k: v.clone() for k, v in t.state_dict().items()} for m, t in made.items()}
    train(loop(everything(), made=made), Pairs(size=48), batch=16)
    after = {m: t.state_dict() for m, t in made.items()}
    assert all(torch.equal(before["words"][k], after["words"][k]) for k in before["words"] if k.startswith("encoder"))
    moved = {k for k in before["signal"] if not torch.equal(before["signal"][k], after["signal"][k])}
    assert {k for k in moved if k.startswith("encoder")} == {"encoder.stem.0.weight", "encoder.stem.0.bias"}


def test_lora_trains_its_adapters_alone():
    pytest.importorskip("peft")
    made = towers(("signal",))
    tune(made["signal"], "all", Tune)
    learning = {n for n, p in made["signal"].encoder.named_parameters() if p.requires_grad}
    assert learning and all("lora_" in name for name in learning)
    before = {n: p.clone() for n, p in made["signal"].encoder.named_parameters()}
    train(loop({"nce": InfoNCE()}, modalities=("signal",), made=made), Pairs(size=32, modalities=["signal"]), batch=16)
    moved = {n for n, p in made["signal"].encoder.named_parameters() if not torch.equal(p, before[n])}
    assert moved and moved <= learning


def test_a_pattern_that_matches_nothing_is_named():
    with pytest.raises(
        ComponentError, match=r"tune.signal.train: no parameter matches 'stemm.*'; there are: stem.0.weight"
    ):
        tune(towers(("signal",))["signal"], ["stemm.*"])


def test_weighted_sum_of_objectives():
    one, two = loop({"nce": InfoNCE()}), loop({"nce": InfoNCE()})
    batch = Batch({"signal": View("signal", torch.randn(6, 2, 64), torch.arange(6))}, torch.arange(6))
    two.training_plan.weights = {"nce": 0.25}
    values = [module.contrast(module.forward_pass.outputs(batch, 0, 0))[0] for module in (one, two)]
    torch.testing.assert_close(values[1], 0.25 * values[0])


@pytest.mark.fault("R11")
def test_a_loss_that_is_not_finite_stops_the_run():
    class Bad(Objective):
        def loss(self, outputs):
            return outputs.student[0].z.sum() * float("nan"), {}

    with pytest.raises(TrainingError, match="not finite"):
        train(loop({"bad": Bad()}, modalities=("signal",)), Pairs(size=32, modalities=["signal"]), batch=16)


@pytest.mark.fault("R11")
def test_one_row_of_a_modality_with_batch_statistics():
    made: Tower = towers(("signal",), norm=True)["signal"].train()
    made.encoder.last[0].running_mean += 0.5
    before = made.encoder.last[0].running_mean.clone()
    encoded = made(View("signal", torch.randn(1, 2, 64), torch.zeros(1, dtype=torch.long)), 0)
    assert torch.isfinite(encoded.z).all()
    assert torch.equal(before, made.encoder.last[0].running_mean)


@pytest.mark.fault("R11")
def test_bfloat16_keeps_embeddings_and_queues_in_float32():
    module = loop(everything())
    train(module, Pairs(size=48, missing=0.3), batch=16, precision="bf16-mixed", gradient_clip_val=0.5)
    assert module.last_outputs.student[0].z.dtype == torch.float32
    assert all(q.z.dtype == torch.float32 for queues in module.queues.values() for q in queues.values())
    assert all(torch.isfinite(p).all() for p in module.parameters())


def test_a_wholly_frozen_tower_rests_whatever_mode_is_asked_for():
    """A locked encoder without a head of its own, as in LiT: trained against, never moved."""
    made = towers(norm=True)
    made["signal"] = Tower("signal", made["signal"].encoder, Identity(width=16))
    made["words"].head.stack[-1] = torch.nn.Linear(16, 16)
    made["words"].head.dim = 16
    tune(made["signal"], "none")
    before = {name: value.clone() for name, value in made["signal"].state_dict().items()}
    train(loop({"nce": InfoNCE()}, made=made), Pairs(size=32), batch=16, epochs=1)
    assert all(torch.equal(value, before[name]) for name, value in made["signal"].state_dict().items())
    assert not any(module.training for module in made["signal"].train().modules())


def test_nothing_to_train_is_said():
    made = {"signal": Tower("signal", towers(("signal",))["signal"].encoder, Identity(width=16))}
    tune(made["signal"], "none")
    module = loop({"nce": InfoNCE()}, modalities=("signal",), made=made)
    with pytest.raises(TrainingError, match="nothing learns"):
        train(module, Pairs(size=32, modalities=["signal"]), batch=16)


def test_momentum_encoders_follow_the_mode_of_the_students():
    """They see batch statistics of their own, though none of their parameters learns; frozen parts rest in both."""
    made = towers(norm=True)
    tune(made["signal"], ["stem.*"])
    module = loop(everything(), norm=True, made=made)
    for mode in (False, True):
        module.train(mode)
        for name, tower in module.momentum.towers.items():
            modes = [[part.training for part in t.modules()] for t in (tower, module.towers[name])]
            assert modes[0] == modes[1]
    assert not module.momentum.towers["signal"].encoder.last[0].training
    assert module.momentum.towers["signal"].head.training


class OneBadGradient(Objective):
    """The loss stays finite; the gradient of step 2 is NaN, as that of a square root at zero is."""

    def loss(self, outputs):
        z = outputs.student[0].z
        return (z - z.detach()).square().sum().sqrt() if outputs.step == 2 else z.sum() * 0.0, {}


@pytest.mark.fault("R11")
def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    """Also when it happens in the last step, after which no loss would tell."""
    saves = Checkpoints(tmp_path)
    saves.EVERY = 0.0
    module = loop({"bad": OneBadGradient()}, modalities=("signal",))
    with pytest.raises(TrainingError, match="weights are not finite"):
        train(module, Pairs(size=48, modalities=["signal"]), batch=16, epochs=1, callbacks=[saves])
    assert [path.stem for path in sorted(tmp_path.iterdir())] == ["step-00000001", "step-00000002"]


def test_embedding_leaves_every_module_in_the_mode_it_had():
    module = loop({"nce": InfoNCE()}, modalities=("signal",), norm=True)
    module.towers["signal"].encoder.last[1].eval()
    before = [part.training for part in module.towers.modules()]
    embed({"now": dict(module.towers.items())}, module.pipelines, Pairs(size=8, modalities=["signal"]))
    assert [part.training for part in module.towers.modules()] == before


@pytest.mark.parametrize("precision", [torch.float64, torch.bfloat16])
def test_embedding_in_the_precision_of_the_weights(precision):
    module = loop({"nce": InfoNCE()}, modalities=("signal",)).to(precision)
    seen = embed({"now": dict(module.towers.items())}, module.pipelines, Pairs(size=8, modalities=["signal"]))
    assert seen["now"].h["signal"].dtype == torch.float32


@pytest.mark.fault("R11")
def test_a_batch_without_samples_gives_no_gradient():
    """Everything in it was skipped: groups that the objectives ask for are there, and empty."""
    objectives = {"nce": InfoNCE(positives="subject"), "moco": MoCo(queue=8, modalities=["signal", "words"])}
    module = loop(objectives)
    loss, _ = module.contrast(module.forward_pass.outputs(collate([]), 0, 0))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert all(not p.grad.any() for p in module.towers.parameters())


def test_the_last_batch_is_not_held_by_what_callbacks_see():
    module = loop({"nce": InfoNCE()}, modalities=("signal",))
    train(module, Pairs(size=32, modalities=["signal"]), batch=16, epochs=1)
    assert len(module.last_outputs.batch) == 16 and not module.last_outputs.batch.inputs


def test_a_changed_learning_rate_holds_after_a_resume(tmp_path):
    data = Pairs(size=32, modalities=["signal"])
    short = loop({"nce": InfoNCE()}, modalities=("signal",))
    train(short, data, batch=16, epochs=1, callbacks=[Checkpoints(tmp_path)])
    other = loop({"nce": InfoNCE()}, modalities=("signal",), optimizer=adamw(lr=0.5, weight_decay=0.25))
    trainer = train(other, data, batch=16, epochs=2, ckpt=tmp_path / "step-00000002.ckpt")
    rates = [(group["lr"], group["weight_decay"]) for group in trainer.optimizers[0].param_groups]
    assert rates == [(0.5, 0.25), (0.5, 0.0)]


def test_student_and_momentum_see_views_that_are_made_once():
    """And by micro-batches, the same ones."""
    whole, parts = loop(everything()), loop(everything(), micro=3)
    rows = torch.arange(7)
    batch = Batch({"signal": View("signal", torch.randn(7, 2, 64), rows)}, rows + 20)
    calls = []
    whole.pipelines["signal"].register_forward_hook(lambda *_: calls.append(1))
    seen, again = whole.forward_pass.encode(batch, 5), parts.forward_pass.encode(batch, 5)
    assert calls == [1]
    for mine, theirs in zip([*seen[0], *seen[1]], [*again[0], *again[1]], strict=True):
        torch.testing.assert_close(mine.z, theirs.z)
    torch.testing.assert_close(seen[0][0].z, seen[1][0].z)  # the momentum encoder starts as the student


class Spoilt(Pairs):
    """One sample is not finite as it is read."""

    def inputs(self, index):
        found = super().inputs(index)
        return {m: x * float("nan") if index == 11 and x.is_floating_point() else x for m, x in found.items()}


class Spoil(Copies):
    """Two views, the second of which divides a sample by zero."""

    def forward(self, view, draw):
        good, other = super().forward(view, draw)
        return [good, other.replace(data=torch.cat([other.data[:1] / 0.0, other.data[1:]]))]


class Root(Objective):
    """Not finite by itself, whatever the embeddings are."""

    def loss(self, outputs):
        return (outputs.student[0].z.sum() * 0.0 - 1.0).sqrt(), {}


class Steep(Objective):
    """A gradient that is large everywhere, and finite."""

    def loss(self, outputs):
        return outputs.student[0].z.sum() * 1e3, {}


class Wide(torch.nn.Module):
    """An encoder that overflows."""

    width = 16

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((128, 16), 1e38))

    def forward(self, data):
        return data.flatten(1) @ self.weight * 1e30


def ends(module, data=None, **options) -> str:
    """What a run says when it ends, and the number of batches that it had done: at most one beyond the bad one."""
    seen = Gradients()
    with pytest.raises(TrainingError) as caught:
        train(module, data or Pairs(size=48, modalities=["signal"]), batch=16, callbacks=[seen], **options)
    assert "\n" not in str(caught.value) and "checkpoints before this step are intact" in str(caught.value)
    return f"{len(seen.seen)}: {caught.value}"


@pytest.mark.fault("R11")
def test_a_loss_that_is_not_finite_is_explained_within_one_step(record_property):
    one = lambda objective=None, **options: loop({"nce": objective or InfoNCE()}, modalities=("signal",), **options)  # noqa: E731
    assert "input not finite as it was read, 'signal' of samples [11]" in ends(
        one(), Spoilt(size=48, modalities=["signal"])
    )
    module = one()
    module.pipelines["signal"] = Pipeline("signal", [Spoil(n=2)])
    told = ends(module)
    assert told.startswith("1: loss is NaN at step 1: input not finite in view 2 of 'signal', samples ["), told
    assert "a step of views.signal made it so" in told
    assert ends(one(Root())).startswith(
        "1: loss is NaN at step 1: the value of nce is not finite, though inputs and emb"
    )
    both = loop({"fine": InfoNCE(), "root": Root()}, modalities=("signal",))
    assert "the value of root is not finite" in ends(both)
    made = {"signal": Tower("signal", Wide(), MLP(width=16, dim=8))}
    told = ends(one(made=made))
    assert told.startswith("1: loss is NaN at step 1: embedding not finite in view 1 of 'signal', samples ["), told
    record_property("survived", 5)


@pytest.mark.fault("R11")
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_gradient_or_a_step_that_is_not_finite_is_found_within_one_step(accumulate, record_property):
    """The loss is finite: only the weights tell, before another batch is encoded with them."""
    told = ends(loop({"bad": OneBadGradient()}, modalities=("signal",)), accumulate_grad_batches=accumulate)
    assert told.startswith(f"{2 + 1 if accumulate == 1 else 2}: the weights are not finite after step"), told
    assert "(towers.signal.encoder.stem.0.weight" in told
    optimizer = sgd(lr=3e38)
    told = ends(
        loop({"steep": Steep()}, modalities=("signal",), optimizer=optimizer), accumulate_grad_batches=accumulate
    )
    assert told.startswith("1: the weights are not finite after step 1, though the loss was"), told
    record_property("survived", 2)
