"""The contrastive loss, forward and backward: the floor of its products, the plain formula, peers, and ours.

    python benchmarks/loss.py [--sizes 1024 4096 16384]

Two problems: pairs of two modalities (CLIP's loss, both directions) and two views stacked (NT-Xent). Every row runs in a
process of its own, which notes its peak memory, checks value and gradient against the plain formula on a small problem,
then times the row and the floor in turn, several times, and keeps the least of each. A reading is of as many calls as
fill 50 ms, at least one. Times are CPU seconds of the process (device seconds on CUDA). Peers that are not installed are named (`pip install 'counterpoint[bench]'`).
Writes benchmarks/results/loss.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch
from apart import apart, versions
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

RESULTS = Path(__file__).parent / "results" / "loss.json"
WIDTH, TEMPERATURE, REPEATS = 256, 0.07, 3
READING = 0.05  # seconds: one call of less says more of the clock and of the neighbours than of the loss
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIZES = {"cpu": [256, 1024, 4096, 16384], "cuda": [1024, 4096, 16384, 65536]}
DENSE = 32768  # rows above which a full matrix is not tried
Loss = Callable[[Tensor, Tensor], Tensor]


def plain_pairs() -> Loss:
    def loss(a: Tensor, b: Tensor) -> Tensor:
        logits, target = a @ b.T / TEMPERATURE, torch.arange(len(a), device=a.device)
        return (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2

    return loss


def plain_views() -> Loss:
    def loss(a: Tensor, b: Tensor) -> Tensor:
        z, n = torch.cat([a, b]), len(a)
        logits = (z @ z.T / TEMPERATURE).fill_diagonal_(-torch.inf)
        return cross_entropy(logits, torch.arange(2 * n, device=a.device).roll(n))

    return loss


def ours_pairs() -> Loss:
    from counterpoint.kernels import info_nce

    return lambda a, b: info_nce(a, b, TEMPERATURE, direction="both")


def ours_views() -> Loss:
    from counterpoint.by_hand.outputs import outputs
    from counterpoint.objectives.nt_xent import NTXent

    objective = NTXent(temperature=TEMPERATURE).to(DEVICE)
    return lambda a, b: objective(outputs(a, b))[0]


def ours_bfloat16(make: Callable[[], Loss]) -> Callable[[], Loss]:
    def made() -> Loss:
        from counterpoint.kernels import products

        loss = make()

        def within(a: Tensor, b: Tensor) -> Tensor:
            with products(torch.bfloat16):
                return loss(a, b)

        return within

    return made


def open_clip() -> Loss:
    from open_clip.loss import ClipLoss

    loss, scale = ClipLoss(), torch.tensor(1 / TEMPERATURE, device=DEVICE)
    return lambda a, b: loss(a, b, scale)


def sentence_transformers() -> Loss:
    from sentence_transformers.losses import CachedMultipleNegativesRankingLoss

    model = torch.nn.Sequential(torch.nn.Identity())
    both = ("query_to_doc", "doc_to_query")
    loss = CachedMultipleNegativesRankingLoss(
        model, scale=1 / TEMPERATURE, mini_batch_size=512, directions=both, partition_mode="per_direction"
    )

    def value(a: Tensor, b: Tensor) -> Tensor:  # it goes backward by itself, chunk by chunk, down to leaves
        leaves = [z.detach().requires_grad_() for z in (a, b)]
        loss.calculate_loss([[z] for z in leaves], with_backward=True)
        return sum((z * leaf.grad).sum() for z, leaf in zip((a, b), leaves))

    return value


def lightly() -> Loss:
    from lightly.loss import NTXentLoss

    loss = NTXentLoss(temperature=TEMPERATURE)
    return lambda a, b: loss(a, b)


def metric_learning() -> Loss:
    from pytorch_metric_learning.losses import NTXentLoss

    loss = NTXentLoss(temperature=TEMPERATURE)
    return lambda a, b: loss(torch.cat([a, b]), torch.arange(len(a), device=a.device).repeat(2))


ROWS: dict[str, dict[str, tuple[Callable[[], Loss], int, str | None]]] = {  # name -> (loss, most pairs, distribution)
    "pairs": {
        "plain": (plain_pairs, DENSE, None),
        "open_clip": (open_clip, DENSE, "open_clip_torch"),
        "sentence-transformers": (sentence_transformers, DENSE, "sentence-transformers"),
        "counterpoint": (ours_pairs, 10**7, None),
    },
    "views": {
        "plain": (plain_views, DENSE // 2, None),
        "lightly": (lightly, DENSE // 2, "lightly"),
        "pytorch-metric-learning": (metric_learning, 256, "pytorch-metric-learning"),  # its memory is cubic
        "counterpoint": (ours_views, 10**7, None),
    },
}
if DEVICE == "cuda":
    ROWS["pairs"]["counterpoint, bf16"] = (ours_bfloat16(ours_pairs), 10**7, None)
    ROWS["views"]["counterpoint, bf16"] = (ours_bfloat16(ours_views), 10**7, None)
PEERS = sorted({peer for rows in ROWS.values() for _, _, peer in rows.values() if peer is not None})
PLAIN = {"pairs": plain_pairs, "views": plain_views}


def embeddings(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(n, WIDTH, generator=generator), dim=1).to(DEVICE).requires_grad_()


def step(loss: Loss, a: Tensor, b: Tensor) -> None:
    a.grad = b.grad = None
    loss(a, b).backward()


def floor(problem: str) -> Callable[[Tensor, Tensor], None]:
    """The three products that the plain form cannot do without, and nothing else."""

    def products(a: Tensor, b: Tensor) -> None:
        with torch.no_grad():
            a, b = (torch.cat([a, b]),) * 2 if problem == "views" else (a, b)
            logits = a @ b.T
            logits @ b
            logits.T @ a

    return products


def seconds(part: Callable[[], None], calls: int = 1) -> float:
    """Of one call, as a mean over `calls` in a row."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    clock = time.perf_counter if DEVICE == "cuda" else time.process_time
    start = clock()
    for _ in range(calls):
        part()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return (clock() - start) / calls


def alternated(parts: list[Callable[[], None]]) -> list[float]:
    """The least seconds of each, after a first call that only tells how many calls a reading takes."""
    calls = [max(1, round(READING / max(seconds(part), 1e-6))) for part in parts]
    rounds = REPEATS if min(calls) == 1 else 4 * REPEATS  # short readings are cheap to take again
    readings = [[seconds(part, n) for part, n in zip(parts, calls)] for _ in range(rounds)]
    return [min(column) for column in zip(*readings)]


def peak(part: Callable[[], None]) -> int:
    """Bytes that `part` took beyond what there was before."""
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        part()
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here
    before = _resident("VmRSS")
    part()
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def error(problem: str, loss: Loss, n: int) -> float:
    """Relative error of the gradient against the plain formula in float64, on n pairs; AssertionError when it is wrong."""
    a, b = embeddings(n, 1), embeddings(n, 2)
    exact = [z.detach().double().requires_grad_() for z in (a, b)]
    unit = lambda of: lambda a, b: of(normalize(a, dim=1), normalize(b, dim=1))  # noqa: E731 (some peers do it themselves)
    step(unit(PLAIN[problem]()), *exact)
    step(unit(loss), a, b)
    off = [((z.grad - e.grad).norm() / e.grad.norm()).item() for z, e in zip((a, b), exact)]
    assert max(off) < 0.02, f"the gradient is off by {max(off):.2%}"
    return max(off)


def measure(problem: str, name: str, n: int) -> dict:
    make, most, _ = ROWS[problem][name]
    loss = make()
    a, b = embeddings(n, 1), embeddings(n, 2)
    step(loss, *(embeddings(2, seed) for seed in (1, 2)))  # what the first call of all takes is not the loss's
    found = {"peak_bytes": peak(lambda: step(loss, a, b)), "error": error(problem, loss, min(1100, most))}
    least = floor(problem) if n <= DENSE else lambda a, b: None
    least(a, b)
    found["seconds"], found["floor_seconds"] = alternated([lambda: step(loss, a, b), lambda: least(a, b)])
    return found


def main(sizes: list[int]) -> None:
    where = torch.cuda.get_device_name() if DEVICE == "cuda" else f"{platform.machine()}, one thread"
    print(
        f"width {WIDTH}, on {where}\n{'':8}{'pairs':>7}  {'':26}{'ms':>10}{'x floor':>9}{'peak MiB':>10}{'error':>10}"
    )
    rows = []
    for problem, losses in ROWS.items():
        for n in sizes:
            for name, (_, most, _) in losses.items():
                if n > most:
                    continue
                found = apart(__file__, problem, name, n)
                row = {"problem": problem, "pairs": n, "name": name}
                rows.append(row | (found if isinstance(found, dict) else {"failed": found}))
                print(f"{problem:8}{n:>7}  {name:26}" + _shown(found), flush=True)
    stored = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    stored[DEVICE] = {
        "date": datetime.now(UTC).date().isoformat(), "machine": where, "versions": versions(["torch", *PEERS]),
        "width": WIDTH, "temperature": TEMPERATURE, "rows": rows,
    }  # fmt: skip
    RESULTS.write_text(json.dumps(stored, indent=1) + "\n")


def _shown(found: dict | str) -> str:
    if isinstance(found, str):
        return f"  {found}"
    ratio = f"{found['seconds'] / found['floor_seconds']:9.2f}" if found["floor_seconds"] > 1e-6 else f"{'':9}"
    return f"{found['seconds'] * 1e3:10.1f}{ratio}{found['peak_bytes'] / 2**20:10.1f}{found['error']:10.1e}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES[DEVICE], help="numbers of pairs")
    parser.add_argument("--row", nargs=3, metavar=("PROBLEM", "NAME", "PAIRS"), help="one row, as JSON")
    asked = parser.parse_args()
    if asked.row:
        print(json.dumps(measure(asked.row[0], asked.row[1], int(asked.row[2]))))
    else:
        main(asked.sizes)
