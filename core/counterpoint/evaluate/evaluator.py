"""What an evaluator is: a function of frozen embeddings that gives scores with intervals."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from counterpoint.errors import CounterpointError


@dataclass
class Embeddings:
    """A data set seen by frozen encoders.

    h, z    modality -> float32 (n, H) and (n, D): representation and contrasted embedding
    index   modality -> int64 (n,): the sample each row belongs to; a sample may have none or several rows
    groups, labels: name -> (N,), one a sample of the data set
    """

    h: dict[str, Tensor]
    index: dict[str, Tensor]
    z: dict[str, Tensor] = field(default_factory=dict)
    groups: dict[str, Tensor] = field(default_factory=dict)
    labels: dict[str, Tensor] = field(default_factory=dict)

    def column(self, name: str, modality: str) -> Tensor:
        """(n,): the label or group `name` of every row of `modality`; CounterpointError when there is none."""
        for table in (self.labels, self.groups):
            if name in table:
                return table[name][self.index[modality]]
        has = ", ".join(sorted([*self.labels, *self.groups])) or "none"
        raise CounterpointError(f"{name!r} is neither a label nor a group of the data; it has: {has}")


@dataclass(frozen=True)
class Score:
    """One figure: its name, value, 95 % bootstrap interval (NaN where there is none), and the number of queries."""

    name: str
    value: float
    low: float
    high: float
    n: int
    higher_is_better: bool = True
