"""Several projection heads, and a temperature for every pair of rows.

Dimensions: R rows of all views, P ordered positive pairs, D width of a head.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, relu

from counterpoint.batch import Outputs
from counterpoint.errors import ComponentError
from counterpoint.kernels import contrast
from counterpoint.kernels.by_rows import by_rows
from counterpoint.kernels.reference import log_sum_exp, lowest
from counterpoint.markers import Dim
from counterpoint.modules import NamedModules
from counterpoint.objectives.mechanisms.rows import Stack, stack_views
from counterpoint.objectives.objective import Needs, Objective


class PairTemperature(nn.Module):
    """tau(a, b) = low + (high - low) sigmoid( MLP([z_a; z_b]) ), an MLP of 2 D -> hidden -> 1 with a ReLU between."""

    LOW, HIGH = 1e-5, 2.0

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.first, self.last = nn.Linear(2 * dim, hidden), nn.Linear(hidden, 1)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """(...,) of a and b (..., D), which broadcast: the first map is taken apart, so that no pair is concatenated."""
        own, other = self.first.weight.chunk(2, dim=1)
        hidden = relu(a @ own.T + b @ other.T + self.first.bias)
        share = torch.sigmoid(self.last(hidden)[..., 0])
        return self.LOW + (self.HIGH - self.LOW) * share


class AMCL(Objective):
    """Adaptive multi-head contrastive learning (Wang et al., 2024), in its NT-Xent form.

    For each head, its outputs of all views in one stack, L2-normalised, s_ab = z_a . z_b, tau_ab = `PairTemperature`:

        term(a, p) = -log( exp(s_ap / tau_ap) / (exp(s_ap / tau_ap) + sum_{b: not sample of a} exp(s_ab / tau_ab)) )
        reg        = mean over the pairs (a, p) and (a, b) above of (D / 2) log tau + 1 / tau
        loss       = sum over heads of [ mean over ordered positive pairs of term + beta reg ]

    The positive is in the denominator; nothing is detached; tau is not symmetric and has one MLP a head. The heads'
    outputs are those of head: {use: several}, as wide as z, which is not looked at itself.

    The form of the terms follows from putting the learned tau into the host loss: the authors' released code has no
    negatives in its loss and mixes up its shapes, and cannot be run as it stands. Defaults (beta, hidden, bounds of
    tau, three heads in their runs) are theirs. Large tau make terms small, small tau make them steep: reg, least at
    tau = 2 / D, keeps them in between.
    """

    def __init__(self, *, heads: list[str], dim: Dim, beta: float = 0.1, hidden: int = 128):
        super().__init__()
        if not heads or len(set(heads)) < len(heads):
            raise ComponentError(f"objective amcl: heads are different names, at least one; got {heads}")
        self.adaptive = NamedModules({name: PairTemperature(dim, hidden) for name in heads})
        self.dim, self.beta, self.hidden = dim, beta, hidden

    def needs(self) -> Needs:
        return Needs(pairs="all", batch=2, heads=frozenset(self.adaptive))

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        terms = [self._of_head(self._stack(outputs, name), tau) for name, tau in self.adaptive.items()]
        found = [term for term in terms if term is not None]
        if not found:
            return outputs.zero(), {}
        contrasts, regs = (sum(values) for values in zip(*found))
        return contrasts + self.beta * regs, {"contrast": contrasts.detach(), "regulariser": regs.detach()}

    def _stack(self, outputs: Outputs, name: str) -> Stack:
        views = [replace(e, z=normalize(self._head(e, name), dim=-1)) for e in outputs.views()]
        return stack_views(replace(outputs, student=views))

    def _head(self, e, name: str) -> Tensor:
        if not len(e.row):
            return e.z.new_zeros(0, self.dim)
        out = e.heads[name].to(e.z.dtype)
        if out.shape[1] != self.dim:
            raise ComponentError(
                f"objective amcl: head {name!r} of {e.modality!r} is {out.shape[1]} wide, z is {self.dim}; set one dim"
            )
        return out

    def _of_head(self, stack: Stack, tau: PairTemperature) -> tuple[Tensor, Tensor] | None:
        z, ids, (first, second) = stack
        if not len(first):
            return None
        a, p = torch.cat([first, second]), torch.cat([second, first])
        own = tau(z[a], z[p])  # (P,)
        block = lambda rows, mine, z, ids: self._block(tau, rows, mine, z, ids)  # noqa: E731
        negative, reg, seen = by_rows(block, (z, ids), (z, ids), (self.hidden + 6) * len(z))
        terms = contrast(negative[a], (z[a] * z[p]).sum(-1) / own)
        total = reg.sum() + self._reg(own).sum()
        return terms.mean(), total / (seen.sum() + len(own))

    def _block(self, tau: PairTemperature, rows: Tensor, mine: Tensor, z: Tensor, ids: Tensor) -> tuple[Tensor, ...]:
        """Of some rows: log-sum-exp over negatives, the sum of reg over them, and how many they are."""
        temperature = tau(rows[:, None], z)  # (n, R)
        out = mine[:, None] == ids
        logits = (rows @ z.T / temperature).masked_fill(out, lowest(z))
        return log_sum_exp(logits, 1), self._reg(temperature).masked_fill(out, 0.0).sum(1), (~out).sum(1)

    def _reg(self, temperature: Tensor) -> Tensor:
        return self.dim / 2 * temperature.log() + 1 / temperature
