"""All views of a sample in one term: MV-InfoNCE and MV-DHEL.

Dimensions: B samples, V views or modalities, R rows of all views, P pairs of rows of one sample in two views.
"""

from __future__ import annotations

import torch
from torch import Tensor

from counterpoint.batch import Outputs
from counterpoint.errors import ComponentError
from counterpoint.kernels import contrast, softmax_stats
from counterpoint.objectives.mechanisms.rows import stack_views
from counterpoint.objectives.objective import Needs, Objective


def sums_by(values: Tensor, group: Tensor, count: int) -> Tensor:
    """(count,): the sum of the values (n,) of each group; the same result every run, on a GPU too."""
    order = torch.argsort(group, stable=True)
    lengths = torch.bincount(group, minlength=count)
    return torch.segment_reduce(values[order], "sum", lengths=lengths, axis=0, unsafe=True)


def log_sum_exp_by(values: Tensor, group: Tensor, count: int) -> Tensor:
    """(count,): the log-sum-exp of the values (n,) of each group; -inf, with a zero gradient, for an empty one."""
    top = values.new_full((count,), -torch.inf).scatter_reduce(0, group, values.detach(), "amax")
    top = top.masked_fill(top == -torch.inf, 0.0)
    total = sums_by(torch.exp(values - top[group]), group, count)
    there = total > 0
    return torch.where(there, torch.where(there, total, 1.0).log() + top, -torch.inf)


class _MultiView(Objective):
    """z of all views in one stack, and for each sample the log-sum-exp of its positive logits."""

    def __init__(self, *, temperature: float):
        super().__init__()
        if temperature <= 0:
            raise ComponentError(f"objective: a temperature is positive; got {temperature}")
        self.temperature = temperature

    def needs(self) -> Needs:
        return Needs(pairs="all", batch=2)

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        stack, count = stack_views(outputs), len(outputs.batch)
        a, b = stack.positives
        if not len(a):
            return outputs.zero(), {}
        sample = torch.cat([e.row for e in outputs.views()])  # (R,)
        logits = (stack.z[a] * stack.z[b]).sum(-1) / self.temperature  # (P,)
        positive = log_sum_exp_by(logits, sample[a], count)  # (B,)
        there = positive > -torch.inf  # samples with rows in two views
        negative = self._negatives(outputs, stack.z, stack.ids, sample, count)
        return self._terms(positive[there], negative[there]).mean(), {}


class MVInfoNCE(_MultiView):
    """MV-InfoNCE (Koromilas et al., 2025, A Principled Framework for Multi-View Contrastive Learning).

    V views (or modalities) of B samples, z L2-normalised, l_ab = z_a . z_b / temperature, (l, i): row of sample i in l:

        loss = -mean_i log( sum_{l != m} exp(l_(l,i)(m,i))
                            / ( sum_{l != m} exp(l_(l,i)(m,i)) + sum_l sum_{m, j: not sample i} exp(l_(l,i)(m,j)) ) )

    One log of a sum over ordered pairs of views, not a sum of logs; all positives are in the denominator, negatives come
    from the own view, too. Nothing is detached. A sample is contrasted over the views it has, and one with fewer than
    two is no anchor but stays a negative; other rows of the own sample in the own view are in no sum. For two views it
    is a log of sums over both anchors, which NT-Xent takes apart. The temperature is that of the authors' MV-DHEL.
    """

    def __init__(self, *, temperature: float = 0.2):
        super().__init__(temperature=temperature)

    def _negatives(self, outputs: Outputs, z: Tensor, ids: Tensor, sample: Tensor, count: int) -> Tensor:
        rows = softmax_stats(z, z, 1 / self.temperature, exclude=(ids, ids)).rows  # (R,)
        return log_sum_exp_by(rows, sample, count)

    def _terms(self, positive: Tensor, negative: Tensor) -> Tensor:
        return contrast(negative, positive + positive.new_tensor(2.0).log())  # each pair in both orders


class MVDHEL(_MultiView):
    """MV-DHEL (Koromilas et al., 2025): alignment over all views in one log, uniformity of each view on its own.

        loss = -mean_i [ log sum_{l < m} exp(l_(l,i)(m,i)) - sum_l log sum_{j: not sample i} exp(l_(l,i)(l,j)) ]

    with the symbols of MV-InfoNCE. Pairs of views are unordered; negatives come from the anchor's own view alone, and no
    positive is in a denominator. For two views it is DHEL, l_(1,i)(2,i) with two logs. Nothing is detached. A sample is
    summed over the views it has, if they are two; a view in which it has no negative adds no log, and a sample
    without any negative adds 0. The authors' code multiplies raw sums, which overflow; the temperature is theirs.
    """

    def __init__(self, *, temperature: float = 0.2):
        super().__init__(temperature=temperature)

    def _negatives(self, outputs: Outputs, z: Tensor, ids: Tensor, sample: Tensor, count: int) -> Tensor:
        views = [(e.z, outputs.ids(e)) for e in outputs.views()]
        rows = torch.cat([softmax_stats(z, z, 1 / self.temperature, exclude=(own, own)).rows for z, own in views])
        there = rows > -torch.inf
        total = sums_by(rows.masked_fill(~there, 0.0), sample, count)
        return torch.where(sums_by(there.to(rows.dtype), sample, count) > 0, total, -torch.inf)

    def _terms(self, positive: Tensor, negative: Tensor) -> Tensor:
        return contrast(negative, positive, "negatives")
