"""View generators. Dimensions: n rows, C channels, L samples in time."""

import torch
from torch import Tensor

from counterpoint.batch import View
from counterpoint.markers import Rate
from counterpoint.randomness import Draw
from counterpoint.views.generator import Augmentation, ViewGenerator
from counterpoint.views.place import PLACE, moved


class Jitter(Augmentation):
    """Noise for every sample, and a shift of up to `seconds`."""

    def __init__(self, *, rate: Rate, sigma: float = 0.1, seconds: float = 0.5, p: float = 1.0):
        super().__init__(p=p)
        self.sigma, self.reach = sigma, int(seconds * rate)

    def augment(self, data: Tensor, mask: Tensor | None, draw: Draw) -> Tensor:
        length = data.shape[-1]
        shift = draw.integers(0, self.reach + 1, 1)  # (n, 1)
        index = (torch.arange(length, device=data.device) - shift) % length
        noise = self.sigma * draw.normal(*data.shape[1:])
        return (data.gather(-1, index[:, None].expand_as(data)) + noise).to(data.dtype)


class Halves(ViewGenerator):
    """Two views: one half of the series each, drawn for each sample; where it was is recorded."""

    records = frozenset({PLACE})

    def layout(self, roles: list[str]) -> list[str]:
        return ["local"] * (2 * len(roles))

    def forward(self, view: View, draw: Draw) -> list[View]:
        return [self._half(view, draw.chance(0.5)) for _ in range(2)]

    def _half(self, view: View, right: Tensor) -> View:
        left, other = view.data[..., : view.data.shape[-1] // 2], view.data[..., -(view.data.shape[-1] // 2) :]
        share = torch.full((len(view), 1), 0.5, device=right.device)
        data = torch.where(right.view(-1, *[1] * (view.data.ndim - 1)), other, left)
        return view.replace(data=data, role="local", meta=moved(view, share, 0.5 * right[:, None]))


class Scale(ViewGenerator):
    """Each series divided by its largest absolute value, in evaluation as in training."""

    def forward(self, view: View, draw: Draw) -> View:
        return self.prepare(view)

    def prepare(self, view: View) -> View:
        top = view.data.abs().flatten(1).amax(1).clamp(min=1e-6)
        return view.replace(data=view.data / top.view(-1, *[1] * (view.data.ndim - 1)))
