"""A tower: the encoder and head of one modality."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from functools import cache

import torch
from torch import nn

from counterpoint.batch import Encoded, Features, View, replace

_BatchNorm = nn.modules.batchnorm._BatchNorm


def takes_mask(encoder: nn.Module) -> bool:
    """Whether `encoder(data, mask)` is how it wants to be called."""
    return "mask" in _parameters(encoder)


def takes_meta(encoder: nn.Module) -> bool:
    """Whether `encoder(data, ..., meta=view.meta)` is how it wants to be called."""
    return "meta" in _parameters(encoder)


def _parameters(encoder: nn.Module) -> frozenset[str]:
    return _names(getattr(encoder.forward, "__func__", encoder.forward))


@cache
def _names(function: Callable) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)


def encode(encoder: nn.Module, view: View) -> Features:
    """What an encoder makes of a view: it gets the mask and the meta that its `forward` has a parameter for."""
    masks = [view.mask] if view.mask is not None and takes_mask(encoder) else []
    made = encoder(view.data, *masks, **({"meta": view.meta} if takes_meta(encoder) else {}))
    return made if isinstance(made, Features) else Features(made)


class Tower(nn.Module):
    """Encoder then head: a View becomes an Encoded, with z in float32 whatever the precision of the encoder.

    A head is called with h, or with the encoder's Features when its class has `takes_features = True`. It returns z, or
    a dict with z: `tokens`, `mask` and `map` in it take the place of the encoder's, other names go to `Encoded.heads`. What it
    returns beside z stands in its attribute `gives`. A head whose class has `whole_batch = True` looks at the rows of a
    view together; the loop calls it later, by `project`, on the view of the whole batch.

    A part of it without any trainable parameter stays in evaluation mode, so that a frozen encoder's dropout and batch
    statistics do not move. A view of one row uses running batch statistics, since one row has none.
    """

    def __init__(self, modality: str, encoder: nn.Module, head: nn.Module):
        super().__init__()
        self.modality, self.encoder, self.head = modality, encoder, head

    @property
    def dim(self) -> int:
        return self.head.dim

    @property
    def whole_batch(self) -> bool:
        return getattr(self.head, "whole_batch", False)

    def forward(self, view: View, number: int, later: bool = False) -> Encoded:
        """The Encoded of a view; `later` leaves a head that wants the whole batch to `project`, z being (n, 1) till then."""
        with _running_statistics(self) if self.training and len(view) == 1 else nullcontext():
            h, tokens, mask, map, layers = self.features(view)
            z = _precise(h[:, :1]) if later and self.whole_batch else h
            encoded = Encoded(
                self.modality, view.role, number, view.row, z, h, tokens, mask, map, meta=view.meta, layers=layers
            )
            return encoded if z is not h else self.project(encoded)

    def project(self, e: Encoded) -> Encoded:
        """What the head makes of h and tokens, in the place of z."""
        features = Features(e.h, e.tokens, e.mask, e.map, e.layers)
        out = self.head(features if getattr(self.head, "takes_features", False) else e.h)
        named = dict(out) if isinstance(out, dict) else {"z": out}
        z = _precise(named.pop("z"))
        instead = {name: named.pop(name) for name in ("tokens", "mask", "map") if name in named}
        return replace(e, z=z, heads=named, **instead)

    def features(self, view: View) -> Features:
        """What the encoder makes of a view; h is (n, H)."""
        return encode(self.encoder, view)

    def absent(self, roles: list[str], row: torch.Tensor, first: int) -> list[Encoded]:
        """Embeddings of no row, connected to every trainable parameter: for a batch without this modality.

        They are as `forward` leaves them for `later`.
        """
        zero = sum(p.sum() * 0.0 for p in self.parameters() if p.requires_grad)
        z = torch.zeros(0, 1 if self.whole_batch else self.dim, device=row.device) + zero
        h = z.new_zeros(0, self.encoder.width)
        return [Encoded(self.modality, role, first + i, row, z, h) for i, role in enumerate(roles)]

    def train(self, mode: bool = True) -> Tower:
        super().train(mode)
        for module in resting(self):
            module.training = False
        return self

    def has_batch_statistics(self) -> bool:
        return any(isinstance(m, _BatchNorm) for m in self.modules())


def _precise(z: torch.Tensor) -> torch.Tensor:
    return z if z.dtype == torch.float64 else z.float()


def resting(tower: nn.Module) -> set[nn.Module]:
    """The parts of a tower without any trainable parameter, with everything in them."""
    found: set[nn.Module] = set()
    for module in tower.modules():
        parameters = list(module.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            found.update(module.modules())
    return found


@contextmanager
def _running_statistics(tower: nn.Module):
    changed = [m for m in tower.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    for module in changed:
        module.training = False
    try:
        yield
    finally:
        for module in changed:
            module.training = True


@contextmanager
def batch_statistics_kept(tower: nn.Module):
    """Recompute a forward pass without counting its batch a second time in the running statistics."""
    layers = [m for m in tower.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    before = [(m.momentum, m.num_batches_tracked.clone()) for m in layers]
    for module in layers:
        module.momentum = 0.0
    try:
        yield
    finally:
        for module, (momentum, tracked) in zip(layers, before):
            module.momentum = momentum
            module.num_batches_tracked.copy_(tracked)
