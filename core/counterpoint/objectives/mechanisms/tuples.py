"""One row of every view at once: the tuples that objectives over more than two views compare.

Dimensions: T tuples, V views, n rows of a view.
"""

from __future__ import annotations

import torch
from torch import Tensor

from counterpoint.batch import Encoded


def tuples(views: list[Encoded]) -> tuple[Tensor, Tensor]:
    """int64 (T, V): positions of the rows of one sample in each view, -1 where it has none; and its sample (T,).

    Every sample that has a row in any view, with every combination of its rows, in the order of the batch.
    """
    sample = torch.unique(torch.cat([e.row for e in views]))
    table = sample.new_empty(len(sample), 0)
    for e in views:
        order = torch.argsort(e.row, stable=True)
        ranked = e.row[order].contiguous()
        first = torch.searchsorted(ranked, sample)
        count = torch.searchsorted(ranked, sample, right=True) - first
        times = count.clamp(min=1)
        source = torch.repeat_interleave(torch.arange(len(sample), device=sample.device), times)
        nth = torch.arange(len(source), device=sample.device) - (times.cumsum(0) - times)[source]
        place = torch.cat([order, order.new_full((1,), -1)])[
            torch.where(count[source] > 0, first[source] + nth, len(order))
        ]
        table, sample = torch.cat([table[source], place[:, None]], 1), sample[source]
    return table, sample


def complete(views: list[Encoded]) -> tuple[list[Tensor], Tensor]:
    """z (T, D) of every view for the tuples that lack no view, and their samples (T,)."""
    table, sample = tuples(views)
    whole = (table >= 0).all(1)
    return [e.z[place] for e, place in zip(views, table[whole].T)], sample[whole]
