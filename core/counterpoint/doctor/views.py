"""Views of one batch, and what untrained encoders make of them: constant, identical, not finite.

Dimensions: n rows of a view, H width of h.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import torch
from torch import Tensor, nn

from counterpoint.batch import APART, Batch, View
from counterpoint.data.collate import collate
from counterpoint.data.spread import spread
from counterpoint.doctor.finding import Finding
from counterpoint.doctor.look import Data, affordable, read
from counterpoint.errors import DataError
from counterpoint.fit.assembly import Assembly

ROWS, NUMBERS = 64, 1 << 25  # samples of the batch that is looked at, and numbers in it
MANY = 0.05  # share of rows from which a fault is no accident
ALIKE = 1e-5  # spread of h beside its size, under which it is one point


def check(data: Data, assembly: Assembly) -> Iterator[Finding]:
    batch = a_batch(data)
    for modality, pipeline in assembly.pipelines.items():
        raw = batch.inputs.get(modality)
        if raw is None or len(raw) < 2:
            continue
        with torch.no_grad():
            views = pipeline(raw, batch.index[raw.row], data.recipe.seed, 0)
        tower = assembly.towers[modality]
        yield from not_finite(modality, raw, views)
        yield from constant(modality, raw, views)
        yield from identical(modality, views, tower, alone=len(assembly.pipelines) == 1)
        yield from one_point(modality, raw, views, tower)


def a_batch(data: Data) -> Batch:
    """Evenly spread samples of the training split, as the loader would bring them."""
    dataset, items = data.train.dataset, []
    for index in spread(dataset, affordable(dataset, ROWS, NUMBERS)).tolist():
        try:
            items.append((index, read(dataset, index)))
        except DataError:
            continue
    return collate(items)


def not_finite(modality: str, raw: View, views: list[View]) -> Iterator[Finding]:
    for what, view in [("samples", raw), *(("views", view) for view in views)]:
        bad = ~_rows(view.data).isfinite().all(1)
        if bad.any():
            where = "data" if what == "samples" else f"views.{modality}"
            text = f"{int(bad.sum())} of {len(view)} {what} of {modality!r} have NaN or infinite numbers"
            yield Finding(where, text, "scale the data, or leave out steps one by one until it is gone")
            return


def constant(modality: str, raw: View, views: list[View]) -> Iterator[Finding]:
    """Views without anything in them, of samples that have something."""
    full = torch.zeros(int(raw.row.max()) + 1, dtype=torch.bool)
    full[raw.row[~flat(raw)]] = True
    for number, view in enumerate(views):
        empty = flat(view) & full[view.row]
        if float(empty.float().mean()) > MANY:
            what = f"view {number} of {int(empty.sum())} of {len(view)} samples has one value all over"
            yield Finding(f"views.{modality}", what, "weaken the steps that hide, crop or scale: lower their fractions")
            return


def identical(modality: str, views: list[View], tower: nn.Module, alone: bool) -> Iterator[Finding]:
    """Two views of a sample that are the same, where no dropout tells them apart either."""
    dropout = any(isinstance(m, nn.Dropout) and m.p > 0 for m in tower.modules())
    for (a, one), (b, other) in combinations([(i, v) for i, v in enumerate(views) if v.role not in APART], 2):
        if dropout or one.data.shape != other.data.shape or not torch.equal(one.row, other.row):
            continue
        same = (_rows(one.data) == _rows(other.data)).all(1)
        if float(same.float().mean()) > 0.5:
            what = f"views {a} and {b} are the same for {int(same.sum())} of {len(one)} samples: to agree is no task"
            remedy = f"add steps that change them to views.{modality}, or raise their strength or probability"
            yield Finding(f"views.{modality}", what, remedy, serious=alone)
            return


def one_point(modality: str, raw: View, views: list[View], tower: nn.Module) -> Iterator[Finding]:
    """An encoder that gives the same h for different samples before it has learnt anything."""
    training = tower.training
    tower.eval()
    try:
        with torch.no_grad():
            h = tower(views[0], 0).h.float()
    finally:
        tower.train(training)
    if len(h) < 2 or not h.isfinite().all() or bool(flat(views[0]).all()):
        return
    if float(h.std(0).norm()) <= ALIKE * float(h.norm(dim=1).mean()):
        what = f"the untrained encoder gives one h for {len(h)} different samples"
        remedy = "scale the inputs to about unit variance; look for a dead activation or a pool over everything"
        yield Finding(f"encoders.{modality}", what, remedy)


def flat(view: View) -> Tensor:
    """bool (n,): rows whose real numbers are all equal."""
    data = _rows(view.data)
    if view.mask is None or view.mask.shape != view.data.shape:
        return (data == data[:, :1]).all(1)
    first = data.gather(1, view.mask.long().argmax(1, keepdim=True))
    return ((data == first) | ~view.mask).all(1) & (view.mask.sum(1) > 1)


def _rows(data: Tensor) -> Tensor:
    data = data.reshape(len(data), -1)
    return data if data.is_floating_point() else data.double()
