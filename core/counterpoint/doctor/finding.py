"""What a check has found, in one sentence, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """where: data, views.scan, ...; what: one sentence; remedy: a setting, or what to look at.

    serious: the scores or the weights are not what they seem
    """

    where: str
    what: str
    remedy: str
    serious: bool = True
    samples: tuple[int, ...] = ()  # numbers of training samples that had better go

    def __str__(self) -> str:
        note = "" if self.serious else "note: "
        return f"{note}{self.where}: {self.what}\n    {self.remedy}"


def listed(numbers: Sequence[int], shown: int = 6) -> str:
    """`3, 8, 12 and 5 more`."""
    more = f" and {len(numbers) - shown} more" if len(numbers) > shown else ""
    return ", ".join(str(int(n)) for n in numbers[:shown]) + more


def percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"
