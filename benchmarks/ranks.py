"""One contrast over two processes: each computing all of it, against the work divided between them.

    python benchmarks/ranks.py [--pairs 4096 8192 16384]

Both directions of InfoNCE, d = 256, forward and backward, as the loop calls it on gathered embeddings; a core a process.
Value and gradients are compared before anything is timed. Printed are wall milliseconds of the slower process, the least of
several rounds taken in turns. Writes benchmarks/results/ranks.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import torch
import torch.distributed as dist
from apart import versions
from torch.nn.functional import normalize

from counterpoint.fit.memory import keep_freed_memory
from counterpoint.kernels import divided, info_nce

RESULTS = Path(__file__).parent / "results" / "ranks.json"
WIDTH, TEMPERATURE, RANKS, ROUNDS = 256, 0.07, 2, 3


def step(q: torch.Tensor, k: torch.Tensor, ranks: int) -> list[torch.Tensor]:
    with divided(ranks):
        loss = info_nce(q, k, TEMPERATURE)
    return [loss.detach(), *torch.autograd.grad(loss, (q, k))]


def seconds(q: torch.Tensor, k: torch.Tensor, ranks: int) -> float:
    dist.barrier()
    start = time.perf_counter()
    step(q, k, ranks)
    taken = torch.tensor(time.perf_counter() - start)
    dist.all_reduce(taken, dist.ReduceOp.MAX)
    return float(taken)


def one_rank(pairs: list[int]) -> None:
    keep_freed_memory()
    dist.init_process_group("gloo")
    rows = []
    for n in pairs:
        random = torch.Generator().manual_seed(0)
        q, k = (normalize(torch.randn(n, WIDTH, generator=random)).requires_grad_() for _ in range(2))
        whole, parts = step(q, k, 1), step(q, k, RANKS)
        error = max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(whole, parts))
        if error > 1e-4:
            sys.exit(f"{n} pairs: the divided contrast is off by {error:.1e}")
        taken = {way: min(seconds(q, k, way) for _ in range(ROUNDS)) for way in (1, RANKS)}
        rows.append({"pairs": n, "whole": taken[1], "divided": taken[RANKS], "error": error})
    if dist.get_rank() == 0:
        print(json.dumps(rows))
    dist.destroy_process_group()


def main(pairs: list[int]) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS}"]
    command = [*launcher, __file__, "--row", *map(str, pairs)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode:
        sys.exit(done.stderr.strip().splitlines()[-1])
    rows = json.loads(done.stdout.splitlines()[-1])
    print(f"{RANKS} processes on {platform.machine()}, a thread each\n{'pairs':>8}{'whole ms':>10}{'divided ms':>12}{'ratio':>8}{'error':>10}")  # fmt: skip
    for row in rows:
        print(f"{row['pairs']:8,}{row['whole'] * 1e3:10.0f}{row['divided'] * 1e3:12.0f}{row['divided'] / row['whole']:8.2f}{row['error']:10.0e}")  # fmt: skip
    stored = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {RANKS} processes of one thread",
        "width": WIDTH,
        "versions": versions(("torch", "counterpoint")),
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[1536, 4096, 8192, 16384])
    parser.add_argument("--row", type=int, nargs="+", help="as one of the processes, as JSON")
    asked = parser.parse_args()
    one_rank(asked.row) if asked.row else main(asked.pairs)
