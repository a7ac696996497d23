"""Samples a second of the packs' view generators on one core, beside what others offer for the same.

    python benchmarks/views.py [--turns 15]

Every row runs in a process of its own with one thread, and those of a problem take turns of TURN seconds of calls on one
batch: CPU seconds of the process, the median over turns, and the quartiles of its rate over a peer's, turn by turn. Every
sample has random numbers of its own in every row; peers that draw once a call are called once a sample (once a clip for
video). Freed memory is kept for the next call, as `counterpoint fit` keeps it, for peers too. Peers that are not
installed are named. Writes benchmarks/results/views.json.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np
import torch
from apart import in_turns, quartiles, versions
from clock import Clock
from torch import Tensor

from counterpoint.batch import View
from counterpoint.fit.memory import keep_freed_memory
from counterpoint.packs.registry import installed
from counterpoint.views.pipeline import Pipeline

RESULTS = Path(__file__).parent / "results" / "views.json"
TURN = 0.2  # seconds
Views = Callable[[Tensor], object]  # of a batch as our pack takes it

ECG = [("ecg.crop", {"samples": 800}), ("ecg.scale", {}), ("ecg.time_mask", {"fraction": (0.1, 0.3)})]
CT = [("medical.affine", {"plane": "axial", "scale": (0.9, 1.1)}), ("medical.intensity", {})]
POINTS = [("points3d.rotate", {}), ("points3d.scale", {})]
OURS: dict[str, dict[str, list[tuple[str, dict]]]] = {
    "ecg": {
        "counterpoint": [*ECG, ("ecg.noise", {"sigma": 0.05})],
        "counterpoint, noise bank": [*ECG, ("ecg.noise", {"sigma": 0.05, "bank": 1 << 20})],
    },
    "ct, in-plane": {"counterpoint": [("medical.rotate", {"plane": "axial"}), ("medical.intensity", {})]},
    "ct, in-plane, noise": {
        "counterpoint": [*CT, ("medical.noise", {"sigma": 0.1})],
        "counterpoint, noise bank": [*CT, ("medical.noise", {"sigma": 0.1, "bank": 1 << 20})],
    },
    "ct, full 3D": {"counterpoint": [("medical.rotate", {}), ("medical.intensity", {})]},
    "video": {"counterpoint": [("video.crop_resize", {}), ("video.flip", {}), ("video.colour_jitter", {"p": 1.0})]},
    "points": {
        "counterpoint": [*POINTS, ("points3d.jitter", {})],
        "counterpoint, noise bank": [*POINTS, ("points3d.jitter", {"bank": 1 << 20})],
    },
    "spectrogram": {"counterpoint": [("audio_text.time_mask", {}), ("audio_text.frequency_mask", {})]},
}
SHAPES = {
    "ecg": (64, 12, 1000), "ct, in-plane": (4, 1, 64, 64, 64), "ct, in-plane, noise": (4, 1, 64, 64, 64),
    "ct, full 3D": (4, 1, 64, 64, 64),
    "video": (8, 3, 16, 112, 112), "points": (128, 3, 1024), "spectrogram": (64, 64, 256),
}  # fmt: skip
GOALS = {  # problem -> how many times the samples a second of which peer
    "ecg": (4.0, "tsai"), "ct, in-plane": (8.0, "monai"), "ct, in-plane, noise": (8.0, "monai"),
    "ct, full 3D": (1.2, "monai"), "video": (1.2, "torchvision"), "points": (2.5, "numpy"),
    "spectrogram": (5.0, "torchvision"),
}  # fmt: skip


def each(one: Callable[[Tensor], object]) -> Views:
    return lambda batch: [one(sample) for sample in batch]


def tsai_ecg() -> Views:
    from tsai.data.core import TSTensor
    from tsai.data.transforms import TSCutOut, TSMagAddNoise, TSMagScale, TSRandomCropPad

    steps = [TSRandomCropPad(magnitude=0.2), TSMagScale(magnitude=0.1), TSMagAddNoise(magnitude=0.05), TSCutOut(0.2)]

    def one(sample: Tensor) -> Tensor:
        x = TSTensor(sample[None])
        for step in steps:
            x = step(x, split_idx=0)
        return x

    return each(one)


def monai_ct(plane: bool, noise: bool = False) -> Callable[[], Views]:
    def make() -> Views:
        from monai.transforms import Compose, RandAffined, RandGaussianNoised, RandScaleIntensityd, RandShiftIntensityd

        angle, stretch = math.radians(15), 0.1 if noise else None
        turn = (angle, 0.0, 0.0) if plane else (angle,) * 3
        steps = Compose([
            RandAffined(
                "scan", prob=1.0, rotate_range=turn, scale_range=stretch and (stretch,) * 3, padding_mode="border"
            ),
            RandScaleIntensityd("scan", factors=0.25, prob=1.0),
            RandShiftIntensityd("scan", offsets=0.25, prob=1.0),
            *([RandGaussianNoised("scan", prob=1.0, std=0.1, sample_std=False)] if noise else []),
        ])  # fmt: skip
        return each(lambda sample: steps({"scan": sample}))

    return make


def torchvision_video() -> Views:
    from torchvision.transforms import v2

    steps = v2.Compose([
        v2.RandomResizedCrop(112, scale=(0.3, 1.0), ratio=(0.5, 2.0), antialias=True),
        v2.RandomHorizontalFlip(), v2.ColorJitter(0.8, 0.8, 0.8, 0.2),
    ])  # fmt: skip
    return each(lambda clip: steps(clip.transpose(0, 1)))  # (frames, channels, height, width)


def torchvision_spectrogram() -> Views:
    from torchvision.transforms import v2

    _, bands, frames = SHAPES["spectrogram"]
    wide = lambda size, other: {"p": 1.0, "scale": (0.01, 0.15), "ratio": (size / other * 4, size / other * 8)}  # noqa: E731
    erase = [v2.RandomErasing(**wide(bands, frames)) for _ in range(2)]
    erase += [v2.RandomErasing(**{**wide(bands, frames), "ratio": (0.02, 0.06)}) for _ in range(2)]
    steps = v2.Compose(erase)
    return each(lambda sample: steps(sample[None]))


def numpy_points() -> Views:
    generator = np.random.default_rng(0)

    def one(sample: Tensor) -> Tensor:
        points, angle = sample.numpy().T, generator.uniform(-math.pi, math.pi)  # (points, 3)
        cos, sin = math.cos(angle), math.sin(angle)
        turned = points @ np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]], dtype=np.float32)
        jitter = np.clip(0.01 * generator.standard_normal(points.shape), -0.05, 0.05)
        return torch.from_numpy((turned * generator.uniform(0.8, 1.25) + jitter).astype(np.float32))

    return lambda batch: torch.stack([one(sample) for sample in batch])


def numpy_spectrogram() -> Views:
    generator = np.random.default_rng(0)

    def one(sample: Tensor) -> Tensor:
        x = sample.numpy().copy()
        level = x.mean()
        for axis, widest in ((1, 20), (1, 20), (0, 8), (0, 8)):
            width = generator.integers(0, widest + 1)
            start = generator.integers(0, x.shape[axis] - width + 1)
            x[(slice(None),) * axis + (slice(start, start + width),)] = level
        return torch.from_numpy(x)

    return lambda batch: torch.stack([one(sample) for sample in batch])


PEERS: dict[str, dict[str, Callable[[], Views]]] = {
    "ecg": {"tsai": tsai_ecg},
    "ct, in-plane": {"monai": monai_ct(True)},
    "ct, in-plane, noise": {"monai": monai_ct(True, noise=True)},
    "ct, full 3D": {"monai": monai_ct(False)},
    "video": {"torchvision": torchvision_video},
    "points": {"numpy": numpy_points},
    "spectrogram": {"torchvision": torchvision_spectrogram, "numpy": numpy_spectrogram},
}


def ours(problem: str, name: str) -> Views:
    registry = installed()
    steps = [registry.find("view", step).load()(**parameters) for step, parameters in OURS[problem][name]]
    pipeline, count = Pipeline("x", steps), iter(range(1 << 30))
    index = torch.arange(SHAPES[problem][0])
    return lambda batch: pipeline(View("x", batch, index), index, 0, next(count))


def take_turns(problem: str, name: str, turns: int) -> None:
    keep_freed_memory()
    views = PEERS[problem][name]() if name in PEERS[problem] else ours(problem, name)
    batch = torch.rand(SHAPES[problem], generator=torch.Generator().manual_seed(0))
    views(batch)
    begun = time.process_time()
    views(batch)
    calls = max(1, round(TURN / (time.process_time() - begun)))
    clock = Clock(parts=calls * len(batch), device="cpu")
    for _ in range(turns):
        clock.mark()
        for _ in range(calls):
            views(batch)


def main(turns: int) -> None:
    where = f"{platform.machine()}, one thread"
    print(f"views on {where}\n{'':20}{'':26}{'samples/s':>10}{'x peer':>9}{'goal':>7}{'quartiles':>16}")
    rows = []
    for problem, (goal, peer) in GOALS.items():
        names = [*PEERS[problem], *OURS[problem]]
        found = in_turns(__file__, {name: (problem, name, turns + 3) for name in names}, turns)
        for name, taken in found.items():
            row = {"problem": problem, "shape": SHAPES[problem], "name": name}
            row |= {"failed": taken} if isinstance(taken, str) else {"samples_per_second": 1 / median(taken)}
            if name in OURS[problem] and not isinstance(taken, str) and not isinstance(found[peer], str):
                low, share, high = quartiles(taken, found[peer])
                row |= {"peer": peer, "of_peer": share, "of_peer_quartiles": [low, high], "goal": goal}
            rows.append(row)
            print(f"{problem:20}{name:26}" + _shown(row), flush=True)
    record = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": where,
        "versions": versions(["torch", "numpy", "tsai", "monai", "torchvision"]),
        "rows": rows,
    }
    RESULTS.write_text(json.dumps({"cpu": record}, indent=1) + "\n")


def _shown(row: dict) -> str:
    if "failed" in row:
        return f"  {row['failed']}"
    ratio = ""
    if "goal" in row:
        low, high = row["of_peer_quartiles"]
        ratio = f"{row['of_peer']:9.2f}{row['goal']:7.1f}{f'{low:.2f} to {high:.2f}':>16}"
    return f"{row['samples_per_second']:10.0f}{ratio}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=15, help="of every row")
    parser.add_argument(
        "--row", nargs=3, metavar=("PROBLEM", "NAME", "TURNS"), help="one row, told on stdin when to go on"
    )
    asked = parser.parse_args()
    if asked.row:
        take_turns(asked.row[0], asked.row[1], int(asked.row[2]))
    else:
        main(asked.turns)
