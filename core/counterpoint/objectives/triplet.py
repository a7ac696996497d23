"""The triplet loss: a positive nearer than a negative, by a margin.

Dimensions: R rows of all views, n of them at a time, D width of z.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from counterpoint.batch import Outputs
from counterpoint.errors import ComponentError
from counterpoint.kernels.by_rows import by_rows
from counterpoint.objectives.mechanisms.rows import classes
from counterpoint.objectives.objective import Needs, Objective


class Triplet(Objective):
    """FaceNet's triplet loss (Schroff et al., CVPR 2015, section 3.1) over all rows of all views.

    z L2-normalised, d(a, b) = |z_a - z_b|^2. Of an anchor a, positives p are the other rows of its class, negatives n all
    rows of other classes; h(a, p, n) = max(0, d(a, p) - d(a, n) + margin).

        semi_hard  mean over (a, p) of h(a, p, n), n the nearest with d(a, n) > d(a, p); 0 where there is none (section 3.2)
        hard       mean over a of h(a, p, n), p the farthest positive, n the nearest negative (Hermans et al., 2017, eq. 5,
                   with squared distances)
        all        mean over all (a, p, n) of h

    The mean is over anchors that have a positive and a negative, those whose h is 0 included. Nothing is detached but the
    choice of n and p. A class is a sample, or what one of `label` and `group` names; -1 matches its own sample only.
    Tables of distances are made some rows at a time. The margin is the paper's.
    """

    def __init__(
        self,
        *,
        margin: float = 0.2,
        negatives: Literal["semi_hard", "hard", "all"] = "semi_hard",
        label: str | None = None,
        group: str | None = None,
    ):
        super().__init__()
        if label is not None and group is not None:
            raise ComponentError(f"objective triplet: one of `label` and `group` at most; got {label} and {group}")
        if not margin > 0:
            raise ComponentError(f"objective triplet: a margin is positive; got {margin}")
        self.margin, self.negatives, self.label, self.group = margin, negatives, label, group

    def needs(self) -> Needs:
        groups, labels = (frozenset({name} if name else ()) for name in (self.group, self.label))
        return Needs(pairs=None if groups or labels else "all", batch=2, groups=groups, labels=labels)

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        views = outputs.views()
        z, who = torch.cat([e.z for e in views]), classes("triplet", outputs, views, self.label, self.group)
        if not len(z):
            return outputs.zero(), {}
        place = torch.arange(len(z), device=z.device)
        block = {"semi_hard": self._semi_hard, "hard": self._hard, "all": self._all}[self.negatives]
        found, counts = by_rows(block, (z, who, place), (z, who), 8 * len(z))
        if not counts.sum():
            return outputs.zero(), {}
        return found.sum() / counts.sum(), {}

    def _hard(self, *rows: Tensor) -> tuple[Tensor, Tensor]:
        distance, positive, negative = _distances(*rows)
        farthest = distance.masked_fill(~positive, -torch.inf).amax(1)
        nearest = distance.masked_fill(~negative, torch.inf).amin(1)
        return (farthest - nearest + self.margin).clamp(min=0), _known(positive, negative).any(1)

    def _semi_hard(self, *rows: Tensor) -> tuple[Tensor, Tensor]:
        distance, positive, negative = _distances(*rows)
        ranked = _ranked(distance, negative)
        after = torch.searchsorted(ranked.detach(), distance.detach(), right=True).clamp(max=len(ranked.T) - 1)
        terms = (distance - ranked.gather(1, after) + self.margin).clamp(min=0)  # 0 where no negative is farther
        further = ranked.gather(1, after) > distance  # not where the last of them is the nearest of none
        known = _known(positive, negative)
        return torch.where(known & further, terms, 0.0).sum(1), known.sum(1)

    def _all(self, *rows: Tensor) -> tuple[Tensor, Tensor]:
        """Sums over negatives from running sums of their ranked distances."""
        distance, positive, negative = _distances(*rows)
        ranked = _ranked(distance, negative)
        within = distance + self.margin
        closer = torch.searchsorted(ranked.detach(), within.detach().contiguous())  # (n, R): negatives that cost
        sums = torch.nn.functional.pad(ranked.masked_fill(ranked.isinf(), 0.0).cumsum(1), (1, 0))
        terms = closer * within - sums.gather(1, closer)
        known = _known(positive, negative)
        return torch.where(known, terms, 0.0).sum(1), known.sum(1) * negative.sum(1)


def _distances(z: Tensor, who: Tensor, place: Tensor, all_z: Tensor, all_who: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Squared distances (n, R), and which of the rows are positives and negatives of each, bool (n, R)."""
    same = who[:, None] == all_who
    own = place[:, None] == torch.arange(len(all_z), device=z.device)
    distance = z.square().sum(-1, keepdim=True) + all_z.square().sum(-1) - 2 * z @ all_z.T
    return distance, same & ~own, ~same


def _ranked(distance: Tensor, negative: Tensor) -> Tensor:
    """The distances of the negatives of each row (n, R), nearest first, then infinity."""
    return distance.masked_fill(~negative, torch.inf).sort(1).values


def _known(positive: Tensor, negative: Tensor) -> Tensor:
    """bool (n, R): the positives of anchors that have a negative, too."""
    return positive & negative.any(1, keepdim=True)
