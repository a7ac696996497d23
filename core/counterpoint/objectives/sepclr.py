"""What targets share with a background, and what they have alone: two heads kept apart.

Dimensions: N rows of a view, Dc and Ds widths of the heads.
"""

from __future__ import annotations

from dataclasses import replace
from math import log

import torch
from torch import Tensor
from torch.nn.functional import normalize

from counterpoint.batch import Encoded, Outputs
from counterpoint.errors import ComponentError
from counterpoint.kernels import softmax_stats
from counterpoint.kernels.identities import counts
from counterpoint.objectives.objective import Needs, Objective, mean


class SepCLR(Objective):
    """SepCLR with the kernel joint entropy (k-JEM) (Louiset et al., 2024, section 3).

    Heads common (c, L2-normalised) and salient (s, not normalised). A sample is background (y = 0) or target (y = 1);
    s' is s with the rows of background set to 0. For x, y (N, D) of two views, all means over N:

        A(x, y) = mean_i ||x_i - y_i||^2 / (2 tau)
        U(x)    = log mean_{i < j} exp(-||x_i - x_j||^2 / (2 tau))                      the diagonal out
        J(c, s) = mean_i log mean_j exp(-(||c_i - c_j||^2 + ||s_i - s_j||^2) / (2 tau))     the diagonal in
        loss    = A(c1, c2) + u mean_v U(c_v)
                + salient    [ A(s1, s2) over targets + u mean_v U(s'_v) ]
                + background mean_v mean_{y = 0} ||s_v||^2 / (2 tau)
                + joint      mean_v J(c_v, s'_v)

    Rows of background stay in U(s') and J as zeros. Nothing is detached, no head is contrasted with the other. With more
    than two views A is the mean over their pairs. A sample of unknown label is in the terms of c alone. The weights
    differ between the authors' scripts (salient and background are 1000 for CIFAR with digits); a term without rows
    is 0.

    label       class of the data; background: its class of the background, all others are targets
    tau         width of the kernel
    uniformity  u above
    """

    unit = False  # z is not looked at, but for being connected

    def __init__(
        self,
        *,
        label: str,
        background: int = 0,
        tau: float = 0.5,
        uniformity: float = 2.0,
        salient_weight: float = 1.0,
        background_weight: float = 10.0,
        joint_weight: float = 10.0,
    ):
        super().__init__()
        if tau <= 0:
            raise ComponentError(f"objective sepclr: tau is positive; got {tau}")
        self.label, self.background, self.tau, self.uniformity = label, background, tau, uniformity
        self.weights = {
            "common": 1.0,
            "salient": salient_weight,
            "background": background_weight,
            "joint": joint_weight,
        }

    def needs(self) -> Needs:
        return Needs(pairs="all", batch=2, labels=frozenset({self.label}), heads=frozenset({"common", "salient"}))

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        views = [e for e in outputs.views() if len(e.row)]
        common = [replace(e, z=normalize(_head(e, "common"), dim=-1)) for e in views]
        labels = [self._labels(e, outputs) for e in views]
        known = [_at(replace(e, z=_head(e, "salient")), y >= 0) for e, y in zip(views, labels)]
        target = [y[y >= 0] != self.background for y in labels]
        zeroed = [replace(e, z=e.z * of_target[:, None]) for e, of_target in zip(known, target)]
        terms = {
            "common": self._align(common, outputs) + self._spread(common, outputs),
            "salient": self._align([_at(e, t) for e, t in zip(known, target)], outputs) + self._spread(zeroed, outputs),
            "background": self._absent([e.z[~t] for e, t in zip(known, target)], outputs),
            "joint": self._joint([_at(e, y >= 0) for e, y in zip(common, labels)], zeroed, outputs),
        }
        total = sum(self.weights[name] * term for name, term in terms.items())
        return total, {name: term.detach() for name, term in terms.items()}

    def _labels(self, e: Encoded, outputs: Outputs) -> Tensor:
        labels = outputs.batch.labels[self.label][e.row]
        if labels.is_floating_point():
            raise ComponentError(f"objective sepclr: label {self.label!r} is a value, expected a class (int64)")
        return labels

    def _align(self, views: list[Encoded], outputs: Outputs) -> Tensor:
        pairs = replace(outputs, student=views).pairs()
        return mean([(p.q - p.k).square().sum(-1).mean() / (2 * self.tau) for p in pairs], outputs)

    def _spread(self, views: list[Encoded], outputs: Outputs) -> Tensor:
        terms = [self._uniform(e.z, outputs.ids(e)) for e in views]
        return self.uniformity * mean([term for term in terms if term is not None], outputs)

    def _uniform(self, x: Tensor, ids: Tensor) -> Tensor | None:
        pairs = int(counts(len(x), len(x), (ids, ids), None, x.device).sum())
        if not pairs:
            return None
        rows = self._kernel(x, (ids, ids))
        return torch.logsumexp(rows[rows > -torch.inf], 0) - log(pairs)  # both orders of a pair: the mean is the same

    def _joint(self, common: list[Encoded], salient: list[Encoded], outputs: Outputs) -> Tensor:
        both = [torch.cat([c.z, s.z], 1) for c, s in zip(common, salient) if len(c.row)]
        return mean([(self._kernel(x) - log(len(x))).mean() for x in both], outputs)

    def _kernel(self, x: Tensor, exclude=None) -> Tensor:
        """(N,): log sum_j exp(-||x_i - x_j||^2 / (2 tau)); the key's square is a coordinate of its own."""
        x = x - x.detach().mean(0)  # smaller squares lose fewer digits; distances are the same
        half = x.square().sum(-1, keepdim=True) / 2
        queries, keys = torch.cat([x, torch.ones_like(half)], 1), torch.cat([x, -half], 1)
        return softmax_stats(queries, keys, 1 / self.tau, exclude=exclude).rows - half[:, 0] / self.tau

    def _absent(self, salient: list[Tensor], outputs: Outputs) -> Tensor:
        return mean([s.square().sum(-1).mean() / (2 * self.tau) for s in salient if len(s)], outputs)


def _head(e: Encoded, name: str) -> Tensor:
    return e.heads[name].to(e.z.dtype)


def _at(e: Encoded, rows: Tensor) -> Encoded:
    """Some rows of an Encoded, z alone."""
    return replace(e, z=e.z[rows], row=e.row[rows], heads={}, tokens=None, mask=None, map=None)
