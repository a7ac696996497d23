"""Why a loss is not finite: the last batch is read and viewed again, which its seeds make the same, and looked through.

Nothing is looked at while all goes well. Views are counted from 1, within their modality.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from counterpoint.batch import View
from counterpoint.data.collate import collate

if TYPE_CHECKING:
    from counterpoint.loop.module import Loop

LISTED = 8  # samples, or weights, that a message names


def said(loop: Loop) -> str:
    """`loss is NaN at step 812: input not finite in view 2 of 'ecg', samples [3, 17]; ...`."""
    value, step = loop.last_loss.item(), loop.last_outputs.step + 1
    what = "NaN" if math.isnan(value) else "infinite"
    return f"loss is {what} at step {step}: {_cause(loop)}; the checkpoints before this step are intact"


def broken_weights(loop: Loop) -> str:
    """Names of weights that are not finite."""
    names = [name for name, p in loop.named_parameters() if p.requires_grad and not p.isfinite().all()]
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"{', '.join(names[:LISTED])}{more}"


@torch.no_grad()
def _cause(loop: Loop) -> str:
    for modality in loop.towers:
        if found := _in_input(loop, modality):
            return found
    outputs = loop.last_outputs
    for number, e in _numbered(outputs.student):
        if bad := _samples(e.z, e.row, outputs.batch.index):
            return (
                f"embedding not finite in view {number} of {e.modality!r}, samples {bad}, whose input is finite: lower "
                "optimizer.lr, or set trainer.gradient_clip_val: 1.0"
            )
    several = [
        name.removeprefix("loss/")
        for name, part in loop.last_parts.items()
        if name.startswith("loss/") and not part.isfinite()
    ]
    names = ", ".join(several or loop.objectives)
    return f"the value of {names} is not finite, though inputs and embeddings are: look at its temperature and weights"


def _in_input(loop: Loop, modality: str) -> str:
    """What is not finite in what was read, or in the views that were made of it."""
    raw, index = _read_again(loop, modality)
    if raw is None:
        return ""
    if bad := _samples(raw.data, raw.row, index):
        return f"input not finite as it was read, {modality!r} of samples {bad}"
    views = loop.views(modality, raw, index[raw.row], loop.last_outputs.step)
    for number, view in enumerate(views, 1):
        if bad := _samples(view.data, view.row, index):
            return f"input not finite in view {number} of {modality!r}, samples {bad}, though it was read finite: a step of views.{modality} made it so"
    return ""


def _read_again(loop: Loop, modality: str) -> tuple[View | None, Tensor]:
    outputs = loop.last_outputs
    try:
        dataset = loop.trainer.train_dataloader.dataset
        batch = collate([dataset[outputs.epoch, int(i)] for i in outputs.batch.index]).to(loop.device)
    except Exception:  # data of another kind, or a file that has gone: what the embeddings tell is still there
        return None, outputs.batch.index
    raw = batch.inputs.get(modality)
    return (raw if raw is not None and len(raw) else None), batch.index


def _numbered(encoded):
    counts: dict[str, int] = {}
    for e in encoded:
        counts[e.modality] = counts.get(e.modality, 0) + 1
        yield counts[e.modality], e


def _samples(x: Tensor, row: Tensor, index: Tensor) -> list[int]:
    """Positions in the data set of the rows of `x` that are not finite, the first LISTED."""
    if not x.is_floating_point() or not len(x):
        return []
    bad = ~x.flatten(1).isfinite().all(1)
    return sorted(set(index[row[bad]].tolist()))[:LISTED]
