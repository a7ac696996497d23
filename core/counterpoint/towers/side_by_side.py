"""The encoders of several stages as one: what each of them knows, side by side.

Dimensions: n rows, S stages, H_s and D_s width of h and z of stage s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from counterpoint.batch import Encoded, View
from counterpoint.modules import NamedModules
from counterpoint.towers.tower import Tower


class SideBySide(nn.Module):
    """h (n, sum_s H_s): the h of every part, L2-normalised, one after another, as in MCL (Zhang et al., 2024)."""

    def __init__(self, parts: Mapping[str, Tower]):
        super().__init__()
        self.parts = NamedModules(parts)
        self.width = sum(part.encoder.width for part in parts.values())

    def forward(self, data: Tensor, mask: Tensor | None = None, meta: dict[str, Any] | None = None) -> Tensor:
        view = View("", data, torch.arange(len(data), device=data.device), mask, meta=meta or {})
        return torch.cat([normalize(part.features(view).h, dim=-1) for part in self.parts.values()], dim=-1)


class Concatenated(Tower):
    """A tower of the towers of several stages: h and z are theirs, each L2-normalised, one after another.

    It has no tokens, maps or named heads. The cosine of two z is the mean of the stages' cosines.
    """

    def __init__(self, modality: str, parts: Mapping[str, Tower]):
        head = nn.Identity()
        head.dim = sum(part.dim for part in parts.values())
        super().__init__(modality, SideBySide(parts), head)

    def forward(self, view: View, number: int, later: bool = False) -> Encoded:
        seen = [part(view, number) for part in self.encoder.parts.values()]
        side_by_side = lambda name: torch.cat([normalize(getattr(e, name), dim=-1) for e in seen], dim=-1)  # noqa: E731
        whole = replace(seen[0], z=side_by_side("z"), h=side_by_side("h"), heads={}, layers=())
        return replace(whole, tokens=None, mask=None, map=None)
