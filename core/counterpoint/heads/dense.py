"""Heads that project an encoder's map place by place, for dense objectives.

Dimensions: n rows, C channels of the encoder's map, D width of the projected map and of z, K prototypes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d, normalize

from counterpoint.batch import Features
from counterpoint.errors import ComponentError
from counterpoint.markers import Head, MapWidth

POOLS = {1: adaptive_avg_pool1d, 2: adaptive_avg_pool2d, 3: adaptive_avg_pool3d}  # by the number of spatial axes


class Dense(nn.Module):
    """The projection head of PixPro (Xie et al., 2021, section 3.1): map (n, C, ...) -> (n, D, ...), place by place.

    `layers` linear maps of every place, a batch norm and ReLU between, for maps of one to three spatial axes. z (n, D) is
    the mean of the projected map, or what the head `instance` makes of h: PixPro's instance branch, for a second objective
    that looks at z. Its dim has to be the same. Raises ComponentError when it is not, and for an encoder without a map.

    grid: a map of more places a side is averaged to so many first (None: as it is). Dense objectives compare every place
    with every other, and the projected maps of the whole batch are held: 7 x 7 in the paper.
    """

    takes_features = True
    gives: tuple[str, ...] = ("map",)
    name, activation = "dense", nn.ReLU

    def __init__(
        self,
        *,
        map_width: MapWidth,
        dim: int = 256,
        hidden: int = 4096,
        layers: int = 2,
        batch_norm: bool = True,
        grid: int | None = None,
        instance: Head | None = None,
    ):
        super().__init__()
        if min(dim, hidden, layers, 1 if grid is None else grid) < 1:
            raise ComponentError(
                f"head {self.name!r}: dim, hidden, layers and grid are at least 1; got {dim}, {hidden}, {layers} and {grid}"
            )
        if instance is not None and instance.dim != dim:
            raise ComponentError(f"head {self.name!r}: instance makes {instance.dim} numbers; expected dim, {dim}")
        self.dim, self.grid, self.instance = dim, grid, instance
        self.stack = nn.Sequential()
        for layer in range(layers):
            before, last = hidden if layer else map_width, layer == layers - 1
            self.stack.append(nn.Conv1d(before, dim if last else hidden, 1))
            if not last:
                self.stack.extend([nn.BatchNorm1d(hidden)] * batch_norm + [self.activation()])

    def forward(self, features: Features) -> dict[str, Tensor]:
        if features.map is None:
            raise ComponentError(f"head {self.name!r}: the encoder gives no map; choose one that does, or another head")
        places = self._coarse(features.map)
        projected = self.stack(places.flatten(2))  # (n, D, places)
        z = projected.mean(2) if self.instance is None else self.instance(features.h)
        return {"z": z, "map": projected.unflatten(2, places.shape[2:])}

    def _coarse(self, places: Tensor) -> Tensor:
        """The map with at most `grid` places a side."""
        sizes = tuple(places.shape[2:])
        if len(sizes) not in POOLS:
            raise ComponentError(f"head {self.name!r}: maps have 1 to 3 spatial axes; got {tuple(places.shape)}")
        wanted = tuple(min(size, self.grid or size) for size in sizes)
        return places if wanted == sizes else POOLS[len(sizes)](places, wanted)


class Slots(Dense):
    """The projection head of SlotCon (Wen et al., 2022, section 3.1): a projected map, and its scores against prototypes.

    As `dense`, with GELU. For the projected map x (n, D, ...) and the prototypes c (K, D), L2-normalised over D both:

        scores_k = cos(c_k, x)      (n, K, ...), under the name `scores`

    Prototypes are part of the head, so that the momentum encoder has its average of them, as the authors' teacher has; all
    modalities of a recipe share them. K is about the number of kinds of things in the data (256 for COCO, 2048 ImageNet).
    """

    gives = ("map", "scores")
    shared = ("prototypes",)
    name, activation = "slots", nn.GELU

    def __init__(
        self,
        *,
        map_width: MapWidth,
        dim: int = 256,
        prototypes: int = 256,
        hidden: int = 4096,
        layers: int = 3,
        batch_norm: bool = True,
        grid: int | None = None,
        instance: Head | None = None,
    ):
        super().__init__(
            map_width=map_width,
            dim=dim,
            hidden=hidden,
            layers=layers,
            batch_norm=batch_norm,
            grid=grid,
            instance=instance,
        )
        if prototypes < 2:
            raise ComponentError(f"head 'slots': prototypes are at least 2; got {prototypes}")
        small_weights(self.stack)
        self.prototypes = nn.Parameter(torch.randn(prototypes, dim))

    def forward(self, features: Features) -> dict[str, Tensor]:
        out = super().forward(features)
        with torch.autocast(out["map"].device.type, enabled=False):
            x = normalize(out["map"].to(self.prototypes.dtype), dim=1, eps=1e-12)
            scores = torch.einsum("kd,nd...->nk...", normalize(self.prototypes, dim=1), x)
        return {**out, "scores": scores}


def small_weights(stack: nn.Module) -> None:
    """Linear maps begin with weights of standard deviation 0.02 and no bias, as in the heads of DINO."""
    for module in stack.modules():
        if isinstance(module, nn.Linear | nn.Conv1d):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
