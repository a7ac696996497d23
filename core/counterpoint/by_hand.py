"""Bare tensors as Outputs, for a loop that somebody wrote: what is not said is asked for, never guessed.

Dimensions: B samples, n rows of a view, D width of `z`, H of `h`, L tokens of C numbers, K rows of a queue.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch import Tensor

from counterpoint.batch import APART, Batch, Encoded, Outputs, Queued, replace
from counterpoint.errors import ComponentError, suggest

ONE = "input"  # the modality of a view that names none
ROLES = frozenset({"raw", "global", "local", "query"}) | APART

Bare = Tensor | Encoded
Views = Bare | Mapping[str, Bare | Sequence[Bare]]
Rows = Tensor | Queued | Mapping[str, Any]


class NotSaid:
    """Stands for a step, epoch or number of steps that a call does not say: whatever is done with it raises."""

    SAYS = {"step": "step=step", "epoch": "epoch=epoch", "total_steps": "total_steps=total_steps"}
    COUNTS = {"step": "batches from 0", "epoch": "from 0", "total_steps": "the batches of the whole run"}

    def __init__(self, name: str, who: str = "an objective"):
        self.name, self.who = name, who

    def __repr__(self) -> str:
        return f"<{self.name} is not said>"

    def _ask(self, *_) -> NoReturn:
        raise ComponentError(
            f"{self.who}: its formula depends on the {self.name.replace('_', ' ')}, which these outputs do not say; "
            f"counterpoint.outputs(..., {self.SAYS[self.name]}), counting {self.COUNTS[self.name]}"
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
    student = _placed(_listed("outputs()", views))
    row, size = _samples(student, index)
    student = [_with_rows(who, e, row, size) for who, e in student]
    sides = {"momentum": momentum, "teacher": teacher}
    others = {side: _side(side, given, student, row, size) for side, given in sides.items()}
    held = {name: _queue(name, rows) for name, rows in _mapping("queues", queues, "rows").items()}
    batch = Batch(
        {},
        row if index is None else _index(index, size, row.device),
        _columns("groups", groups, size, row.device),
        _columns("labels", labels, size, row.device),
    )
    when = {name: _count(name, n) for name, n in (("step", step), ("epoch", epoch), ("total_steps", total_steps))}
    return ByHand(
        student,
        batch,
        **others,
        queues={name: queue for name, (queue, _) in held.items()},
        **when,
        draws=_mapping("draws", draws, "tensor"),
        generator=generator,
        said=frozenset([*(["index"] if index is not None else []), *(name for name, (_, ids) in held.items() if ids)]),
    )


def encoded(
    z: Tensor,
    *,
    h: Tensor | None = None,
    tokens: Tensor | None = None,
    mask: Tensor | None = None,
    map: Tensor | None = None,
    heads: Mapping[str, Tensor] | None = None,
    role: str | None = None,
    row: Tensor | Sequence[int] | None = None,
    meta: Mapping[str, Any] | None = None,
    layers: Sequence[Tensor] = (),
    input: Tensor | None = None,
    input_mask: Tensor | None = None,
    view: int | None = None,
) -> Encoded:
    """A view with all that it has, to stand in the place of a bare tensor in `outputs`.

    z (n, D), half precision becomes float32; h (n, H), z where there is none; tokens (n, L, C) with mask bool (n, L), true
    = real; map (n, C, ...); heads: name -> (n, ...); layers: (n, W) each; input (n, ...) with input_mask: what the encoder
    was shown. meta: tensors with n rows, or values of the whole view
    role  global, local, negative, positive, mixed, ...; global where there is none
    row   int64 (n,): the sample of the batch that each row belongs to, 0 ... n - 1 where there is none: several captions
          or windows of a sample, or samples that lack the view
    view  of momentum and teacher: the number of the student's view that this is, counted over all views from 0

    Raises ComponentError for a shape or type that is none of these.
    """
    _check_z("encoded()", z)
    n, role = len(z), "global" if role is None else role
    if role not in ROLES and "did you mean" in (near := suggest(role, APART)):
        raise ComponentError(f"encoded(): role {role!r} would pair as an ordinary view does{near}")
    if input is not None and input_mask is None and input.ndim == 2:
        input_mask = torch.ones_like(input, dtype=torch.bool)
    tensors = {
        "h": (h, "(n, H)", 2), "tokens": (tokens, "(n, L, C)", 3), "map": (map, "(n, C, ...)", None),
        "input": (input, "(n, ...)", None), **{f"heads[{name!r}]": (x, "(n, ...)", None) for name, x in _heads(heads)},
        **{f"layers[{i}]": (x, "(n, W)", 2) for i, x in enumerate(layers)},
    }  # fmt: skip
    for name, (x, shape, axes) in tensors.items():
        _check_rows(f"encoded(): {name}", x, n, shape, axes)
    for name, found, like in (("mask", mask, tokens), ("input_mask", input_mask, input)):
        _check_mask(f"encoded(): {name}", found, like)
    row = None if row is None else _whole("encoded(): row", row, n, z.device)
    z = z if z.dtype == torch.float64 else z.float()
    h = z if h is None else h
    return Encoded(
        ONE, role, -1 if view is None else view, row, z, h, tokens, mask, map,
        dict(heads or {}), dict(meta or {}), input, input_mask, tuple(layers),
    )  # fmt: skip


# From what was given to views


def _listed(side: str, views: Sequence) -> list[tuple[str, Encoded]]:
    """Every view with the words that name it, its modality filled in."""
    found = []
    for given in views:
        for modality, item in given.items() if isinstance(given, Mapping) else [(None, given)]:
            several = modality is not None and isinstance(item, list | tuple)
            for one in item if several else [item]:
                found.append((f"{side}: {modality or ONE}", _view(side, modality, one)))
    if not found:
        raise ComponentError(f"{side} takes tensors (B, D); got nothing")
    return found


def _view(side: str, modality: str | None, given: Any) -> Encoded:
    if isinstance(given, Tensor):
        _check_z(f"{side}: {modality or ONE}", given)
        given = encoded(given)
    if not isinstance(given, Encoded):
        where = "" if modality is None else f" as {modality!r}"
        raise ComponentError(
            f"{side} takes tensors (B, D), counterpoint.encoded(...), or mappings of modalities to them; got "
            f"{_kind(given)}{where}"
        )
    return given if modality is None else replace(given, modality=modality)


def _placed(named: list[tuple[str, Encoded]]) -> list[tuple[str, Encoded]]:
    """The student's views with numbers: their places, unless they say another."""
    placed = [(who, e if e.view >= 0 else replace(e, view=place)) for place, (who, e) in enumerate(named)]
    numbers = [e.view for _, e in placed]
    if len(set(numbers)) < len(numbers):
        raise ComponentError(f"outputs(): views have numbers of their own, each its one; got {numbers}")
    _check_alike("outputs()", [e for _, e in placed])
    return placed


def _side(side: str, given: Any, student: list[Encoded], row: Tensor, size: int) -> list[Encoded]:
    """The views of momentum encoders or of a teacher: each has the number and the rows of the student's view that it is."""
    if isinstance(given, Tensor | Encoded):
        raise ComponentError(f"{side}: expected a list of views, {side}=[ka, kb]; got {_kind(given)}")
    given = [given] if isinstance(given, Mapping) else list(given)
    named = _listed(side, given) if given else []
    _check_alike(side, [e for _, e in named])
    by_view = {e.view: e for e in student}
    return [_as_seen(who, e, by_view.get(e.view), row, size) for who, e in _numbered(side, named, student)]


def _numbered(side: str, named: list[tuple[str, Encoded]], student: list[Encoded]) -> list[tuple[str, Encoded]]:
    """Each view with its number; those without one are all the student's views of their modality, in order."""
    views = {m: [e.view for e in student if e.modality == m] for m in {e.modality for _, e in named}}
    for modality, numbers in views.items():
        open_ = [e for _, e in named if e.modality == modality and e.view < 0]
        if open_ and len(open_) != len(numbers):
            raise ComponentError(
                f"{side}: {len(open_)} of {modality!r}, of which the student has {len(numbers)}"
                f"{f' (views {str(numbers)[1:-1]})' if numbers else ''}: say which of the views each is; "
                f"{side}=[counterpoint.encoded(k, view=1)]"
            )
    left = {modality: iter(numbers) for modality, numbers in views.items()}
    return [(who, e if e.view >= 0 else replace(e, view=next(left[e.modality]))) for who, e in named]


def _as_seen(who: str, e: Encoded, twin: Encoded | None, row: Tensor, size: int) -> Encoded:
    """With the role and the rows of the student's view, where there is one and it says nothing else."""
    if twin is None:
        return _with_rows(who, e, row, size)
    if twin.modality != e.modality:
        raise ComponentError(f"{who}: view {e.view} of the student is one of {twin.modality!r}; got {e.modality!r}")
    if e.row is None and len(twin.row) == len(e.z):
        e = replace(e, row=twin.row)
    return _with_rows(who, replace(e, role=twin.role) if e.role == "global" else e, row, size)


def _samples(student: list[tuple[str, Encoded]], index: Any) -> tuple[Tensor, int]:
    """int64 (B,): the samples of the batch, and how many they are."""
    free = [e for _, e in student if e.row is None]
    device = student[0][1].z.device
    if free:
        size = len(free[0].z)
    elif index is not None:
        size = len(index) if hasattr(index, "__len__") else 0
    else:
        size = max((int(e.row.max()) + 1 for _, e in student if len(e.row)), default=0)
    return torch.arange(size, device=device), size


def _with_rows(who: str, e: Encoded, row: Tensor, size: int) -> Encoded:
    if e.row is None:
        if len(e.z) != size:
            raise ComponentError(
                f"{who} has {len(e.z)} rows, and the batch {size} samples; whose they are: counterpoint.encoded(z, row=row)"
            )
        return replace(e, row=row)
    if len(e.row) and not 0 <= int(e.row.min()) <= int(e.row.max()) < size:
        raise ComponentError(
            f"{who}: row: expected places of the batch, 0 to {size - 1}; got {int(e.row.min())} to {int(e.row.max())}"
        )
    return e


# From what was given to columns and queues


def _mapping(kind: str, given: Any, what: str) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ComponentError(f"{kind}: expected a mapping of names, {kind}={{'name': {what}}}; got {_kind(given)}")
    return dict(given)


def _columns(kind: str, given: Any, size: int, device: torch.device) -> dict[str, Tensor]:
    made = {}
    for name, values in _mapping(kind, given, "tensor").items():
        who = f"{kind}: {name!r}"
        column = _tensor(who, values, device)
        column = column.long() if column.dtype == torch.bool else column
        if kind == "groups" or not column.is_floating_point():
            column = _whole(who, column, size, device)
        _check_length(who, column, size)
        made[name] = column
    return made


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


def _index(given: Any, size: int, device: torch.device) -> Tensor:
    index = _whole("index", given, size, device)
    if len(index) and int(index.min()) < 0:
        raise ComponentError(f"index: expected positions in the data set, from 0; got {int(index.min())}")
    return index


def _queue(name: str, given: Any) -> tuple[Queued, bool]:
    """The rows of a queue, and whether they say whose they are."""
    who = f"queues: {name!r}"
    if isinstance(given, Queued):
        given = {"z": given.z, "index": given.index, "groups": given.groups}
    if isinstance(given, Tensor):
        given = {"z": given}
    if not isinstance(given, Mapping) or not {"z"} <= set(given) <= {"z", "index", "groups"}:
        raise ComponentError(f"{who}: expected rows (K, D), Queued, or z with index and groups; got {_kind(given)}")
    z = given["z"]
    _check_z(who, z)
    index = given.get("index")
    ids = (
        torch.full((len(z),), -1, device=z.device)
        if index is None
        else _whole(f"{who}: index", index, len(z), z.device)
    )
    groups = _columns("groups", given.get("groups"), len(z), z.device)
    return Queued(z if z.dtype == torch.float64 else z.float(), ids, groups), index is not None or not len(z)


# What is checked


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"a mapping of {', '.join(map(str, value)) or 'nothing'}"
    return f"{type(value).__name__}"


def _check_z(who: str, z: Any) -> None:
    if not isinstance(z, Tensor) or z.ndim != 2 or not z.is_floating_point():
        got = f"{_kind(z)} of {z.dtype}" if isinstance(z, Tensor) and not z.is_floating_point() else _kind(z)
        raise ComponentError(f"{who}: expected a tensor (B, D) of floating point; got {got}")


def _check_alike(side: str, views: list[Encoded]) -> None:
    """Views that do not say whose their rows are have one shape."""
    shapes = {tuple(e.z.shape) for e in views if e.row is None}
    if len(shapes) > 1:
        got = ", ".join(f"{e.modality} {tuple(e.z.shape)}" for e in views)
        raise ComponentError(
            f"{side} takes tensors (B, D) of one shape; got {got}; whose the rows of a view are, where they are others: "
            "counterpoint.encoded(z, row=row)"
        )


def _heads(heads: Any) -> list[tuple[str, Tensor]]:
    return list(_mapping("encoded(): heads", heads, "tensor").items())


def _check_rows(who: str, x: Any, n: int, shape: str, axes: int | None) -> None:
    if x is None:
        return
    if not isinstance(x, Tensor) or x.ndim < 1 or len(x) != n or (axes is not None and x.ndim != axes):
        raise ComponentError(f"{who}: expected {shape} with n = {n}, the rows of z; got {_kind(x)}")


def _check_mask(who: str, mask: Any, like: Tensor | None) -> None:
    if mask is None:
        return
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or (like is not None and mask.shape[0] != len(like)):
        got = f"{_kind(mask)} of {mask.dtype}" if isinstance(mask, Tensor) else _kind(mask)
        raise ComponentError(f"{who}: expected bool (n, L), true where a token is real; got {got}")
    if like is None or mask.shape != (like.shape[:2] if who.endswith(": mask") else (len(like), like.shape[-1])):
        given = "there are none" if like is None else f"a tensor {tuple(like.shape)}"
        raise ComponentError(f"{who}: {tuple(mask.shape)} is not the mask of what it masks: {given}")


def _tensor(who: str, values: Any, device: torch.device) -> Tensor:
    try:
        return torch.as_tensor(values, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ComponentError(f"{who}: expected numbers, one a sample; got {_kind(values)}: {error}") from error


def _whole(who: str, values: Any, size: int, device: torch.device) -> Tensor:
    """int64 (size,)."""
    column = _tensor(who, values, device)
    column = column.long() if not column.numel() else column
    if column.is_floating_point() or column.is_complex() or column.dtype == torch.bool:
        raise ComponentError(f"{who}: expected whole numbers (int64); got {_kind(column)} of {column.dtype}")
    _check_length(who, column, size)
    return column.long()


def _check_length(who: str, column: Tensor, size: int) -> None:
    if column.shape != (size,):
        raise ComponentError(f"{who}: expected ({size},), one number a row; got {tuple(column.shape)}")
