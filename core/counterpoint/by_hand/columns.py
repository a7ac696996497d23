"""Columns of a batch and rows of queues, from what a call gave.

Dimensions: B samples, K rows of a queue, D width of `z`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from counterpoint.batch import Queued
from counterpoint.by_hand.checks import check_length, check_z, kind_of, mapping_of, tensor_of, whole_numbers
from counterpoint.errors import ComponentError

Rows = Tensor | Queued | Mapping[str, Any]


def columns_of(kind: str, given: Any, size: int, device: torch.device) -> dict[str, Tensor]:
    made = {}
    for name, values in mapping_of(kind, given, "tensor").items():
        who = f"{kind}: {name!r}"
        column = tensor_of(who, values, device)
        column = column.long() if column.dtype == torch.bool else column
        if kind == "groups" or not column.is_floating_point():
            column = whole_numbers(who, column, size, device)
        check_length(who, column, size)
        made[name] = column
    return made


def index_of(given: Any, size: int, device: torch.device) -> Tensor:
    index = whole_numbers("index", given, size, device)
    if len(index) and int(index.min()) < 0:
        raise ComponentError(f"index: expected positions in the data set, from 0; got {int(index.min())}")
    return index


def queue_of(name: str, given: Any) -> tuple[Queued, bool]:
    """The rows of a queue, and whether they say whose they are."""
    who = f"queues: {name!r}"
    if isinstance(given, Queued):
        given = {"z": given.z, "index": given.index, "groups": given.groups}
    if isinstance(given, Tensor):
        given = {"z": given}
    if not isinstance(given, Mapping) or not {"z"} <= set(given) <= {"z", "index", "groups"}:
        raise ComponentError(f"{who}: expected rows (K, D), Queued, or z with index and groups; got {kind_of(given)}")
    z = given["z"]
    check_z(who, z)
    index = given.get("index")
    ids = (
        torch.full((len(z),), -1, device=z.device)
        if index is None
        else whole_numbers(f"{who}: index", index, len(z), z.device)
    )
    groups = columns_of("groups", given.get("groups"), len(z), z.device)
    return Queued(z if z.dtype == torch.float64 else z.float(), ids, groups), index is not None or not len(z)
