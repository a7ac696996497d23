"""Mixtures of samples: each row of a batch blended with a partner's."""

from __future__ import annotations

import torch
from torch import Tensor

from counterpoint.batch import MIXED, NEGATIVE, View
from counterpoint.errors import ComponentError
from counterpoint.randomness import Draw
from counterpoint.views.generator import ViewGenerator


class Mix(ViewGenerator):
    """Each View, and a second one of its mixtures: share * x + (1 - share) * x of a partner, of role `mixed`.

    data (n, ...) of numbers -> the same, and (n, ...). share ~ Beta(alpha, alpha) with probability `p`, else 1. The
    partner of a row is another row of the same batch (of the same micro-batch, where there are several), each row being
    a partner once. meta of the mixtures: `partner` int64 (n,), its position in the data set, and `share` float32 (n,).
    A position is real in a mixture where it is in either row. A batch of one row is left as it is.

    Other objectives take the mixtures for one more view of their first sample. Negatives are not mixed.

    Source: Kim et al., "MixCo", 2020, section 2; the defaults are those of M3CoL (Kumar et al., 2024).
    """

    def __init__(self, *, alpha: float = 0.15, p: float = 0.5):
        super().__init__()
        if alpha <= 0 or not 0 <= p <= 1:
            raise ComponentError(f"view 'mix': alpha is positive and p a probability in [0, 1]; got {alpha} and {p}")
        self.alpha, self.p = alpha, p

    def layout(self, roles: list[str]) -> list[str]:
        return [made for role in roles for made in ([role] if role == NEGATIVE else [_kept(role), MIXED])]

    def forward(self, view: View, draw: Draw) -> list[View]:
        if view.role == NEGATIVE:
            return [view]
        if not view.data.is_floating_point():
            raise ComponentError(
                f"view 'mix': {view.modality!r} holds {view.data.dtype}, which has no mixtures; "
                "put a step before it that makes numbers of it"
            )
        if "part" in view.meta:
            raise ComponentError(f"view 'mix': {view.modality!r} has several rows a sample; mix goes with one")
        return [view.replace(role=_kept(view.role)), self._mixed(view, draw)]

    def _mixed(self, view: View, draw: Draw) -> View:
        partner = _next_in_a_random_order(draw)
        share = torch.where(draw.chance(self.p), draw.beta(self.alpha, self.alpha), 1.0)
        share = share.masked_fill(partner == torch.arange(len(view), device=partner.device), 1.0)
        weight = share.to(view.data.dtype).view(-1, *[1] * (view.data.ndim - 1))
        mask = None if view.mask is None else view.mask | (view.mask[partner] & (share < 1)[:, None])
        return view.replace(
            data=torch.lerp(view.data[partner], view.data, weight),
            mask=mask,
            role=MIXED,
            meta=view.meta | {"partner": draw.ids[partner], "share": share},
        )


def _kept(role: str) -> str:
    return "global" if role == "raw" else role


def _next_in_a_random_order(draw: Draw) -> Tensor:
    """int64 (n,): the row after each in an order that depends on the samples alone; with two rows never itself."""
    order = torch.argsort(draw.uniform(), stable=True)
    return torch.empty_like(order).scatter_(0, order, order.roll(-1))
