"""What datasets made of other datasets share. Their parameter `of` is a function: of(split) -> that dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from counterpoint.data.dataset import Spec


def extended(
    spec: Spec,
    size: int,
    groups: Mapping[str, int] | None = None,
    labels: Mapping[str, int | None] | None = None,
    **changes,
) -> Spec:
    """The spec of another number of samples with further columns, and other changes."""
    columns = {"groups": {**spec.groups, **(groups or {})}, "labels": {**spec.labels, **(labels or {})}}
    return replace(spec, size=size, **columns, **changes)


def columns_of(dataset, size: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Groups and labels of a dataset, unknown for the samples added to it."""
    tables = getattr(dataset, "groups", {}), getattr(dataset, "labels", {})
    groups, labels = ({name: unknown(np.asarray(column), size) for name, column in t.items()} for t in tables)
    return groups, labels


def unknown(column: np.ndarray, size: int) -> np.ndarray:
    """The column, and as many unknown values after it as `size` wants."""
    nothing = np.nan if np.issubdtype(column.dtype, np.floating) else -1
    return np.concatenate([column, np.full(size - len(column), nothing, dtype=column.dtype)])
