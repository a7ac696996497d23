"""The seconds between marks: of CPU of the process, or, on CUDA, of the wall with the device waited for."""

from __future__ import annotations

import time

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Clock:
    """Marks, and what passed between them."""

    def __init__(self):
        self.marks: list[float] = []

    def mark(self) -> None:
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        self.marks.append(time.process_time() if DEVICE == "cpu" else time.perf_counter())

    def least(self) -> float:
        return min(b - a for a, b in zip(self.marks, self.marks[1:]))

    def mean(self) -> float:
        """Without what came before the second mark, which is warming up."""
        return (self.marks[-1] - self.marks[1]) / (len(self.marks) - 2)
