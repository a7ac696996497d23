"""Rows of several views at once: whose they are, and all of them in one stack with their positive pairs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from counterpoint.batch import Encoded, Outputs, Pair, replace, unknown_to_unique
from counterpoint.errors import ComponentError


class Stack(NamedTuple):
    """All rows of all views: z (R, D), ids int64 (R,), positives: pairs of positions (P,), (P,), each pair once."""

    z: Tensor
    ids: Tensor
    positives: tuple[Tensor, Tensor]


def pair_ids(outputs: Outputs, pair: Pair, by: str = "index") -> Tensor:
    """int64 (N,): whose the rows of an aligned pair are."""
    return outputs.ids(replace(pair.query, row=pair.row), by)


def classes(
    who: str, outputs: Outputs, views: list[Encoded], label: str | None = None, group: str | None = None
) -> Tensor:
    """int64 (R,): the class of every row of some views, by a label or a group; by its sample where none is named.

    An unknown class (-1) is that of its own sample alone. ComponentError, which names `who`, for a label of values.
    """
    if label is None:
        return torch.cat([outputs.ids(e, group or "index") for e in views])
    row = torch.cat([e.row for e in views])
    found = outputs.batch.labels[label][row]
    if found.is_floating_point():
        raise ComponentError(f"objective {who}: label {label!r} is a value, expected a class (int64)")
    return unknown_to_unique(found, outputs.batch.index[row])


def stack_views(outputs: Outputs, pairs: str = "all") -> Stack:
    """Every row of every view but the negatives, whether or not its sample is in the other views."""
    views = outputs.views()
    ids = torch.cat([outputs.ids(e) for e in views])
    places = torch.arange(len(ids), device=ids.device).split([len(e.row) for e in views])
    found = replace(outputs, student=[replace(e, z=z) for e, z in zip(views, places)]).pairs(pairs)
    first, second = (_joined(part, ids) for part in ([p.q for p in found], [p.k for p in found]))
    return Stack(torch.cat([e.z for e in views]), ids, (first, second))


def _joined(parts: list[Tensor], like: Tensor) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat([*parts, like[:0]])


def join(views: list[Encoded]) -> Encoded:
    """The rows of several Encoded of one modality as one."""
    parts = {name: torch.cat([getattr(e, name) for e in views]) for name in ("z", "h", "row")}
    return replace(views[0], **parts, tokens=None, mask=None, map=None, heads={}, meta={})


def across_or_all(outputs: Outputs) -> str:
    """Pairs between modalities where there are several, else between the views of the only one."""
    return "across" if len(outputs.modalities()) > 1 else "all"
