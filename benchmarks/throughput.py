"""Samples a second of every pack's quickstart: reading, views, and the whole step, each by itself.

    python benchmarks/throughput.py [ecg medical ...]

Reading is one process without workers; views and step run on the device that a run would use. Writes
benchmarks/results/throughput.json: the views' and the reader's ratio to the step say what a run waits for.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path

import torch

from counterpoint.data.collate import collate
from counterpoint.data.plan import Seeded
from counterpoint.fit.assembly import assemble
from counterpoint.fit.stage import loop_of
from counterpoint.recipe import load

RESULTS = Path(__file__).parent / "results" / "throughput.json"
SECONDS = 5.0  # how long each part is repeated
PACKS = ("ecg", "medical", "audio_text", "video", "code_search", "points3d")


def rate(part, samples: int) -> float:
    """Samples a second of `part()`, which handles `samples` of them; the first call is not counted."""
    part()
    calls, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        part()
        calls += 1
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return samples * calls / (time.perf_counter() - start)


def measure(pack: str) -> dict[str, float]:
    """Samples a second of reading, of the views, and of forward, backward and optimizer step, views included."""
    assembly = assemble(load(f"{pack}/quickstart"))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    recipe, dataset = assembly.recipe, Seeded(assembly.dataset, 0)
    size = min(recipe.loader.batch, len(assembly.dataset))
    every = cycle(range(len(assembly.dataset)))
    read = rate(lambda: dataset[0, next(every)], 1)
    batch = collate([dataset[0, next(every)] for _ in range(size)]).to(device)
    _, loop = loop_of(assembly)
    loop.to(device).train()
    optimizer = recipe.optimizer.build()([p for p in loop.parameters() if p.requires_grad])
    step = cycle(range(1 << 30))

    def views() -> None:
        now = next(step)
        for modality, view in batch.inputs.items():
            loop.pipelines[modality](view, batch.index[view.row], 0, now)

    def train() -> None:
        _step(loop, batch, optimizer, str(recipe.trainer.precision), next(step))

    return {"reading": read, "views": rate(views, size), "step": rate(train, size)}


def _step(loop, batch, optimizer, precision: str, step: int) -> None:
    optimizer.zero_grad()
    with torch.autocast(batch.index.device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
        outputs = loop.forward_pass.outputs(batch, step, 0)
    loop.contrast(outputs)[0].backward()
    optimizer.step()


def main(*packs: str) -> None:
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()}, {torch.get_num_threads()} threads"  # fmt: skip
    print(f"{'samples a second':16}{'reading':>10}{'views':>10}{'step':>10}  on {where}")
    for pack in packs or PACKS:
        found = measure(pack)
        print(f"{pack:16}" + "".join(f"{value:10.1f}" for value in found.values()))
        date = datetime.now(UTC).date().isoformat()
        results[pack] = {name: round(value, 1) for name, value in found.items()} | {"machine": where, "torch": torch.__version__, "date": date}  # fmt: skip
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
