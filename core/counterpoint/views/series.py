"""What view generators of series share: real lengths, deviations, gathering, interpolation and smooth curves.

Dimensions: n rows, C channels (leads), L samples in time, K knots. A row that is padded keeps its padding at the end.
"""

from __future__ import annotations

import torch
from torch import Tensor

from counterpoint.randomness import Draw


def lengths(data: Tensor, mask: Tensor | None) -> Tensor:
    """int64 (n,): real samples of every row of `data` (n, C, L)."""
    if mask is None:
        return torch.full((len(data),), data.shape[-1], device=data.device)
    return mask.sum(1)


def real(data: Tensor, mask: Tensor | None) -> Tensor:
    """`data` (n, C, L) with padded samples set to zero."""
    return data if mask is None else data.masked_fill(~mask[:, None], 0)


def deviation(data: Tensor, mask: Tensor | None) -> Tensor:
    """(n, C, 1): standard deviation of the real samples of every row and channel."""
    count = lengths(data, mask).clamp(min=1)[:, None, None]
    mean = real(data, mask).sum(-1, keepdim=True) / count
    centred = real(data - mean, mask)
    return torch.linalg.vector_norm(centred, dim=-1, keepdim=True) / count.sqrt()  # 10 times faster than torch.std


def clock(data: Tensor) -> Tensor:
    """int64 (1, L): the samples in order."""
    return torch.arange(data.shape[-1], device=data.device)[None]


def take(data: Tensor, index: Tensor) -> Tensor:
    """(n, C, W): the samples `index` (n, W) of every channel of `data` (n, C, L)."""
    return data.gather(2, index[:, None].expand(-1, data.shape[1], -1))


def interpolate(data: Tensor, position: Tensor) -> Tensor:
    """(n, C, W): `data` (n, C, L) at the fractional samples `position` (n, 1 or C, W), linearly."""
    last, channels = data.shape[-1] - 1, data.shape[1]
    position = position.clamp(0, last)
    left = position.long()
    part = (position - left).to(data.dtype)
    right = (left + 1).clamp_(max=last).expand(-1, channels, -1)  # expanded last: the arithmetic is once for all leads
    return data.gather(2, left.expand(-1, channels, -1)).lerp_(data.gather(2, right), part)


def uniform_start(room: Tensor, draw: Draw) -> Tensor:
    """int64 (n,): a start in 0..room, uniform, for every row."""
    return torch.minimum((draw.uniform() * (room + 1)).long(), room)


def smooth(knots: Tensor, phase: Tensor) -> Tensor:
    """(n, C, L): at `phase` (1 or n, L) in [0, 1], the cubic curve through `knots` (n, C, K), evenly spaced.

    A Catmull-Rom spline whose ends go on straight: no system of equations to solve, as the natural spline has.
    """
    basis = _catmull_rom(phase.to(knots.dtype), knots.shape[-1])  # (1 or n, K, L)
    curve = knots[..., 0, None] * basis[:, None, 0]
    for k in range(1, knots.shape[-1]):  # unlike a matrix product, its rounding does not depend on the batch
        curve.addcmul_(knots[..., k, None], basis[:, None, k])
    return curve


def _catmull_rom(phase: Tensor, knots: int) -> Tensor:
    """(m, K, L): the weight of every knot at `phase` (m, L)."""
    place = phase * (knots - 1)
    left = place.long().clamp(0, knots - 2)
    t = place - left
    weights = torch.stack(
        [
            -0.5 * t**3 + t**2 - 0.5 * t,
            1.5 * t**3 - 2.5 * t**2 + 1.0,
            -1.5 * t**3 + 2.0 * t**2 + 0.5 * t,
            0.5 * t**3 - 0.5 * t**2,
        ],
        dim=1,
    )  # (m, 4, L): of the knots left - 1 .. left + 2
    around = left[:, None] + torch.arange(4, device=phase.device)[:, None]
    wide = weights.new_zeros(len(phase), knots + 2, phase.shape[1]).scatter_(1, around, weights)
    before, basis, after = wide[:, 0], wide[:, 1:-1].clone(), wide[:, -1]
    basis[:, 0] += 2 * before  # the knot before the first is 2 * first - second
    basis[:, 1] -= before
    basis[:, -1] += 2 * after
    basis[:, -2] -= after
    return basis


def phases(data: Tensor, mask: Tensor | None) -> Tensor:
    """float32 (1 or n, L): place of every sample between the first (0) and the last real one (1) of its row."""
    last = (lengths(data[:1] if mask is None else data, mask) - 1).clamp(min=1)
    return (clock(data) / last[:, None]).clamp(max=1.0)
