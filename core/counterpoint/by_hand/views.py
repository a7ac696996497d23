"""Views from bare tensors: `encoded`, and the places, rows and twins of what a call gave.

Dimensions: B samples, n rows of a view, D width of `z`, H of `h`, L tokens of C numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from counterpoint.batch import APART, Encoded, replace
from counterpoint.by_hand.checks import check_alike, check_mask, check_rows, check_z, kind_of, mapping_of, whole_numbers
from counterpoint.errors import ComponentError, suggest

ONE = "input"  # the modality of a view that names none
ROLES = frozenset({"raw", "global", "local", "query"}) | APART

Bare = Tensor | Encoded
Views = Bare | Mapping[str, Bare | Sequence[Bare]]


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
    check_z("encoded()", z)
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
        check_rows(f"encoded(): {name}", x, n, shape, axes)
    for name, found, like in (("mask", mask, tokens), ("input_mask", input_mask, input)):
        check_mask(f"encoded(): {name}", found, like)
    row = None if row is None else whole_numbers("encoded(): row", row, n, z.device)
    z = z if z.dtype == torch.float64 else z.float()
    h = z if h is None else h
    return Encoded(
        ONE, role, -1 if view is None else view, row, z, h, tokens, mask, map,
        dict(heads or {}), dict(meta or {}), input, input_mask, tuple(layers),
    )  # fmt: skip


def _heads(heads: Any) -> list[tuple[str, Tensor]]:
    return list(mapping_of("encoded(): heads", heads, "tensor").items())


def listed(side: str, views: Sequence) -> list[tuple[str, Encoded]]:
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
        check_z(f"{side}: {modality or ONE}", given)
        given = encoded(given)
    if not isinstance(given, Encoded):
        where = "" if modality is None else f" as {modality!r}"
        raise ComponentError(
            f"{side} takes tensors (B, D), counterpoint.encoded(...), or mappings of modalities to them; got "
            f"{kind_of(given)}{where}"
        )
    return given if modality is None else replace(given, modality=modality)


def placed(named: list[tuple[str, Encoded]]) -> list[tuple[str, Encoded]]:
    """The student's views with numbers: their places, unless they say another."""
    placed = [(who, e if e.view >= 0 else replace(e, view=place)) for place, (who, e) in enumerate(named)]
    numbers = [e.view for _, e in placed]
    if len(set(numbers)) < len(numbers):
        raise ComponentError(f"outputs(): views have numbers of their own, each its one; got {numbers}")
    check_alike("outputs()", [e for _, e in placed])
    return placed


def side_of(side: str, given: Any, student: list[Encoded], row: Tensor, size: int) -> list[Encoded]:
    """The views of momentum encoders or of a teacher: each has the number and the rows of the student's view that it is."""
    if isinstance(given, Tensor | Encoded):
        raise ComponentError(f"{side}: expected a list of views, {side}=[ka, kb]; got {kind_of(given)}")
    given = [given] if isinstance(given, Mapping) else list(given)
    named = listed(side, given) if given else []
    check_alike(side, [e for _, e in named])
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
        return with_rows(who, e, row, size)
    if twin.modality != e.modality:
        raise ComponentError(f"{who}: view {e.view} of the student is one of {twin.modality!r}; got {e.modality!r}")
    if e.row is None and len(twin.row) == len(e.z):
        e = replace(e, row=twin.row)
    return with_rows(who, replace(e, role=twin.role) if e.role == "global" else e, row, size)


def samples_of(student: list[tuple[str, Encoded]], index: Any) -> tuple[Tensor, int]:
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


def with_rows(who: str, e: Encoded, row: Tensor, size: int) -> Encoded:
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
