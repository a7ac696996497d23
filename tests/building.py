"""Loops built by hand from the toy pack, for tests that look inside."""

import logging
import warnings

import lightning
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch.utils.data import DataLoader

from counterpoint.data.collate import collate
from counterpoint.data.plan import Order, Plan, Seeded, shuffle
from counterpoint.heads.projection import MLP
from counterpoint.loop.module import Loop
from counterpoint.loop.optimizers import adamw, constant
from counterpoint.loop.steps import shorten
from counterpoint.loop.training import Training
from counterpoint.objectives.objective import Momentum
from counterpoint.randomness import seed_all
from counterpoint.towers.tower import Tower
from counterpoint.views.copies import Copies
from counterpoint.views.pipeline import Pipeline
from counterpoint_toy.parts import Drop, Noise, bag, conv, conv_bn

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="lightning.*")


def towers(modalities=("signal", "words"), norm=False, dim=8):
    """Towers with weights that depend on nothing but the modality."""
    made = {}
    for modality in modalities:
        seed_all(len(modality))
        encoder = (conv_bn if norm else conv)(channels=2) if modality == "signal" else bag(vocabulary=40)
        made[modality] = Tower(modality, encoder, MLP(width=16, dim=dim))
    return made


def pipelines(modalities=("signal", "words"), copies=2):
    steps = {"signal": [Copies(n=copies), Noise(sigma=0.2)], "words": [Drop(rate=0.2)]}
    return {modality: Pipeline(modality, steps[modality]) for modality in modalities}


def loop(
    objectives,
    *,
    modalities=("signal", "words"),
    norm=False,
    micro=None,
    optimizer=None,
    steps=100,
    made=None,
    teacher=None,
    refreshed=None,
):
    momentum = next((m for o in objectives.values() if (m := o.needs().momentum)), None)
    training = Training(
        optimizer or adamw(lr=1e-2), constant(), steps, steps, seed=7, micro_batch=micro,
        momentum=Momentum(0.9, 1.0) if momentum else None,
    )  # fmt: skip
    return Loop(made or towers(modalities, norm), pipelines(modalities), objectives, training, teacher, refreshed)


def train(
    module,
    dataset,
    *,
    batch=8,
    epochs=2,
    workers=0,
    callbacks=(),
    world=1,
    rank=0,
    sampler=None,
    ckpt=None,
    accelerator="cpu",
    **options,
):
    """Fit with the loader and the trainer that a run has; returns the trainer."""
    least = max(2, 2 * world)
    order = Order(len(dataset), batch, least, dataset.groups)
    order = order if module.refreshed is None else module.refreshed.into(order)
    plan = Plan(sampler or shuffle(), order, 7, world, rank)
    plan.refreshed = module.order
    if world > 1:
        from lightning.pytorch.strategies import DDPStrategy

        options |= {"strategy": DDPStrategy(broadcast_buffers=False), "devices": world}
    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator=accelerator, logger=False, enable_progress_bar=False,
        enable_checkpointing=any(isinstance(c, Checkpoint) for c in callbacks),
        enable_model_summary=False, use_distributed_sampler=False, callbacks=list(callbacks), num_sanity_val_steps=0,
        **options,
    )  # fmt: skip
    shorten(trainer)
    plan.position = lambda: trainer.fit_loop.epoch_loop.batch_progress.total.ready
    loader = DataLoader(
        Seeded(dataset, 7), batch_sampler=plan, collate_fn=collate, num_workers=workers, persistent_workers=workers > 0
    )
    trainer.fit(module, loader, ckpt_path=ckpt)
    return trainer


class Gradients(lightning.Callback):
    """Keeps a copy of every gradient at every optimizer step."""

    def __init__(self):
        self.seen = []

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.seen.append({name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None})


def assert_same_state(a: torch.nn.Module, b: torch.nn.Module) -> None:
    """Every parameter, buffer and extra state equal to the bit."""
    mine, theirs = a.state_dict(), b.state_dict()
    assert mine.keys() == theirs.keys()
    different = [name for name in mine if not torch.equal(mine[name], theirs[name])]
    assert not different, different
