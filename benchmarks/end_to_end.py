"""Samples a second of `counterpoint fit ecg/quickstart` against a bare PyTorch loop that does the same.

    python benchmarks/end_to_end.py [--turns 20]

Both have the data in memory, the recipe's encoder, head, batch, optimizer and schedule, and views of the same kinds: a crop
of 768 samples stretched by up to a tenth, another amplitude, noise, a stretch set to zero. `bare` writes them as plain
torch on the whole batch, from one generator, and the loss as one table; `counterpoint` is what `fit` runs, with its default
callbacks, logging, live kNN and checkpoints, and draws that are functions of seed, step and sample. Each row runs in a
process of its own on one thread, and they take turns of TURN steps. Times are CPU seconds of the process (wall seconds on
CUDA), the median over turns, epochs' ends included. Writes benchmarks/results/end_to_end.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import torch
from apart import in_turns, quartiles, versions
from clock import DEVICE, Clock
from torch import Tensor
from torch.nn.functional import grid_sample, log_softmax, normalize

RESULTS = Path(__file__).parent / "results" / "end_to_end.json"
RECIPE = "ecg/quickstart"
TURN = 6  # steps, each an epoch
CROP, STRETCH, AMPLITUDE, NOISE, MASK = 768, 0.1, 0.05, 0.4, (0.01, 0.3)  # as in the recipe


def assembled(epochs: int):
    from counterpoint.fit.assembly import assemble
    from counterpoint.recipe import load

    return assemble(load(RECIPE, [f"trainer.max_epochs={epochs}"]))


def augmented(x: Tensor) -> Tensor:
    """(B, C, L) -> (B, C, CROP): an own draw for every sample."""
    count, channels, length = x.shape

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, device=x.device)

    width = CROP * uniform(1 - STRETCH, 1 + STRETCH)
    start = uniform(0, 1) * (length - width)
    place = start + torch.linspace(0, 1, CROP, device=x.device) * (width - 1)  # (B, CROP)
    grid = torch.stack([2 * place / (length - 1) - 1, torch.zeros_like(place)], -1)[:, None]
    x = grid_sample(x[:, :, None], grid, align_corners=True)[:, :, 0]
    x = x * (1 + AMPLITUDE * torch.randn(count, channels, 1, device=x.device))
    x = x + uniform(0, NOISE)[..., None] * torch.randn_like(x)
    share = uniform(*MASK)
    begin = uniform(0, 1) * (1 - share)
    at = torch.arange(CROP, device=x.device) / CROP
    return x.masked_fill(((at >= begin) & (at < begin + share))[:, None], 0)


def contrast(a: Tensor, b: Tensor, animal: Tensor, temperature: float) -> Tensor:
    """InfoNCE both ways, every recording of the animal a positive."""
    logits = normalize(a, dim=1) @ normalize(b, dim=1).T / temperature
    target = (animal[:, None] == animal[None]).float()
    target = target / target.sum(1, keepdim=True)
    return -((target * log_softmax(logits, 1)).sum(1).mean() + (target * log_softmax(logits.T, 1)).sum(1).mean()) / 2


def bare(epochs: int) -> None:
    assembly, clock = assembled(epochs), Clock(TURN)
    recipe, tower = assembly.recipe, assembly.towers["pressure"].to(DEVICE).train()
    x = torch.stack([assembly.dataset.inputs(i)["pressure"] for i in range(len(assembly.dataset))]).to(DEVICE)
    animal = torch.as_tensor(assembly.dataset.groups["animal"]).to(DEVICE)
    optimizer = torch.optim.AdamW(tower.parameters(), lr=0.003, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.003, total_steps=epochs + 1, pct_start=0.1)
    for epoch in range(epochs):
        for here in torch.randperm(len(x), device=DEVICE).split(recipe.loader.batch):
            clock.mark()
            optimizer.zero_grad()
            first, second = (tower.head(tower.encoder(augmented(x[here])).h) for _ in range(2))
            loss = contrast(first, second, animal[here], 0.1)
            loss.backward()
            optimizer.step()
            schedule.step()
            if epoch % 10 == 0:
                loss.item()


def counterpoint(epochs: int) -> None:
    from lightning.pytorch import Callback

    from counterpoint.fit.stage import loader_of, loop_of
    from counterpoint.fit.trainer import build_trainer
    from counterpoint.runs.run import Run

    assembly, clock = assembled(epochs), Clock(TURN)

    class Timed(Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
            clock.mark()

    with tempfile.TemporaryDirectory() as folder:
        plan, loop = loop_of(assembly)
        trainer = build_trainer(assembly, Run.create("end", Path(folder)), None, loop, len(plan), 0, print)
        progress = trainer.fit_loop.epoch_loop.batch_progress
        plan.position = lambda: progress.total.ready
        trainer.callbacks.append(Timed())
        trainer.fit(loop, loader_of(assembly, plan))


ROWS = {"bare": bare, "counterpoint": counterpoint}


def main(turns: int) -> None:
    batch = min(assembled(1).recipe.loader.batch, 104)
    where = torch.cuda.get_device_name() if DEVICE == "cuda" else f"{platform.machine()}, one thread"
    print(
        f"{RECIPE}, batch {batch}, on {where}\n{'':16}{'ms a step':>12}{'samples/s':>12}{'x bare':>10}{'quartiles':>16}"
    )
    found = in_turns(__file__, {name: (name, TURN * (turns + 3)) for name in ROWS}, turns)
    if failed := [f"{name}: {why}" for name, why in found.items() if isinstance(why, str)]:
        sys.exit("; ".join(failed))
    rows = []
    for name, taken in found.items():
        seconds, (low, share, high) = median(taken) / TURN, quartiles(taken, found["bare"])
        row = {"name": name, "seconds": seconds, "samples_per_second": batch / seconds, "of_bare": share}
        rows.append(row | {"of_bare_quartiles": [low, high]})
        spread = f"{low:.2f} to {high:.2f}"
        print(f"{name:16}{seconds * 1e3:12.1f}{batch / seconds:12.0f}{share:10.2f}{spread:>16}", flush=True)
    stored = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    stored[DEVICE] = {
        "date": datetime.now(UTC).date().isoformat(), "machine": where, "recipe": RECIPE, "turns": turns,
        "versions": versions(("torch", "lightning", "counterpoint")), "rows": rows,
    }  # fmt: skip
    RESULTS.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=20, help=f"of {TURN} steps of every row")
    parser.add_argument("--row", nargs=2, metavar=("NAME", "EPOCHS"), help="one row, told on stdin when to go on")
    asked = parser.parse_args()
    if asked.row:
        torch.set_num_threads(1)
        ROWS[asked.row[0]](int(asked.row[1]))
    else:
        main(asked.turns)
