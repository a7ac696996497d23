"""The loop's own cost: steps a second of `counterpoint fit` against a loop written by hand, at 1 ms and at 20 ms a step.

    python benchmarks/loop.py [--turns 30]

One problem (two noisy views of vectors in memory, an MLP, NT-Xent, AdamW, a cosine schedule), in four ways: `bare`, plain
PyTorch; `parts`, the same loop by hand over this project's reading, views, tower and objective; `lightning`, Lightning's
Trainer as it comes with `self.log` every step; `counterpoint`, what `counterpoint fit` runs: default callbacks, logging
and checkpoints. Printed are steps a second as a share of those of each other row: the median over turns, and the quartiles
of `counterpoint`'s share of `bare`. The ratio to `parts` is the loop's own; to `bare`, also what it costs that every view
is made from a seed of its own. Every row runs in a process of its own on one thread, and they take turns, an epoch at a
time. Times are CPU seconds of the process (wall seconds with the device waited for on CUDA). Writes
benchmarks/results/loop.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import torch
from apart import in_turns, quartiles, versions
from clock import DEVICE, Clock
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from torch.utils.data import DataLoader, TensorDataset

from counterpoint.batch import Batch, Outputs
from counterpoint.data.dataset import Dataset, Spec
from counterpoint.fit.assembly import Assembly
from counterpoint.fit.memory import keep_freed_memory
from counterpoint.fit.stage import loader_of, loop_of
from counterpoint.fit.trainer import build_trainer
from counterpoint.heads.projection import MLP
from counterpoint.loop.optimizers import cosine
from counterpoint.objectives.nt_xent import NTXent
from counterpoint.recipe import load
from counterpoint.runs.run import Run
from counterpoint.towers.tower import Tower
from counterpoint.views.copies import Copies
from counterpoint.views.pipeline import Pipeline
from counterpoint.views.signal import Noise

RESULTS = Path(__file__).parent / "results" / "loop.json"
BATCH, FEATURES, SIGMA, TEMPERATURE, LR = 64, 64, 0.1, 0.1, 1e-3
SIZES = {"1 ms": (96, 1, 200), "20 ms": (768, 2, 25)}  # about a bare step: width and depth of the MLP, batches an epoch
GOALS = {"1 ms": 0.70, "20 ms": 0.98}  # the loop's steps a second as a share of those of the bare loop
PEERS = ("bare", "parts", "lightning")

# The sections that a loop is run by; data, encoder and views are made below, so that every row has the same ones.
RECIPE = """
data:      {{use: ecg.pigcvp}}
loader:    {{batch: {batch}}}
encoders:  {{signal: {{use: ecg.resnet1d}}}}
objective: {{use: nt_xent, temperature: {temperature}}}
optimizer: {{use: adamw, lr: {lr}}}
trainer:   {{max_epochs: {epochs}}}
"""


class Encoder(nn.Sequential):
    """An MLP of (n, 1, features) that says its width."""

    def __init__(self, width: int, depth: int):
        layers = [nn.Flatten(), nn.Linear(FEATURES, width), nn.GELU()]
        for _ in range(depth):
            layers += [nn.Linear(width, width), nn.GELU()]
        super().__init__(*layers)
        self.width = width


class Memory(Dataset):
    """Vectors in memory."""

    def __init__(self, size: str):
        self.rows = torch.randn(BATCH * SIZES[size][2], 1, FEATURES, generator=torch.Generator().manual_seed(0))
        facts = {"channels": 1, "length": FEATURES}
        self.spec = Spec(len(self.rows), {"signal": facts}, in_memory=True)

    def inputs_of(self, index: Tensor) -> dict[str, Tensor]:
        return {"signal": self.rows[index]}


def model(size: str) -> tuple[Encoder, MLP]:
    torch.manual_seed(0)
    width, depth, _ = SIZES[size]
    return Encoder(width, depth), MLP(width=width, dim=64)


def contrast(a: Tensor, b: Tensor) -> Tensor:
    z, n = normalize(torch.cat([a, b]), dim=1), len(a)
    logits = (z @ z.T / TEMPERATURE).fill_diagonal_(-torch.inf)
    return cross_entropy(logits, torch.arange(2 * n, device=z.device).roll(n))


class Timed(Callback):
    """The clock looked at as each epoch's first batch begins: what happens between epochs counts."""

    def __init__(self):
        self.clock = Clock()

    def on_train_batch_start(self, trainer: Trainer, module, batch, batch_idx: int) -> None:
        if batch_idx == 0:
            self.clock.mark()


def by_hand(batches, step: Callable, parameters, epochs: int) -> None:
    """`step(batch, number)` gives the loss; every tenth is read, as a person would to see it fall."""
    os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)  # set by importing Lightning, 0.1 ms a step: not by hand
    optimizer, clock, number = torch.optim.AdamW(parameters, lr=LR), Clock(), 0
    factor, steps = cosine(), epochs * len(batches)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factor(step, steps))
    for _ in range(epochs):
        clock.mark()
        for batch in batches:
            optimizer.zero_grad()
            loss = step(batch, number)
            loss.backward()
            optimizer.step()
            schedule.step()
            number += 1
            if number % 10 == 0:
                loss.item()


def vectors(size: str) -> DataLoader:
    return DataLoader(TensorDataset(Memory(size).rows), batch_size=BATCH, shuffle=True)


def bare(size: str, epochs: int) -> None:
    net = nn.Sequential(*model(size)).to(DEVICE)

    def step(batch: list[Tensor], number: int) -> Tensor:
        x = batch[0].to(DEVICE)
        return contrast(*(net(x + SIGMA * torch.randn_like(x)) for _ in range(2)))

    by_hand(vectors(size), step, net.parameters(), epochs)


def lightning(size: str, epochs: int) -> None:
    net, batches = nn.Sequential(*model(size)), vectors(size)

    class Stock(LightningModule):
        def __init__(self):
            super().__init__()
            self.net = net

        def training_step(self, batch: list[Tensor], number: int) -> Tensor:
            x = batch[0]
            loss = contrast(*(self.net(x + SIGMA * torch.randn_like(x)) for _ in range(2)))
            self.log("loss", loss, prog_bar=True)
            return loss

        def configure_optimizers(self):
            optimizer, factor = torch.optim.AdamW(self.parameters(), lr=LR), cosine()
            make = torch.optim.lr_scheduler.LambdaLR
            schedule = make(optimizer, lambda step: factor(step, epochs * len(batches)))
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(max_epochs=epochs, default_root_dir=folder, callbacks=[Timed()], devices=1)
        trainer.fit(Stock(), batches)


def assembled(size: str, epochs: int, folder: Path) -> Assembly:
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(batch=BATCH, temperature=TEMPERATURE, lr=LR, epochs=epochs))
    dataset, tower = Memory(size), Tower("signal", *model(size))
    views = Pipeline("signal", [Copies(n=2), Noise(sigma=SIGMA)])
    objective = NTXent(temperature=TEMPERATURE)
    return Assembly(
        load(path), dataset, {"signal": {}}, {"signal": tower}, {"signal": views}, {"loss": objective}, None
    )


def parts(size: str, epochs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assembly = assembled(size, epochs, Path(folder))
    plan, loop = loop_of(assembly)
    loop.to(DEVICE)
    tower, pipeline, objective = loop.towers["signal"], loop.pipelines["signal"], loop.objectives["loss"]

    def step(batch: Batch, number: int) -> Tensor:
        batch = batch.to(DEVICE)
        views = pipeline(batch.inputs["signal"], batch.index, 0, number)
        return objective(Outputs([tower(view, place) for place, view in enumerate(views)], batch))[0]

    by_hand(loader_of(assembly, plan), step, loop.parameters(), epochs)


def counterpoint(size: str, epochs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assembly = assembled(size, epochs, Path(folder))
        plan, loop = loop_of(assembly)
        run = Run.create("loop", Path(folder))
        trainer = build_trainer(assembly, run, None, loop, len(plan), 0, print)
        progress = trainer.fit_loop.epoch_loop.batch_progress
        plan.position = lambda: progress.total.ready
        trainer.callbacks.append(Timed())
        trainer.fit(loop, loader_of(assembly, plan))


ROWS = {"bare": bare, "parts": parts, "lightning": lightning, "counterpoint": counterpoint}


def main(turns: int) -> None:
    where = torch.cuda.get_device_name() if DEVICE == "cuda" else f"{platform.machine()}, one thread"
    heads = "".join(f"{f'x {peer}':>12}" for peer in PEERS)
    print(
        f"batch {BATCH}, on {where}\n{'':22}{'ms a step':>12}{'steps/s':>10}{heads}{'quartiles':>16}{'goal':>8}  (x bare)"
    )
    rows = []
    for size, goal in GOALS.items():
        found = in_turns(__file__, {name: (name, size, turns + 3) for name in ROWS}, turns)
        if failed := [f"{name} at {size}: {why}" for name, why in found.items() if isinstance(why, str)]:
            sys.exit("; ".join(failed))
        for number, (name, taken) in enumerate(found.items()):
            shares = {peer: quartiles(taken, found[peer]) for peer in PEERS if peer in [*ROWS][: number + 1]}
            row = {"size": size, "name": name, "seconds": median(taken) / SIZES[size][2]}
            row |= {f"of_{peer}": share[1] for peer, share in shares.items()}
            row |= {"of_bare_quartiles": shares["bare"][::2], "goal": goal} if name == "counterpoint" else {}
            rows.append(row)
            print(f"{size:8}{name:14}" + _shown(row), flush=True)
    stored = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    stored[DEVICE] = {
        "date": datetime.now(UTC).date().isoformat(), "machine": where, "batch": BATCH, "turns": turns,
        "versions": versions(("torch", "lightning", "counterpoint")),
        "rows": rows,
    }  # fmt: skip
    RESULTS.write_text(json.dumps(stored, indent=1) + "\n")


def _shown(row: dict) -> str:
    ratios = "".join(f"{row[f'of_{peer}']:12.2f}" for peer in PEERS if f"of_{peer}" in row)
    goal = ""
    if "goal" in row:
        low, high = row["of_bare_quartiles"]
        goal = f"{f'{low:.2f} to {high:.2f}':>16}{row['goal']:8.2f}"
    return f"{row['seconds'] * 1e3:12.2f}{1 / row['seconds']:10.0f}{ratios}{goal}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=30, help="epochs of every row")
    parser.add_argument(
        "--row", nargs=3, metavar=("NAME", "SIZE", "EPOCHS"), help="one row, told on stdin when to go on"
    )
    asked = parser.parse_args()
    if asked.row:
        keep_freed_memory()  # in every row, as `counterpoint fit` does
        ROWS[asked.row[0]](asked.row[1], int(asked.row[2]))
    else:
        main(asked.turns)
