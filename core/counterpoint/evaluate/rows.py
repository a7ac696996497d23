"""The rows that an evaluator reads: of one modality, with a known target, and which of them are not independent.

Dimensions: n rows (queries).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from torch import Tensor

from counterpoint.batch import unknown_to_unique
from counterpoint.errors import CounterpointError, suggest
from counterpoint.evaluate.evaluator import Embeddings


@dataclass(frozen=True)
class Rows:
    """The rows of one modality that an evaluator reads.

    x (n, D); index int64 (n,): the sample of each row; target (n,): class, identity or value, known in every row;
    cluster int64 (n,): rows that are not independent of each other share a number
    place int64 (n,): where each row stands among all of its modality
    """

    x: Tensor
    index: Tensor
    target: Tensor
    cluster: Tensor
    place: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, which: Tensor) -> Rows:
        columns = (getattr(self, f.name) for f in fields(self))
        return Rows(*(None if column is None else column[which] for column in columns))


def modalities(who: str, embeddings: Embeddings, on: Literal["h", "z"], modality: str | None = None) -> list[str]:
    """The modality asked for, or all there are; CounterpointError when it is not there."""
    there = list(getattr(embeddings, on))
    if modality is None and there:
        return there
    if modality in there:
        return [modality]
    raise CounterpointError(f"{who}: there is no {on!r} of modality {modality!r}{suggest(str(modality), there)}")


def prefix(modality: str, among: Sequence[str]) -> str:
    """What a score's name begins with: the modality where several are scored, else nothing."""
    return f"{modality}/" if len(among) > 1 else ""


def rows(
    who: str, embeddings: Embeddings, on: Literal["h", "z"], modality: str, target: str, cluster: str | None = None
) -> Rows:
    """The rows of `modality` whose `target` (a label, a group, or "index") is known.

    The rows of one sample are one cluster; `cluster` names a group (patient) whose rows are one cluster, too. A row of
    an unknown group shares it with its own sample alone. CounterpointError when no row is left or one is not finite.
    """
    x, index = getattr(embeddings, on)[modality], embeddings.index[modality]
    wanted = index if target == "index" else embeddings.column(target, modality)
    units = index if cluster is None else identities(embeddings, cluster, modality)
    known = ~wanted.isnan() if wanted.is_floating_point() else wanted >= 0
    if not known.any():
        raise CounterpointError(
            f"{who}: expected rows of modality {modality!r} with a known {target!r}; there are none among {len(x)} rows"
        )
    check_finite(who, on, modality, x[known])
    return Rows(x[known], index[known], wanted[known], units[known], known.nonzero()[:, 0])


def identities(embeddings: Embeddings, group: str, modality: str) -> Tensor:
    """int64 (n,): the group of every row; an unknown one is replaced by a number that only its own sample has."""
    index, ids = embeddings.index[modality], embeddings.column(group, modality)
    if ids.is_floating_point():
        raise CounterpointError(f"{group!r} is a continuous value; expected a group, such as a patient")
    return unknown_to_unique(ids.long(), index)


def check_finite(who: str, on: str, modality: str, x: Tensor) -> None:
    """CounterpointError when there is no row, or one holds NaN or infinity."""
    if len(x) == 0:
        raise CounterpointError(f"{who}: expected embeddings {on!r} of modality {modality!r}; there is no row")
    broken = int((~x.isfinite().all(dim=-1)).sum())
    if broken:
        raise CounterpointError(f"{who}: {broken} of {len(x)} rows of {on!r} of modality {modality!r} are not finite")
