"""Bare tensors as Outputs, for a loop that somebody wrote: what is not said is asked for, never guessed.

Dimensions: B samples, n rows of a view, D width of `z`, K rows of a queue.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch import Tensor

from counterpoint.batch import Batch, Encoded, Outputs
from counterpoint.by_hand.checks import mapping_of
from counterpoint.by_hand.columns import Rows, columns_of, index_of, queue_of
from counterpoint.by_hand.views import Views, listed, placed, samples_of, side_of, with_rows
from counterpoint.errors import ComponentError


class NotSaid:
    """Stands for a step, epoch or number of steps that a call does not say: whatever is done with it raises."""

    COUNTS = {"step": "batches from 0", "epoch": "from 0", "total_steps": "the batches of the whole run"}

    def __init__(self, name: str, who: str = "an objective"):
        self.name, self.who = name, who

    def __repr__(self) -> str:
        return f"<{self.name} is not said>"

    def _ask(self, *_) -> NoReturn:
        raise ComponentError(
            f"{self.who}: its formula depends on the {self.name.replace('_', ' ')}, which these outputs do not say; "
            f"counterpoint.outputs(..., {self.name}={self.name}), counting {self.COUNTS[self.name]}"
        )

    # A sequence, too: torch asks what it does not know for its length.
    __bool__ = __int__ = __float__ = __index__ = __hash__ = __format__ = __len__ = __iter__ = __getitem__ = _ask
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _ask
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __neg__ = __abs__ = __pow__ = __rpow__ = _ask
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __divmod__ = _ask


@dataclass
class ByHand(Outputs):
    """Outputs that `outputs` made: an objective looks at what they hold, and says what is lacking.

    said   what was given beside the views: `index`, and the names of queues whose rows say whose they are
    noted  what an objective did with them: `zero` where it had nothing to compare, and the roles it looked at
    """

    said: frozenset[str] = frozenset()
    noted: set[str] = field(default_factory=set)

    def views(self, modality: str | None = None, role: str | None = None, of: str = "student") -> list[Encoded]:
        if role is not None:
            self.noted.add(role)
        return super().views(modality, role, of)

    def zero(self) -> Tensor:
        self.noted.add("zero")
        return super().zero()


def outputs(
    *views: Views,
    momentum: Sequence[Views] | Mapping[str, Any] = (),
    teacher: Sequence[Views] | Mapping[str, Any] = (),
    queues: Mapping[str, Rows] | None = None,
    index: Tensor | Sequence[int] | None = None,
    groups: Mapping[str, Any] | None = None,
    labels: Mapping[str, Any] | None = None,
    step: int | None = None,
    epoch: int | None = None,
    total_steps: int | None = None,
    draws: Mapping[str, Any] | None = None,
    generator: torch.Generator | None = None,
) -> Outputs:
    """Bare tensors as Outputs, to call an objective from a notebook or a loop of one's own.

    outputs(za, zb): two views of the same B samples, (B, D) each. outputs({"image": zi, "text": zt}): one view a
    modality; a list gives several. Where a view has more than z (tokens, heads, a role, rows of its own), `encoded`
    stands in the place of the tensor.

    momentum  views as momentum encoders see them, in the same form: momentum=[ka, kb]; teacher: likewise. They are
              those of the student's views, in order; encoded(k, view=1) says of which one
    queues    name -> rows of past batches, (K, D), (0, D) at first; where it matters whose they are, Queued(z, index) or
              {"z": ..., "index": ..., "groups": ...}. They are normalised as z is
    index     int64 (B,): position in the data set; groups: name -> int64 (B,); labels: name -> (B,)
    step, epoch, total_steps  batches and epochs that are over, batches of the whole run; an objective whose formula depends
              on one of them asks for it
    draws     random numbers by name, for an objective that draws some; generator: draws them in the place of torch's own

    Raises ComponentError for another shape, type or form, with what was expected.
    """
    student = placed(listed("outputs()", views))
    row, size = samples_of(student, index)
    student = [with_rows(who, e, row, size) for who, e in student]
    sides = {"momentum": momentum, "teacher": teacher}
    others = {side: side_of(side, given, student, row, size) for side, given in sides.items()}
    held = {name: queue_of(name, rows) for name, rows in mapping_of("queues", queues, "rows").items()}
    batch = Batch(
        {},
        row if index is None else index_of(index, size, row.device),
        columns_of("groups", groups, size, row.device),
        columns_of("labels", labels, size, row.device),
    )
    when = {name: _count(name, n) for name, n in (("step", step), ("epoch", epoch), ("total_steps", total_steps))}
    return ByHand(
        student,
        batch,
        **others,
        queues={name: queue for name, (queue, _) in held.items()},
        **when,
        draws=mapping_of("draws", draws, "tensor"),
        generator=generator,
        said=frozenset([*(["index"] if index is not None else []), *(name for name, (_, ids) in held.items() if ids)]),
    )


def _count(name: str, given: Any) -> int | NotSaid:
    if given is None:
        return NotSaid(name)
    try:
        number = operator.index(given)
    except TypeError:
        number = -1
    if isinstance(given, bool) or number < (name == "total_steps"):
        raise ComponentError(f"{name}: expected a whole number, counting {NotSaid.COUNTS[name]}; got {given!r}")
    return number
