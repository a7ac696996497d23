"""A size in time, as a recipe may say it: in seconds, in samples, or as a fraction of the series."""

from __future__ import annotations

import torch
from torch import Tensor

from counterpoint.errors import ComponentError
from counterpoint.randomness import Draw


class Extent:
    """A stretch of time between `low` and `high`: in seconds, in samples, or as a fraction of the series.

    Raises ComponentError when not exactly one of the three is given, when seconds are and the rate is unknown, or when
    the values are not positive, in order, and for a fraction at most 1.
    """

    def __init__(self, who: str, rate: float | None, **given: float | tuple[float, float] | None):
        stated = {unit: value for unit, value in given.items() if value is not None}
        if len(stated) != 1:
            have = ", ".join(stated) or "none"
            raise ComponentError(f"view {who!r}: give one of {', '.join(given)}; got {have}")
        (self.unit, value), self.who = *stated.items(), who
        self.low, self.high = value if isinstance(value, tuple | list) else (value, value)
        self._check(rate)
        if self.unit == "seconds":
            self.low, self.high = self.low * rate, self.high * rate
        self.relative = self.unit == "fraction"

    def _check(self, rate: float | None) -> None:
        most = 1.0 if self.unit == "fraction" else float("inf")
        if not 0 < self.low <= self.high <= most:
            bound = " and at most 1" if self.unit == "fraction" else ""
            raise ComponentError(
                f"view {self.who!r}: {self.unit} must be above 0{bound}, low before high; got {self.low}, {self.high}"
            )
        if self.unit == "seconds" and not rate:
            raise ComponentError(
                f"view {self.who!r}: seconds need the sampling rate, which the data does not know; "
                "add its `rate: <Hz>`, or give samples or a fraction instead of seconds"
            )

    def samples(self, length: int) -> int:
        """The upper end in samples of a series of `length`."""
        return max(1, round(self.high * length if self.relative else self.high))

    def draw(self, length: Tensor, draw: Draw) -> Tensor:
        """int64 (n,): samples drawn uniformly for every row of `length` (n,), at least 1, at most the whole row."""
        stretch = draw.uniform(low=self.low, high=self.high) * (length if self.relative else 1)
        return torch.minimum(stretch.round().long().clamp(min=1), length)
