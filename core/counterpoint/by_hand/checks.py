"""What a call from Python gave, looked at: each error says who, what was expected, and what came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from counterpoint.batch import Encoded
from counterpoint.errors import ComponentError


def kind_of(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"a mapping of {', '.join(map(str, value)) or 'nothing'}"
    return f"{type(value).__name__}"


def check_z(who: str, z: Any) -> None:
    if not isinstance(z, Tensor) or z.ndim != 2 or not z.is_floating_point():
        got = f"{kind_of(z)} of {z.dtype}" if isinstance(z, Tensor) and not z.is_floating_point() else kind_of(z)
        raise ComponentError(f"{who}: expected a tensor (B, D) of floating point; got {got}")


def check_alike(side: str, views: list[Encoded]) -> None:
    """Views that do not say whose their rows are have one shape."""
    shapes = {tuple(e.z.shape) for e in views if e.row is None}
    if len(shapes) > 1:
        got = ", ".join(f"{e.modality} {tuple(e.z.shape)}" for e in views)
        raise ComponentError(
            f"{side} takes tensors (B, D) of one shape; got {got}; whose the rows of a view are, where they are others: "
            "counterpoint.encoded(z, row=row)"
        )


def check_rows(who: str, x: Any, n: int, shape: str, axes: int | None) -> None:
    if x is None:
        return
    if not isinstance(x, Tensor) or x.ndim < 1 or len(x) != n or (axes is not None and x.ndim != axes):
        raise ComponentError(f"{who}: expected {shape} with n = {n}, the rows of z; got {kind_of(x)}")


def check_mask(who: str, mask: Any, like: Tensor | None) -> None:
    if mask is None:
        return
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or (like is not None and mask.shape[0] != len(like)):
        got = f"{kind_of(mask)} of {mask.dtype}" if isinstance(mask, Tensor) else kind_of(mask)
        raise ComponentError(f"{who}: expected bool (n, L), true where a token is real; got {got}")
    if like is None or mask.shape != (like.shape[:2] if who.endswith(": mask") else (len(like), like.shape[-1])):
        given = "there are none" if like is None else f"a tensor {tuple(like.shape)}"
        raise ComponentError(f"{who}: {tuple(mask.shape)} is not the mask of what it masks: {given}")


def tensor_of(who: str, values: Any, device: torch.device) -> Tensor:
    try:
        return torch.as_tensor(values, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ComponentError(f"{who}: expected numbers, one a sample; got {kind_of(values)}: {error}") from error


def whole_numbers(who: str, values: Any, size: int, device: torch.device) -> Tensor:
    """int64 (size,)."""
    column = tensor_of(who, values, device)
    column = column.long() if not column.numel() else column
    if column.is_floating_point() or column.is_complex() or column.dtype == torch.bool:
        raise ComponentError(f"{who}: expected whole numbers (int64); got {kind_of(column)} of {column.dtype}")
    check_length(who, column, size)
    return column.long()


def check_length(who: str, column: Tensor, size: int) -> None:
    if column.shape != (size,):
        raise ComponentError(f"{who}: expected ({size},), one number a row; got {tuple(column.shape)}")


def mapping_of(kind: str, given: Any, what: str) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ComponentError(f"{kind}: expected a mapping of names, {kind}={{'name': {what}}}; got {kind_of(given)}")
    return dict(given)
