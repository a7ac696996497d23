"""Outputs that any objective may be called with, made to its needs.

Dimensions: B samples, n rows of a view, D width of z, H of h, L tokens, K rows of a queue. All numbers are float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from counterpoint.batch import Batch, Encoded, Outputs, Queued
from counterpoint.objectives.objective import Needs

B, D, LAYERS, PROTOTYPES = 6, 8, (3, 5), 5
GIVEN: dict[str, Any] = {"dim": D, "size": 64, "prototypes": PROTOTYPES}
_TABLES = ("heads", "meta")
_ROWS = ("z", "h", "tokens", "mask", "map", "input", "input_mask")


def modalities_of(needs: Needs) -> list[str]:
    """Those it names, or as many as it wants; a positive pair across modalities takes two."""
    if not isinstance(needs.modalities, int):
        return list(needs.modalities)
    few = 1 if needs.pairs in (None, "all", "within", "across") else 2
    count = max(needs.modalities, 2 if needs.pairs == "across" else few)
    named = [needs.pairs] if few == 2 else []
    return (named + [f"modality{i}" for i in range(count)])[:count]


def scene(needs: Needs, rows: Sequence[int] = range(B)) -> Outputs:
    """B samples, of which `rows` have a row in each view; samples 1 and 3 share every group and label, 2 has none."""
    random = torch.Generator().manual_seed(7)
    draw = lambda *shape: torch.randn(*shape, generator=random, dtype=torch.float64)  # noqa: E731
    sides: dict[str, list[Encoded]] = {"student": [], "momentum": [], "teacher": []}
    titles = [(m, "global") for m in modalities_of(needs) for _ in range(max(2, needs.views))]
    titles += [(modalities_of(needs)[0], role) for role in sorted(needs.roles)]
    for view, (modality, role) in enumerate(titles):
        for side in sides.values():
            side.append(_encoded(modality, role, view, list(rows), needs, draw))
    column = torch.tensor([0, 1, -1, 1, 2, 0])
    index = torch.tensor([40, 10, 20, 30, 50, 60])
    batch = Batch({}, index, dict.fromkeys(needs.groups, column), dict.fromkeys(needs.labels, column))
    queues = {
        name: Queued(
            normalize(draw(7, D), dim=-1), torch.arange(1, 8), dict.fromkeys(needs.groups, torch.arange(7) % 3)
        )
        for name in needs.queues
    }
    outputs = Outputs(batch=batch, queues=queues, step=0, total_steps=10, **sides)
    return outputs if needs.teacher else replace(outputs, teacher=[])


def _encoded(modality: str, role: str, view: int, rows: list[int], needs: Needs, draw) -> Encoded:
    n = len(rows)
    learn = lambda *shape: draw(*shape).requires_grad_()  # noqa: E731
    row = torch.tensor(rows, dtype=torch.int64)
    mask = torch.ones(n, 3, dtype=torch.bool)
    heads = {
        name: learn(n, PROTOTYPES, 2, 2) if name == "scores" else learn(n, D) for name in sorted(needs.heads - {"map"})
    }
    corner = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64).repeat(n, 1, 1)
    meta: dict[str, Any] = {"place": corner} if "place" in needs.records else {}
    if role == "mixed":
        meta |= {"partner": torch.zeros(n, dtype=torch.int64) + 10, "share": torch.full((n,), 0.7, dtype=torch.float64)}
    has = needs.features
    return Encoded(
        modality, role, view, row, learn(n, D), learn(n, D), heads=heads, meta=meta,
        tokens=learn(n, 3, D) if "tokens" in has else None,
        mask=mask if "tokens" in has else None,
        map=learn(n, D, 2, 2) if "map" in has or "map" in needs.heads else None,
        input=draw(n, 2, 6) if "input" in has else None,
        layers=tuple(learn(n, width) for width in LAYERS) if "layers" in has else (),
    )  # fmt: skip


def shuffled(outputs: Outputs) -> Outputs:
    """The same batch with its samples, and the rows of each view, in another order."""
    order = torch.tensor([3, 0, 5, 4, 1, 2])  # sample order[s] now stands at s
    place = order.argsort()
    table = lambda columns: {name: column[order] for name, column in columns.items()}  # noqa: E731
    old = outputs.batch
    batch = Batch({}, old.index[order], table(old.groups), table(old.labels))
    sides = {side: [_turned(e, place) for e in getattr(outputs, side)] for side in ("student", "momentum", "teacher")}
    return replace(outputs, batch=batch, **sides)


def _turned(e: Encoded, place: Tensor) -> Encoded:
    turn = lambda t: None if t is None else t.flip(0)  # noqa: E731
    changed = {name: turn(getattr(e, name)) for name in _ROWS}
    changed |= {table: {name: turn(t) for name, t in getattr(e, table).items()} for table in _TABLES}
    return replace(e, **changed, row=place[e.row].flip(0), layers=tuple(map(turn, e.layers)))


def tensors(encoded: Sequence[Encoded]) -> list[Tensor]:
    """Every tensor of these that may have a gradient."""
    return [t for e in encoded for t in (e.z, e.h, e.tokens, e.map, *e.heads.values(), *e.layers) if t is not None]
