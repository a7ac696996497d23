"""SupReMix: contrast by continuous labels, with mixtures of embeddings as hard negatives and hard positives."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from counterpoint.batch import Outputs
from counterpoint.errors import ComponentError
from counterpoint.kernels.reference import log_sum_exp
from counterpoint.objectives.mechanisms.rows import stack_views
from counterpoint.objectives.objective import Needs, Objective
from counterpoint.randomness import Draw, key, splitmix64


class Rows(NamedTuple):
    """R rows with a known label, by label: z (R, D), fixed: z without gradient, y (R,), ids int64 (R,): of sample and view."""

    z: Tensor
    fixed: Tensor
    y: Tensor
    ids: Tensor


class SupReMix(Objective):
    """SupReMix (Wu et al., 2023, "Mixup Your Own Pairs"), for labels that are values.

    All R rows of all views, L2-normalised, with labels y; s_ab = z_a . z_b / temperature. An anchor i has as candidates

        the other rows k                                           positives where y_k = y_i
        mixtures with the anchor, share z_i + (1 - share) z_k      for all k with y_k != y_i; negatives; share ~ Beta(2, 8)
        mixtures without it, share z_j + (1 - share) z_k           for all j, k with y_j < y_i < y_k, both less than `window`
                                                                   from y_i; positives; share puts the label at y_i

        term(i) = -1/|P(i)| sum_{p in P(i)} log( exp(s_ip) / sum_c w_ic exp(s_ic) )
        loss    = mean over the R anchors of term(i)

    Positives are in the denominator; w_ic = |y_i - y_c| + 1, y_c the mixed label of a mixture, pushes far labels harder
    (the paper's distance magnifying; positives have w = 1). All mixtures are detached, so that the gradient of their
    terms reaches the anchor alone, and are not normalised again. An anchor without positives contributes 0 and stays in
    the mean. A row of unknown label (NaN, or -1 of a class) takes no part. Shares are drawn for every (anchor, k) and do
    not depend on the order of the batch.

    A mixture's logit is the mixture of two logits, so no mixture is ever made. Time grows with R times the pairs (j, k) in
    a window, R^3 where the window holds all labels; memory with R^2. The authors' code shifts the logits of rows and of
    mixtures by maxima of their own before it adds their exponentials, which is another function; the formula is used.

    window     in units of the label; the authors' 5 are years
    magnify    False: w = 1
    shape      of the beta distribution of shares

    Drawn: shares (R, R) in [0, 1], of anchor i (first) in its mixture with k, rows of all views one after the other.
    """

    draws = ("shares",)

    CHUNK = 4 * 1024 * 1024  # mixtures whose logits are held at a time

    def __init__(
        self,
        *,
        label: str,
        temperature: float = 0.3,
        window: float = 5.0,
        magnify: bool = True,
        shape: tuple[float, float] = (2.0, 8.0),
    ):
        super().__init__()
        if temperature <= 0 or len(shape) != 2 or min(shape) <= 0:
            raise ComponentError(
                f"objective supremix: temperature and the two of shape are positive; got {temperature} and {shape}"
            )
        self.label, self.temperature, self.window = label, temperature, window
        self.magnify, self.shape = magnify, tuple(shape)

    def needs(self) -> Needs:
        return Needs(pairs="all", batch=2, labels=frozenset({self.label}))

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        seed, (rows, place) = outputs.seed(), self._rows(outputs)
        given = self._given(outputs, place)
        reach = self._reach(rows.y)
        size = max(1, self.CHUNK // max(1, len(rows.y), reach[0] * reach[1]))
        chunks = [slice(start, start + size) for start in range(0, len(rows.y), size)]
        if len(chunks) == 1:
            return self._terms(*rows, chunks[0], reach, seed, given).mean(), {}
        again = {"use_reentrant": False, "preserve_rng_state": False}
        terms = [checkpoint(self._terms, *rows, chunk, reach, seed, given, **again) for chunk in chunks]
        return torch.cat(terms).mean() if terms else outputs.zero(), {}

    def _reach(self, y: Tensor) -> tuple[int, int]:
        """How many rows at most are within the window below an anchor, and above one."""
        gap = y - y[:, None]
        return tuple(int(near.sum(1).max()) if len(y) else 0 for near in self._near(gap))

    def _near(self, gap: Tensor) -> tuple[Tensor, Tensor]:
        return (gap < 0) & (gap > -self.window), (gap > 0) & (gap < self.window)

    @staticmethod
    def _given(outputs: Outputs, place: Tensor) -> Tensor | None:
        """(R, R) by label: the shares that were given, if any."""
        if "shares" not in outputs.draws:
            return None
        whole = sum(len(e.row) for e in outputs.views())
        return outputs.drawn("shares", (whole, whole), lambda: place)[place][:, place]

    def _rows(self, outputs: Outputs) -> tuple[Rows, Tensor]:
        """The rows, and the place int64 (R,) of each among all rows of all views."""
        z, index, _ = stack_views(outputs)
        views = outputs.views()
        labels = outputs.batch.labels[self.label][torch.cat([e.row for e in views])]
        number = torch.cat([torch.full_like(e.row, e.view) for e in views])
        known = labels.isfinite() if labels.is_floating_point() else labels >= 0
        y, order = labels[known].to(z.dtype).sort(stable=True)
        z = z[known][order]
        rows = Rows(z, z.detach(), y, (splitmix64(index) + number)[known][order])
        return rows, known.nonzero()[:, 0][order]

    def _terms(
        self, z: Tensor, fixed: Tensor, y: Tensor, ids: Tensor, chunk: slice, reach, seed: int, given: Tensor | None
    ) -> Tensor:
        """(A,): the terms of some anchors."""
        anchor, at = z[chunk] / self.temperature, torch.arange(len(y), device=y.device)[chunk]
        gap = y - y[chunk, None]  # (A, R)
        logits, still = anchor @ z.T, anchor @ fixed.T  # (A, R), with and without a gradient to the second
        others = torch.arange(len(y), device=y.device) != at[:, None]
        share = (self._shares(ids, chunk, seed) if given is None else given[chunk]).to(z.dtype)
        with_anchor = share * still.gather(1, at[:, None]) + (1 - share) * still
        between, inside = self._between(still, gap, reach)  # (A, pairs)
        candidates = [
            _line(logits + self._push(gap), others),
            _line(with_anchor + self._push((1 - share) * gap), gap != 0),
            _line(between, inside),
        ]
        same = others & (gap == 0)
        total = (logits * same).sum(1) + between.where(inside, 0.0).sum(1)
        count = same.sum(1) + inside.sum(1)
        term = log_sum_exp(torch.stack(candidates, 1), 1) - total / count.clamp(min=1)
        return torch.where(count > 0, term.masked_fill(count == 0, 0.0), 0.0)

    def _push(self, gap: Tensor) -> Tensor | float:
        return torch.log1p(gap.abs()) if self.magnify else 0.0

    def _shares(self, ids: Tensor, chunk: slice, seed: int) -> Tensor:
        """(A, R): what is drawn for each (anchor, row)."""
        pairs = splitmix64(splitmix64(ids[chunk])[:, None] + ids)
        return Draw(key("supremix", seed), pairs.flatten()).beta(*self.shape).view_as(pairs)

    def _between(self, still: Tensor, gap: Tensor, reach: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """(A, pairs): logits of the mixtures of rows j and k around the anchor, and which of them there are.

        Rows are in the order of their labels: those below an anchor stand right before its equals, those above behind.
        """
        device, (below, above) = gap.device, self._near(gap)
        j = (gap < 0).sum(1, keepdim=True) - 1 - torch.arange(reach[0], device=device)
        k = (gap <= 0).sum(1, keepdim=True) + torch.arange(reach[1], device=device)
        (low, s_low, is_low), (high, s_high, is_high) = (
            [table.gather(1, place.clamp(0, gap.shape[1] - 1)) for table in (gap, still, near)]
            for place, near in ((j, below), (k, above))
        )
        is_low, is_high = is_low & (j >= 0), is_high & (k < gap.shape[1])
        inside = is_low[:, :, None] & is_high[:, None, :]
        share = high[:, None, :] / torch.where(inside, high[:, None, :] - low[:, :, None], 1.0)  # of j
        mixed = share * s_low[:, :, None] + (1 - share) * s_high[:, None, :]
        return mixed.flatten(1), inside.flatten(1)


def _line(logits: Tensor, there: Tensor) -> Tensor:
    return log_sum_exp(logits.masked_fill(~there, -torch.inf), 1)
