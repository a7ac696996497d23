"""The batch across ranks: every rank gets all embeddings, and gradients come back exactly.

Each rank computes the same global loss. The backward pass of the gather returns the own slice of the gradient times
the number of ranks; DDP's mean over ranks cancels the factor. Exact for encoders and for the objective's parameters.
"""

from __future__ import annotations

from dataclasses import fields, replace

import torch
import torch.distributed as dist
from torch import Tensor

from counterpoint.batch import Batch, Encoded, padded
from counterpoint.runs.ranks import active, all_gather


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, local: Tensor, counts: list[int]) -> Tensor:
        ctx.counts = counts
        return all_gather(local, counts)

    @staticmethod
    def backward(ctx, grad: Tensor):
        rank = dist.get_rank()
        start = sum(ctx.counts[:rank])
        return grad[start : start + ctx.counts[rank]] * len(ctx.counts), None


def _gather(local: Tensor, counts: list[int]) -> Tensor:
    if local.dtype == torch.bool:
        return _gather(local.to(torch.uint8), counts).bool()
    return _Gather.apply(local, counts) if local.requires_grad else all_gather(local, counts)


_OPTIONAL = ("tokens", "mask", "map", "input", "input_mask")


def _describe_all(encoded: list[Encoded]) -> list[dict]:
    first: dict[int, int] = {}  # views that share a row tensor still share it afterwards
    return [
        {**_describe(e), "place": place, "shares": first.setdefault(id(e.row), place)}
        for place, e in enumerate(encoded)
    ]


def _several(e: Encoded) -> dict[str, Tensor]:
    """Outputs of which there may be any number, by names that are alike on every rank."""
    return {f"heads.{k}": v for k, v in e.heads.items()} | {f"layers.{k}": v for k, v in enumerate(e.layers)}


def _describe(e: Encoded) -> dict:
    tensors = {name: getattr(e, name) for name in _OPTIONAL} | _several(e)
    tensors |= {f"meta.{k}": v for k, v in e.meta.items() if isinstance(v, Tensor) and v.ndim and len(v) == len(e.row)}
    shapes = {name: (tuple(t.shape[1:]), t.dtype) for name, t in tensors.items() if t is not None}
    return {"rows": len(e.row), "h": (tuple(e.h.shape[1:]), e.h.dtype), "shapes": shapes}


def gather(encoded: list[Encoded], batch: Batch) -> tuple[list[Encoded], Batch]:
    """The Encoded and the Batch of all ranks; raw inputs stay those of this rank.

    A view without rows on one rank takes the shapes of its tokens, maps and heads from a rank that has rows; tokens
    of different lengths are padded to the longest.
    """
    if not active():
        return encoded, batch
    world = dist.get_world_size()
    descriptions: list = [None] * world
    dist.all_gather_object(descriptions, (len(batch), *_tables(batch), _describe_all(encoded)))
    sizes, groups, labels, described = zip(*descriptions)
    offset = sum(sizes[: dist.get_rank()])
    whole = replace(
        batch,
        index=_gather(batch.index, sizes),
        groups=_columns(batch.groups, groups, sizes, batch.index.device),
        labels=_columns(batch.labels, labels, sizes, batch.index.device),
    )
    found: list[Encoded] = []
    for place, e in enumerate(encoded):
        views = [views[place] for views in described]
        counts = [view["rows"] for view in views]
        same = _first_with_these_rows(views)
        row = found[same].row if same < place else _gather(e.row + offset, counts)
        found.append(_gather_one(e, row, views, counts))
    return found, whole


def _tables(batch: Batch) -> list[dict[str, torch.dtype]]:
    return [{name: column.dtype for name, column in table.items()} for table in (batch.groups, batch.labels)]


def _columns(own: dict[str, Tensor], tables: tuple[dict, ...], sizes: tuple[int, ...], device) -> dict[str, Tensor]:
    """Every column that any rank has; it is unknown to the samples of a rank that lacks it, as one without samples."""
    gathered = {}
    for name in sorted({name for table in tables for name in table}):
        real = any(table[name].is_floating_point for table in tables if name in table)
        dtype, unknown = (torch.float32, float("nan")) if real else (torch.int64, -1)
        column = own[name] if name in own else torch.full((sizes[dist.get_rank()],), unknown, device=device)
        gathered[name] = _gather(column.to(dtype), sizes)
    return gathered


def _first_with_these_rows(views: list[dict]) -> int:
    """The first view that has the same row tensor as this one on every rank with rows: the ranks must agree."""
    shares = {view["shares"] for view in views if view["rows"]} or {views[0]["shares"]}
    return shares.pop() if len(shares) == 1 else views[0]["place"]


def _gather_one(e: Encoded, row: Tensor, views: list[dict], counts: list[int]) -> Encoded:
    names = sorted({name for view in views for name in view["shapes"]})
    there = {name: [view["shapes"][name] for view in views if name in view["shapes"]] for name in names}
    own = {f.name: getattr(e, f.name) for f in fields(e)}
    own |= _several(e) | {f"meta.{k}": v for k, v in e.meta.items()}
    gathered = {
        name: _gather(_like(own.get(name), len(e.row), shapes, e.z.device), counts) for name, shapes in there.items()
    }
    part = lambda prefix: {k.removeprefix(prefix): v for k, v in gathered.items() if k.startswith(prefix)}  # noqa: E731
    h_shape, h_dtype = next((view["h"] for view in views if view["rows"]), views[0]["h"])
    return replace(
        e,
        row=row,
        z=_gather(e.z, counts),
        h=_gather(e.h if len(e.row) else e.h.new_zeros(0, *h_shape, dtype=h_dtype), counts),
        heads=part("heads."),
        layers=tuple(layer for _, layer in sorted(part("layers.").items(), key=lambda item: int(item[0]))),
        meta=e.meta | part("meta."),
        **{name: gathered[name] for name in _OPTIONAL if name in gathered},
    )


def _like(own: Tensor | None, rows: int, shapes: list[tuple], device) -> Tensor:
    """The own tensor padded to the largest of `shapes`, or one without rows."""
    target = [max(sizes) for sizes in zip(*(shape for shape, _ in shapes))]
    if own is None or not rows:
        return torch.zeros(0, *target, dtype=shapes[0][1], device=device)
    return padded(own, target)
