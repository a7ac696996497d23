"""A step of plain training is Lightning's: the same events in the same order, the same progress, the same bits."""

import re
from pathlib import Path

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.profilers import SimpleProfiler

from building import assert_same_state, loop, train
from counterpoint.loop import steps
from counterpoint.objectives.info_nce import InfoNCE
from counterpoint.objectives.moco import MoCo
from counterpoint_toy.parts import Pairs

HOOKS = ["on_train_epoch_start", *steps.HOOKS, "on_train_epoch_end"]
OPTIONS = {
    "plain": {},
    "nothing logged": {"log": False},
    "clipped": {"gradient_clip_val": 0.1},
    "clipped by value": {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"},
    "double": {"precision": "64-true"},
    "half": {"precision": "bf16-true"},
    "mixed": {"precision": "bf16-mixed"},
    "a few steps": {"max_steps": 5},
}
LIGHTNINGS = {
    "accumulated": {"accumulate_grad_batches": 2},
    "profiled": {"profiler": SimpleProfiler()},
}


class Events(lightning.Callback):
    """What each hook saw: its name, all that is counted, the rate, and what was given to it."""

    def __init__(self, save: Path | None = None, log: bool = True):
        self.seen, self.path, self.log = [], save, log

    def note(self, hook, trainer, module, *given):
        epoch = trainer.fit_loop.epoch_loop
        optimizer = epoch.automatic_optimization.optim_progress.state_dict()
        counted = [epoch.batch_progress.state_dict(), epoch.scheduler_progress.state_dict(), optimizer]
        self.seen.append([
            hook, counted, epoch._batches_that_stepped, trainer.global_step, trainer.optimizers[0].param_groups[0]["lr"],
            [_told(thing) for thing in given], module._current_fx_name, torch.is_grad_enabled(),
        ])  # fmt: skip

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.note("on_train_batch_end", trainer, module, outputs, batch, batch_idx)
        if self.log:
            module.log("answer", float(trainer.global_step), batch_size=1, on_epoch=True)
        if self.path is not None and trainer.global_step == 5:
            trainer.save_checkpoint(self.path)


def _told(thing):
    if isinstance(thing, dict):
        return {name: _told(value) for name, value in thing.items()}
    if isinstance(thing, torch.Tensor):
        return thing.requires_grad, thing.item()
    return thing if isinstance(thing, int) else type(thing).__name__


for name in HOOKS:
    if name != "on_train_batch_end":
        setattr(
            Events, name, lambda self, trainer, module, *given, _hook=name: self.note(_hook, trainer, module, *given)
        )


class Calls:
    """How often Lightning's own step ran."""

    def __init__(self, monkeypatch):
        self.count, own = 0, _TrainingEpochLoop.advance

        def advance(loop, fetcher):
            self.count += 1
            own(loop, fetcher)

        monkeypatch.setattr(_TrainingEpochLoop, "advance", advance)


def objectives():
    return {
        "nce": InfoNCE(temperature=0.3, learnable=True, pairs="across"),
        "moco": MoCo(temperature=0.3, queue=37, momentum=0.9, modalities=["signal", "words"]),
    }


def trained(save=None, log=True, more=(), **options):
    module, events = loop(objectives(), norm=True), Events(save, log)
    trainer = train(module, Pairs(size=48, missing=0.3), batch=16, epochs=3, callbacks=[events, *more], **options)
    return module, events.seen, trainer


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_plain_step_is_lightnings(options, monkeypatch):
    calls = Calls(monkeypatch)
    module, events, trainer = trained(**options)
    assert calls.count == 0 and type(trainer.fit_loop.epoch_loop) is steps.Steps
    monkeypatch.setattr(steps, "TRIED", ())
    expected, told, peer = trained(**options)
    assert calls.count == trainer.global_step == sum(hook == "on_train_batch_end" for hook, *_ in told) > 0
    assert [event[0] for event in events] == [event[0] for event in told]
    assert events == told
    assert_same_state(module, expected)
    logged = {"answer", "loss"} if options.get("log", True) else {"loss"}
    assert trainer.callback_metrics.keys() == peer.callback_metrics.keys() >= logged
    assert all(torch.equal(value, peer.callback_metrics[name]) for name, value in trainer.callback_metrics.items())
    assert trainer.fit_loop.state_dict() == peer.fit_loop.state_dict()


@pytest.mark.parametrize("options", LIGHTNINGS.values(), ids=LIGHTNINGS)
def test_any_other_step_is_taken_by_lightning(options, monkeypatch):
    calls = Calls(monkeypatch)
    trained(**options)
    assert calls.count == 9


def test_batches_that_are_accumulated_from_an_epoch_on_are_lightnings_from_there(monkeypatch):
    calls = Calls(monkeypatch)
    module, *_ = trained(more=[GradientAccumulationScheduler({1: 2})])
    assert calls.count == 6  # of three epochs of three batches
    monkeypatch.setattr(steps, "TRIED", ())
    expected, *_ = trained(more=[GradientAccumulationScheduler({1: 2})])
    assert_same_state(module, expected)


@pytest.mark.parametrize("first, then", [((), steps.TRIED), (steps.TRIED, ())], ids=["Lightning's", "ours"])
def test_a_run_begun_by_one_goes_on_in_the_other(first, then, tmp_path, monkeypatch):
    path = tmp_path / "begun.ckpt"
    straight, *_ = trained()
    monkeypatch.setattr(steps, "TRIED", first)
    trained(save=path)
    monkeypatch.setattr(steps, "TRIED", then)
    resumed, *_ = trained(ckpt=path)
    assert_same_state(straight, resumed)


def test_the_version_that_is_installed_was_tried():
    pinned = re.search(r"^lightning==(\d+\.\d+)", (Path(__file__).parents[1] / "constraints.txt").read_text(), re.M)
    assert pinned and pinned[1] in steps.TRIED and lightning.__version__.startswith(pinned[1])
