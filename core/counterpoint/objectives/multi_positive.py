"""Sigmoid losses in which a group's rows are positives of each other.

Dimensions: N aligned rows of a pair of views, R rows of all views, P pairs of rows of one group.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from counterpoint.batch import Outputs
from counterpoint.kernels import softplus_sums
from counterpoint.objectives.mechanisms.rows import across_or_all, pair_ids
from counterpoint.objectives.multi_view import sums_by
from counterpoint.objectives.objective import Needs, mean
from counterpoint.objectives.siglip import SigLIP


class SigmoidMultiPositive(SigLIP):
    """SigLIP (Zhai et al., 2023, section 3.2) with every pair of a group as a positive, the mean over pairs of modalities.

    For N aligned rows of two modalities, L2-normalised, t = exp(t') and bias b learned:

        loss = 1/N [ sum_{i, j: same group}   log(1 + exp(-(t q_i . k_j + b)))
                   + sum_{i, j: other groups} log(1 + exp(t q_i . k_j + b)) ]

    All N x N pairs are in the sum, which is divided by N alone; nothing is detached. A sample of unknown group matches
    its own rows. Positive pairs are listed: memory is linear in their number; negatives are never held as a table.

    group  of the data, or "index": all rows of a sample match each other
    """

    def __init__(self, *, group: str, scale: float = 10.0, bias: float = -10.0):
        super().__init__(scale=scale, bias=bias)
        self.group = group

    def needs(self) -> Needs:
        groups = frozenset() if self.group == "index" else frozenset({self.group})
        return Needs(pairs="all", batch=2, groups=groups)

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        scale = self.log_scale.exp()
        terms = [
            self._rows(pair.q, pair.k, pair_ids(outputs, pair, self.group), scale).mean()
            for pair in outputs.pairs(across_or_all(outputs))
        ]
        return mean(terms, outputs), {"scale": scale.detach(), "bias": self.bias.detach()}

    def _rows(self, q: Tensor, k: Tensor, groups: Tensor, scale: Tensor, itself: bool = True) -> Tensor:
        """(N,): the sum over the keys; without `itself`, key i is none of query i's."""
        a, b = same(groups)
        if not itself:
            a, b = a[a != b], b[a != b]
        positive = softplus(-(scale * (q[a] * k[b]).sum(-1) + self.bias), threshold=40)  # (P,)
        return sums_by(positive, a, len(q)) + softplus_sums(q, k, scale, self.bias, exclude=(groups, groups))


class XEgoCECL(SigmoidMultiPositive):
    """Cross-ego contrast (X-Ego, 2025), all rows of all views in one stack: clips of one group are positives.

    R rows, L2-normalised, l_ab = t z_a . z_b + b, t = exp(t') and b learned, y_ab = 1 for rows of one group:

        loss = mean_a sum_{b != a} log(1 + exp(-(2 y_ab - 1) l_ab))

    The sum over keys is not divided by their number; nothing is detached. The authors' code has the diagonal as a
    positive, too: a term of t + b alone, without a gradient to z. Defaults are those of its module; its option to leave b
    out is not here.
    """

    def __init__(self, *, group: str, scale: float = 1.0, bias: float = 0.0):
        super().__init__(group=group, scale=scale, bias=bias)

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        scale, views = self.log_scale.exp(), outputs.views()
        z = torch.cat([e.z for e in views])
        groups = torch.cat([outputs.ids(e, self.group) for e in views])
        terms = self._rows(z, z, groups, scale, itself=False)
        return terms.sum() / max(len(terms), 1), {"scale": scale.detach(), "bias": self.bias.detach()}


def same(ids: Tensor) -> tuple[Tensor, Tensor]:
    """int64 (P,), (P,): every ordered pair of positions of equal id, each with itself included."""
    order = torch.argsort(ids, stable=True)
    ranked = ids[order].contiguous()
    first = torch.searchsorted(ranked, ids)
    count = torch.searchsorted(ranked, ids, right=True) - first
    a = torch.repeat_interleave(torch.arange(len(ids), device=ids.device), count)
    nth = torch.arange(len(a), device=ids.device) - (count.cumsum(0) - count)[a]
    return a, order[first[a] + nth]
