"""Running means of what a run logs."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


class Meter:
    """Running means of what is logged, kept on the device: reading them is what costs, and is done rarely."""

    def __init__(self):
        self._recent: dict[str, Tensor] = {}
        self._whole: dict[str, Tensor] = {}
        self._steps = self._epoch_steps = 0
        self.samples = 0

    def add(self, values: Mapping[str, Tensor], samples: int) -> None:
        for sums in (self._recent, self._whole):
            for name, value in values.items():
                sums[name] = sums[name] + value if name in sums else value.clone()
        self._steps += 1
        self._epoch_steps += 1
        self.samples += samples

    def recent(self) -> dict[str, float]:
        """Means since the last call."""
        means = {name: float(total) / self._steps for name, total in self._recent.items()}
        self._recent, self._steps = {}, 0
        return means

    def epoch(self) -> dict[str, float]:
        """Means since the last call of this method."""
        means = {name: float(total) / self._epoch_steps for name, total in self._whole.items()}
        self._whole, self._epoch_steps = {}, 0
        return means
