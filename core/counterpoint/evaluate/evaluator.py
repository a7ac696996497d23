"""What an evaluator is: a function of frozen embeddings that gives scores with intervals.

`evaluator(fit, test)` takes the Embeddings of the training set (None when nobody wants them) and of the test set, and
returns a list of Scores. It may say more: `needs()`, the labels and groups that it looks at; `on`, "h" (as when it does
not say) or "z"; `crosses`, True when it compares modalities; `fits`, False when it looks at the test set alone;
`compares`, True when it takes the trained objective's own similarity.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from counterpoint.errors import CounterpointError
from counterpoint.objectives.mechanisms.similarity import Similarity


@dataclass
class Embeddings:
    """A data set seen by frozen encoders.

    h, z    modality -> float32 (n, H) and (n, D): representation and contrasted embedding
    index   modality -> int64 (n,): the sample each row belongs to; a sample may have none or several rows
    groups, labels: name -> (N,), one a sample of the data set
    tokens, masks: modality -> (n, L, C), and bool (n, L), true = real; kept when a similarity looks at them
    similarity     how rows of z are compared where that is not by cosine
    complete       int64 (m,): the samples that have all modalities, when the similarity of the trained encoder compares
                   all at once; retrieval is then among them, for every representation alike
    """

    h: dict[str, Tensor]
    index: dict[str, Tensor]
    z: dict[str, Tensor] = field(default_factory=dict)
    groups: dict[str, Tensor] = field(default_factory=dict)
    labels: dict[str, Tensor] = field(default_factory=dict)
    tokens: dict[str, Tensor] = field(default_factory=dict)
    masks: dict[str, Tensor] = field(default_factory=dict)
    similarity: Similarity | None = None
    complete: Tensor | None = None

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
