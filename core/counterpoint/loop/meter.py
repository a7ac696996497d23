"""Running means of what a run logs."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


class Meter:
    """Running means of what is logged, kept on the device: reading them is what costs, and is done rarely.

    A mean is over the steps in which its name was logged.
    """

    def __init__(self):
        self._recent: dict[str, tuple[Tensor, int]] = {}
        self._whole: dict[str, tuple[Tensor, int]] = {}
        self.samples = 0

    def add(self, values: Mapping[str, Tensor], samples: int) -> None:
        for sums in (self._recent, self._whole):
            for name, value in values.items():
                total, steps = sums.get(name, (None, 0))
                sums[name] = (value.clone() if total is None else total.to(value) + value, steps + 1)
        self.samples += samples

    def recent(self) -> dict[str, float]:
        """Means since the last call."""
        sums, self._recent = self._recent, {}
        return {name: float(total) / steps for name, (total, steps) in sums.items()}

    def epoch(self) -> dict[str, float]:
        """Means since the last call of this method."""
        sums, self._whole = self._whole, {}
        return {name: float(total) / steps for name, (total, steps) in sums.items()}

    def state(self) -> dict[str, dict[str, tuple[Tensor, int]]]:
        """What has been added since the last calls, for a checkpoint: else means after a resume would be of fewer steps."""
        return {"recent": dict(self._recent), "whole": dict(self._whole)}

    def load(self, state: Mapping[str, Mapping[str, tuple[Tensor, int]]] | None) -> None:
        state = state or {}
        self._recent, self._whole = dict(state.get("recent", {})), dict(state.get("whole", {}))
