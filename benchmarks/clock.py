"""The seconds of a row's turns: of CPU of the process, or, on CUDA, of the wall with the device waited for."""

from __future__ import annotations

import sys
import time

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Clock:
    """Says how long each turn of a row took, and waits until it is that row's turn again: see `apart.in_turns`.

    marks  calls of `mark` in a turn; the first begins the first turn
    parts  by which the seconds of a turn are divided
    device cpu: seconds of CPU; else of the wall
    """

    def __init__(self, marks: int = 1, parts: int = 1, device: str = DEVICE):
        self.marks, self.parts, self.device, self.count = marks, parts, device, 0
        self.begun: float | None = None

    def mark(self) -> None:
        self.count += 1
        if (self.count - 1) % self.marks:
            return
        if self.begun is not None:
            print(f"\nturn {(self._now() - self.begun) / self.parts}", flush=True)
        sys.stdin.readline()
        self.begun = self._now()

    def _now(self) -> float:
        if self.device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()
