"""Random numbers that are a pure function of a seed and of where they are used; nothing random is stored.

Sample order = f(seed, epoch); randomness in a worker = f(seed, epoch, index); a view of a sample = f(seed, step, view,
index); dropout = f(seed, step, rank, chunk); an objective's own = f(seed, step). Step counts batches.
"""

from __future__ import annotations

import hashlib
import math
import random
from functools import cache

import numpy as np
import torch
from torch import Tensor

_MASK = (1 << 64) - 1


def key(*parts: int | str) -> int:
    """A 63-bit integer that depends on every part and on their order."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "big") >> 1


def seed_host(value: int) -> None:
    """Seed python, numpy and torch's generator on the host from one 63-bit integer."""
    random.seed(value)
    np.random.seed(value & 0xFFFFFFFF)
    torch.default_generator.manual_seed(value)


def seed_all(value: int) -> None:
    """Seed python, numpy and torch (every device) from one 63-bit integer.

    `torch.manual_seed` costs 80 times as much as the generators: it formats a traceback for every absent device.
    """
    seed_host(value)
    if (seed := _accelerator_seed()) is not None:
        seed(value)


@cache
def _accelerator_seed():
    if not torch.accelerator.is_available():
        return None
    device = torch.get_device_module()
    return getattr(device, "manual_seed_all", None) or device.manual_seed


def _signed(value: int) -> int:
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def _shift(x: Tensor, bits: int) -> Tensor:
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


_HOST = 1 << 17  # numbers up to which numpy hashes on the host: it has unsigned shifts, and starts 10 times as fast


def splitmix64(x: Tensor) -> Tensor:
    """The SplitMix64 finaliser (Steele, Lea and Flood, OOPSLA 2014, figure 14) of every int64 of `x`."""
    if _on_host(x):
        return torch.from_numpy(np.asarray(_hashed(_unsigned(x))).view(np.int64))  # of one number: a scalar
    x = x + _signed(0x9E3779B97F4A7C15)  # in place from here on: the sum is no one else's
    x.bitwise_xor_(_shift(x, 30)).mul_(_signed(0xBF58476D1CE4E5B9))
    x.bitwise_xor_(_shift(x, 27)).mul_(_signed(0x94D049BB133111EB))
    return x.bitwise_xor_(_shift(x, 31))


def _on_host(x: Tensor, each: int = 1) -> bool:
    return x.device.type == "cpu" and x.numel() * each <= _HOST


def _unsigned(x: Tensor) -> np.ndarray:
    return x.numpy().view(np.uint64)


def _hashed(x: np.ndarray) -> np.ndarray:
    """SplitMix64 of every uint64 of `x`, which is left as it was."""
    x = x + _STEP
    x ^= x >> _30
    x *= _FIRST
    x ^= x >> _27
    x *= _SECOND
    x ^= x >> _31
    return x


_STEP, _FIRST, _SECOND, _30, _27, _31, _40 = (
    np.array(number, np.uint64)  # arrays: numpy takes them up faster than its scalars
    for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 30, 27, 31, 40)
)


def _unit(keys: Tensor, count: int) -> Tensor:
    """float32 (n, count) in [0, 1): number j of a row is the upper 24 bits of splitmix64(key + j)."""
    if _on_host(keys, count):
        numbers = _hashed(_unsigned(keys)[:, None] + np.arange(count, dtype=np.uint64))
        numbers >>= _40
        return torch.from_numpy(numbers.view(np.int64).astype(np.float32)).mul_(2.0**-24)
    numbers = splitmix64(keys[:, None] + torch.arange(count, device=keys.device))
    return _shift(numbers, 40).to(torch.float32).mul_(2.0**-24)


torch.tensor([-0.0]).log1p()  # where MKL computes it, it takes nine times as long until it has met a negative zero


class Draw:
    """Random numbers for the n rows of one view, each row keyed by its sample.

    The numbers of a row depend on `seed` and on its id only: not on the batch, the rank or the micro-batch it is in.
    Successive calls give different numbers; the same calls on a new Draw give the same ones.
    """

    SMALL = 64  # numbers a row up to which a hash is cheaper than a generator

    def __init__(self, seed: int, ids: Tensor):
        self.seed, self.ids, self.calls = seed, ids, 0

    def __len__(self) -> int:
        return len(self.ids)

    def shared(self, what: str, count: int) -> Draw:
        """A Draw of its own for `count` things that all rows of the view share, such as the edges of a graph.

        What it gives depends on the view and on the number of the thing, from 0: not on which rows are there.
        """
        return Draw(key(self.seed, what), torch.arange(count, device=self.ids.device))

    def _row_keys(self, times: int = 1) -> Tensor:
        """int64 (times * n,): the keys of the rows in the next calls."""
        calls = range(self.calls + 1, self.calls + 1 + times)
        self.calls += times
        seeds = [key(self.seed, call) for call in calls]  # of 63 bits
        if _on_host(self.ids, times):
            numbers = _unsigned(self.ids) ^ np.array(seeds, np.uint64)[:, None]
            return torch.from_numpy(_hashed(numbers.reshape(-1)).view(np.int64))
        return splitmix64(torch.cat([self.ids ^ seed for seed in seeds]))

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """float32 (n, *shape) in [low, high)."""
        if low == high:  # a call as any other, so that those after it give what they would
            self.calls += 1
            return torch.full((len(self), *shape), float(low), dtype=torch.float32, device=self.ids.device)
        keys, count = self._row_keys(), math.prod(shape)
        values = _unit(keys, count) if count <= self.SMALL else self._generate(keys, count, "uniform_")
        values = values.view(len(self), *shape)
        return values if (low, high) == (0.0, 1.0) else values * (high - low) + low

    def positions(self, length: int) -> Tensor:
        """float32 (n, length) in [0, 1): one number a position; a longer row begins with the numbers of a shorter one."""
        return _unit(self._row_keys(), length)

    def normal(self, *shape: int) -> Tensor:
        """float32 (n, *shape) of the standard normal distribution."""
        count = math.prod(shape)
        if count <= self.SMALL:
            u, v = _unit(self._row_keys(2), count).view(2, len(self), count)
            values = u.neg_().log1p_().mul_(-2.0).sqrt_().mul_(v.mul_(2.0 * torch.pi).cos_())  # Box-Muller
        else:
            values = self._generate(self._row_keys(), count, "normal_")
        return values.view(len(self), *shape)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """int64 (n, *shape) in [low, high)."""
        return (low + torch.floor(self.uniform(*shape) * (high - low))).long().clamp_(max=high - 1)

    def chance(self, p: float) -> Tensor:
        """bool (n,): true with probability p."""
        return self.uniform() < p

    def beta(self, a: float, b: float) -> Tensor:
        """float32 (n,) of the distribution Beta(a, b)."""
        return beta_quantile(self.uniform(), a, b)

    def permutation(self, k: int) -> Tensor:
        """int64 (n, k): a random order of 0..k-1 for every row."""
        return torch.argsort(self.uniform(k), dim=1)

    def _generate(self, keys: Tensor, count: int, method: str) -> Tensor:
        generator = torch.Generator(device=keys.device)
        values = torch.empty(len(keys), count, dtype=torch.float32, device=keys.device)
        for row, seed in zip(values, keys.tolist()):  # re-seeding a row is 12 % slower than one call for all
            getattr(row, method)(generator=generator.manual_seed(seed & (_MASK >> 1)))
        return values


def beta_quantile(u: Tensor, a: float, b: float, points: int = 4097) -> Tensor:
    """Numbers of the distribution Beta(a, b) from uniform ones `u` in [0, 1), by its distribution function on two grids.

    Each half of [0, 1] has a grid even in w = x^c, x the distance from its end and c = min(1/2, a) (or b): there the density
    x^(a - c) (1 - x)^(b - 1) / c is bounded, however small a is, and wide, however large.
    """
    (w, low, c), (v, high, d) = _beta_half(a, b, points), _beta_half(b, a, points)
    top = max(float(low.max()), float(high.max()))
    low, high = (torch.nn.functional.pad((x - top).exp().cumsum(0), (1, 0)) for x in (low, high))
    total = low[-1] + high[-1]
    low, high, share = (low / total).to(u), (high / total).to(u), float(low[-1] / total)
    below = _inverse(low, w.to(u), u).pow(1 / c)
    above = 1 - _inverse(high, v.to(u), 1 - u).pow(1 / d)
    return torch.where(u < share, below, above)


def _beta_half(a: float, b: float, points: int) -> tuple[Tensor, Tensor, float]:
    """Places w of a grid (points,), the logarithms of the mass between them, and the power c, of x in [0, 1/2]."""
    c = min(0.5, a)
    w = torch.linspace(0, 0.5**c, points, dtype=torch.float64)
    x = ((w[1:] + w[:-1]) / 2).pow(1 / c)
    return w, (a - c) * x.log() + (b - 1) * torch.log1p(-x) + torch.log((w[1] - w[0]) / c), c


def _inverse(mass: Tensor, w: Tensor, u: Tensor) -> Tensor:
    """Where the mass below first is u, linear between the places of the grid."""
    right = torch.searchsorted(mass, u.contiguous()).clamp(1, len(mass) - 1)
    low, high = mass[right - 1], mass[right]
    share = ((u - low) / (high - low).clamp(min=1e-30)).clamp(0, 1)
    return torch.lerp(w[right - 1], w[right], share)
