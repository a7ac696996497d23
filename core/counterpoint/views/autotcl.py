"""AutoTCL's augmentation network: a mask and a transform of every series, learned beside the encoder.

Dimensions: n rows, C channels, L samples in time, D numbers of a token.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from counterpoint.batch import Encoded, Outputs, View
from counterpoint.errors import ComponentError
from counterpoint.kernels.pooling import max_over_time
from counterpoint.markers import Channels
from counterpoint.randomness import Draw
from counterpoint.views.generator import TrainableView
from counterpoint.views.series import lengths, real

BIAS, LOW, HIGH, THRESHOLD = 0.001, -0.05, 1.0, 0.4
WIDTH = 16  # numbers of a time step from which mask and transform are read
KEPT, CONSISTENCY = "kept", "consistency"  # what own_loss needs of every row, in the meta of the augmented view


class AutoTCL(TrainableView):
    """Parametric augmentation (Zheng et al., ICLR 2024): each view x, then v = g(x) * m * x, of role `augmented`.

    (n, C, L) -> (n, C, L) twice. A dilated convolutional network reads p = h(x) and g(x), each in (0, 1), at every time
    step, the same for all channels; m in {0, 1} is a hard-concrete sample (Louizos et al., ICLR 2018), u uniform in
    (0.001, 0.999) for every sample and step:

        soft = clip( (1.0 + 0.05) * sigmoid( logit(u) + logit(p) ) - 0.05, 0, 1 ),   m = [soft > 1/2]

    with the gradient of `soft` (straight through). It learns by the principle of relevant information, r_x and r_v being
    the maxima over time of the encoder's tokens (its h where tokens are not held):

        own loss = MMD^2(r_x, r_v) + sparsity * relu( mean p - 0.4 ) + consistency * mean_i c_i
        c_i = |p_t - p_t-1| + |p_t - p_t+1| + 1 - |p_t - p_s|        t random, s random of the steps that are not beside t

    MMD^2 is the biased estimate with a sum of five Gaussian kernels exp(-d^2 / w), w = 1/4, 1/2, 1, 2, 4 times the mean
    d^2 between two of all rows (without gradient). Padding has no part. The objective trains none of this network and
    the own loss none of the encoder, which is in evaluation mode for it: `TrainableView` says how. An evaluation sees x.

    hidden, depth           channels of the network, and its residual blocks of dilation 1, 2, 4, ...
    lr, every               its learning rate, and how many optimizer steps lie between two of its own
    sparsity, consistency   weights of the penalties
    hard                    False: v = g(x) * soft * x

    Departures from the authors' code: both losses are descended at once and on the same draw, not the network's first;
    logit(p) stands where their code has p itself, so that there every step is kept with a probability of 0.48 to 0.71;
    their c_i wants steps far ahead alike, and compares each sample at the steps of all; their network is the CoST
    encoder. Raises ComponentError for sizes or steps under 1 and weights or rates under 0.
    """

    def __init__(
        self,
        *,
        channels: Channels,
        hidden: int = 64,
        depth: int = 3,
        lr: float = 0.01,
        every: int = 1,
        sparsity: float = 0.001,
        consistency: float = 0.001,
        hard: bool = True,
    ):
        super().__init__()
        _check(1, hidden=hidden, depth=depth, every=every)
        _check(0, lr=lr, sparsity=sparsity, consistency=consistency)
        self.lr, self.every, self.hard = lr, every, hard
        self.sparsity, self.consistency = sparsity, consistency
        self.stem = nn.Conv1d(channels, hidden, 1)
        self.blocks = nn.ModuleList(nn.Conv1d(hidden, hidden, 3, padding=2**i, dilation=2**i) for i in range(depth))
        self.last = nn.Sequential(nn.GELU(), nn.Conv1d(hidden, WIDTH, 1), nn.Conv1d(WIDTH, 2, 1))

    def layout(self, roles: list[str]) -> list[str]:
        return [one for role in roles for one in ("global" if role == "raw" else role, "augmented")]

    def forward(self, view: View, draw: Draw) -> list[View]:
        h, g = self._network(view.data, view.mask)  # (n, L) each: logit of p, logit of the transform
        mask = self._mask(h, draw.positions(h.shape[1]).to(h.dtype))
        data = view.data * (torch.sigmoid(g) * mask).to(view.data.dtype)[:, None]
        meta = view.meta | self._penalties(torch.sigmoid(h), lengths(view.data, view.mask), draw)
        role = "global" if view.role == "raw" else view.role
        return [view.replace(role=role), view.replace(role="augmented", data=data, meta=meta)]

    def _network(self, data: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        x = self.stem(real(data, mask).to(self.stem.weight.dtype))  # (n, hidden, L)
        for block in self.blocks:
            x = x + block(real(torch.nn.functional.gelu(x), mask))
        return self.last(x).unbind(1)

    def _mask(self, h: Tensor, u: Tensor) -> Tensor:
        u = BIAS + (1 - 2 * BIAS) * u
        soft = (torch.sigmoid(torch.logit(u) + h) * (HIGH - LOW) + LOW).clamp(0.0, 1.0)
        return (soft > 0.5).to(soft) + soft - soft.detach() if self.hard else soft

    @staticmethod
    def _penalties(p: Tensor, length: Tensor, draw: Draw) -> dict[str, Tensor]:
        """Of every row (n,): the mean of p (n, L) over its real steps, and c_i."""
        there = torch.arange(p.shape[1], device=p.device) < length[:, None]
        last = (length - 1).clamp(min=0)
        t = torch.minimum(1 + (draw.uniform() * (length - 2).clamp(min=0)).long(), last)
        far = (t + 2 + (draw.uniform() * (length - 3).clamp(min=0)).long()) % length.clamp(min=1)
        at = lambda step: p.gather(1, step[:, None])[:, 0]  # noqa: E731
        beside = (at(t) - at((t - 1).clamp(min=0))).abs() + (at(t) - at(torch.minimum(t + 1, last))).abs()
        apart = torch.where(length > 3, 1 - (at(t) - at(far)).abs(), 0.0)
        return {KEPT: (p * there).sum(1) / length.clamp(min=1), CONSISTENCY: beside + apart}

    def own_loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        views = outputs.student
        pairs = [(x, v) for x, v in pairwise(views) if KEPT in v.meta and KEPT not in x.meta]
        if not pairs:
            raise ComponentError("view autotcl: steps after it must leave its two views side by side, with their meta")
        distance = sum(mmd(_pooled(x), _pooled(v)) for x, v in pairs) / len(pairs)
        kept = torch.cat([v.meta[KEPT] for _, v in pairs]).mean()
        consistency = torch.cat([v.meta[CONSISTENCY] for _, v in pairs]).mean()
        loss = distance + self.sparsity * relu(kept - THRESHOLD) + self.consistency * consistency
        return loss, {"mmd": distance.detach(), "kept": kept.detach()}


def _check(least: int, **values: float) -> None:
    for name, value in values.items():
        if not value >= least:
            raise ComponentError(f"view autotcl: {name} is {least} or more; got {value}")


def _pooled(e: Encoded) -> Tensor:
    return (e.h if e.tokens is None else max_over_time(e.tokens, e.mask)).to(e.z.dtype)


def mmd(x: Tensor, v: Tensor) -> Tensor:
    """The squared maximum mean discrepancy between the rows of x and v (n, D); memory for (2n, 2n) distances."""
    n, both = len(x), torch.cat([x, v])
    square = both.square().sum(1)
    distance = (square[:, None] + square - 2 * both @ both.T).clamp(min=0)
    mean = distance.detach().sum() / (len(both) * (len(both) - 1))
    width = (mean / 4).clamp(min=torch.finfo(both.dtype).tiny * 1e6)
    kernel = sum(torch.exp(-distance / (width * 2**i)) for i in range(5))
    return (kernel[:n, :n] + kernel[n:, n:] - kernel[:n, n:] - kernel[n:, :n]).mean()
