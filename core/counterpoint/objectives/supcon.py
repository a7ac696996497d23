"""Supervised contrast: positives share a label or a group."""

from __future__ import annotations

import torch
from torch import Tensor

from counterpoint.batch import Outputs
from counterpoint.errors import ComponentError
from counterpoint.kernels import Grouped, info_nce
from counterpoint.objectives.mechanisms.rows import classes
from counterpoint.objectives.objective import Needs, Objective


class SupCon(Objective):
    """Supervised contrastive learning (Khosla et al., 2020, eq. 2, L_out).

    All R rows of all views are stacked, L2-normalised, l_ab = z_a . z_b / temperature. P(a): rows of the anchor's
    class other than a itself, of any view.

        term(a) = -1/|P(a)| sum_{p in P(a)} log( exp(l_ap) / sum_{b != a} exp(l_ab) )
        loss    = mean over the R anchors of term(a)

    Positives are in the denominator; nothing is detached. An anchor without a positive contributes 0 and stays in the
    mean. A sample of unknown class (-1) matches only its own rows. Exactly one of `label` and `group` names the class.

    base_temperature  not None: the loss is multiplied by temperature / base_temperature, as the authors' code does
                      (with 0.07); the paper's eq. 2 has no such factor

    The default temperature is that of the paper's ImageNet runs (section 4, training details).
    """

    def __init__(
        self,
        *,
        label: str | None = None,
        group: str | None = None,
        temperature: float = 0.1,
        base_temperature: float | None = None,
    ):
        super().__init__()
        if (label is None) == (group is None):
            got = "neither" if label is None else f"label: {label} and group: {group}"
            raise ComponentError(f"objective supcon: expected one of `label` and `group`, the class; got {got}")
        if temperature <= 0:
            raise ComponentError(f"objective supcon: a temperature is positive; got {temperature}")
        self.label, self.group, self.temperature = label, group, temperature
        self.factor = 1.0 if base_temperature is None else temperature / base_temperature

    def needs(self) -> Needs:
        names = [frozenset({name} if name else ()) for name in (self.group, self.label)]
        return Needs(batch=2, groups=names[0], labels=names[1])

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        views = outputs.views()
        z, who = torch.cat([e.z for e in views]), classes("supcon", outputs, views, self.label, self.group)
        own = torch.arange(len(z), device=z.device)
        return self.factor * info_nce(z, z, self.temperature, positives=Grouped(who, who), exclude=(own, own)), {}
