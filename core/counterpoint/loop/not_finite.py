"""Why a loss is not finite: the last batch is read and viewed again, which its seeds make the same, and looked through.

Nothing is looked at while all goes well. Views are counted from 1, within their modality.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from counterpoint.batch import Outputs, View
from counterpoint.data.collate import collate
from counterpoint.loop.forward import ForwardPass

LISTED = 8  # samples, or weights, that a message names


def said(
    loss: Tensor,
    parts: Mapping[str, Tensor],
    objectives: Iterable[str],
    outputs: Outputs,
    forward: ForwardPass,
    dataset: Dataset | None,
) -> str:
    """`loss is NaN at step 812: input not finite in view 2 of 'ecg', samples [3, 17]; ...`.

    loss, parts, outputs: of the last batch, without its raw input, which is read from `dataset` again
    """
    what, step = "NaN" if math.isnan(loss.item()) else "infinite", outputs.step + 1
    cause = (
        next((found for modality in forward.towers if (found := _in_input(outputs, forward, dataset, modality))), "")
        or _in_embeddings(outputs)
        or _in_loss(parts, objectives)
    )
    return f"loss is {what} at step {step}: {cause}; the checkpoints before this step are intact"


def broken_weights(named: Iterable[tuple[str, nn.Parameter]]) -> str:
    """Names of weights that are not finite."""
    names = [name for name, p in named if p.requires_grad and not p.isfinite().all()]
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"{', '.join(names[:LISTED])}{more}"


def _in_embeddings(outputs: Outputs) -> str:
    for number, e in _numbered(outputs.student):
        if bad := _samples(e.z, e.row, outputs.batch.index):
            return (
                f"embedding not finite in view {number} of {e.modality!r}, samples {bad}, whose input is finite: lower "
                "optimizer.lr, or set trainer.gradient_clip_val: 1.0"
            )
    return ""


def _in_loss(parts: Mapping[str, Tensor], objectives: Iterable[str]) -> str:
    """Which of several objectives it is; a single one is the only one there is."""
    several = [
        name.removeprefix("loss/") for name, part in parts.items() if name.startswith("loss/") and not part.isfinite()
    ]
    names = ", ".join(several or objectives)
    return f"the value of {names} is not finite, though inputs and embeddings are: look at its temperature and weights"


@torch.no_grad()
def _in_input(outputs: Outputs, forward: ForwardPass, dataset: Dataset | None, modality: str) -> str:
    """What is not finite in what was read, or in the views that were made of it."""
    raw, index = _read_again(outputs, dataset, modality)
    if raw is None:
        return ""
    if bad := _samples(raw.data, raw.row, index):
        return f"input not finite as it was read, {modality!r} of samples {bad}"
    views = forward.views(modality, raw, index[raw.row], outputs.step)
    for number, view in enumerate(views, 1):
        if bad := _samples(view.data, view.row, index):
            return f"input not finite in view {number} of {modality!r}, samples {bad}, though it was read finite: a step of views.{modality} made it so"
    return ""


def _read_again(outputs: Outputs, dataset: Dataset | None, modality: str) -> tuple[View | None, Tensor]:
    index = outputs.batch.index
    try:
        batch = collate([dataset[outputs.epoch, int(i)] for i in index]).to(index.device)
    except Exception:  # data of another kind, or a file that has gone: what the embeddings tell is still there
        return None, index
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
