"""Symile: all modalities at once, by their multilinear inner product.

Dimensions: T tuples (samples that have every view), V views or modalities, D width.
"""

from __future__ import annotations

from math import prod
from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from counterpoint.batch import Outputs
from counterpoint.kernels import contrast, softmax_stats
from counterpoint.kernels.reference import log_sum_exp
from counterpoint.objectives.mechanisms.similarity import Product
from counterpoint.objectives.mechanisms.temperature import Temperature
from counterpoint.objectives.mechanisms.tuples import complete
from counterpoint.objectives.objective import Needs, Objective, mean
from counterpoint.randomness import key, splitmix64


class Symile(Objective):
    """Symile (Saporta et al., 2024, section 3 and algorithm 1), over all views or modalities.

    <a, b, c> = sum_d a[d] b[d] c[d] of L2-normalised rows, l = <...> / temperature. For an anchor view a with row i:

        term(a, i) = -log( exp(l(true tuple of i)) / (exp(l(true tuple of i)) + sum_{negatives k} exp(l(a_i, tuple k))) )
        loss       = mean over views a of mean_i term(a, i)

    One direction a view: the anchor finds its tuple. The positive is in the denominator; nothing is detached. With two
    views and `n_squared` it is the loss of CLIP.

    negatives  n: each other view is put in a random order of its own, drawn anew for every anchor view, and tuple k is
               what then stands at k; at its own place an anchor meets its true tuple instead. A tuple that the orders
               made by chance of one sample is left out for that sample, not for the one at its place: the paper's
               code keeps such a false negative. n_squared: all T^(V-1) tuples but the true one, exact, in chunks.
    temperature  its inverse is learned, from exp(-0.3) as in the authors' code; not under 0.001

    A sample that lacks a view has no product of the same degree: it is left out, and so is its part in negatives. The
    orders are functions of a seed and of the samples, whatever the order of the batch is.

    Drawn: orders int64 (V, V - 1, T), for each anchor view the order of each other view, in their order.
    """

    draws = ("orders",)

    CHUNK = 1 << 16  # tuples held at a time

    def __init__(
        self, *, temperature: float = 1.35, learnable: bool = True, negatives: Literal["n", "n_squared"] = "n"
    ):
        super().__init__()
        self.temperature, self.negatives = Temperature(temperature, learnable, lowest=1e-3), negatives
        self.similarity = Product()

    def needs(self) -> Needs:
        return Needs(pairs="all", batch=2)

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        z, sample = complete(outputs.views())
        ids, scale = outputs.batch.index[sample], 1 / self.temperature()
        seed = outputs.seed()
        if not len(ids) or len(z) < 2:
            return outputs.zero(), self.temperature.parts()
        positive = scale * prod(z).sum(-1)  # (T,)
        terms = []
        for a, anchor in enumerate(z):
            others = z[:a] + z[a + 1 :]
            if self.negatives == "n":
                negative = self._shuffled(anchor, others, ids, scale, self._orders(outputs, ids, len(z), a, seed))
            else:
                negative = self._all(anchor, others, ids, scale)
            terms.append(contrast(negative, positive).mean())
        return mean(terms, outputs), self.temperature.parts()

    @staticmethod
    def _orders(outputs: Outputs, ids: Tensor, views: int, anchor: int, seed: int) -> list[Tensor]:
        """int64 (T,) of every view but the anchor."""
        if "orders" in outputs.draws:
            return list(outputs.drawn("orders", (views, views - 1, len(ids)), lambda: ids)[anchor])
        return [shuffle(ids, key(key(seed, anchor), m)) for m in range(views - 1)]

    def _shuffled(self, anchor: Tensor, others: list[Tensor], ids: Tensor, scale, orders: list[Tensor]) -> Tensor:
        """(T,): the log-sum-exp over T tuples, each of which one sample does not meet."""
        tuples = prod(z[order] for z, order in zip(others, orders))  # (T, D)
        by_chance = _of_one([ids[order] for order in orders], ids)
        return softmax_stats(anchor, tuples, scale, exclude=(ids, by_chance)).rows

    def _all(self, anchor: Tensor, others: list[Tensor], ids: Tensor, scale) -> Tensor:
        """(T,): the log-sum-exp over all tuples of a row of each other view, but the true one."""
        count = len(ids) ** len(others)
        starts = range(0, count, self.CHUNK)
        if len(starts) == 1:
            return self._some(anchor, others, ids, scale, 0, count)
        parts = [
            checkpoint(
                self._some, anchor, others, ids, scale, start, min(start + self.CHUNK, count),
                use_reentrant=False, preserve_rng_state=False,
            )
            for start in starts
        ]  # fmt: skip
        return log_sum_exp(torch.stack(parts, 1), 1)

    def _some(self, anchor: Tensor, others: list[Tensor], ids: Tensor, scale, start: int, stop: int) -> Tensor:
        number = torch.arange(start, stop, device=ids.device)
        places = [number // len(ids) ** m % len(ids) for m in range(len(others))]
        tuples = prod(z[place] for z, place in zip(others, places))  # (chunk, D)
        true = _of_one([ids[place] for place in places], torch.full_like(number, -1))
        return softmax_stats(anchor, tuples, scale, exclude=(ids, true)).rows


def shuffle(ids: Tensor, seed: int) -> Tensor:
    """int64 (T,): a random permutation of rows, where which row stands at a row's place depends on their ids alone."""
    order = torch.empty_like(ids)
    order[torch.argsort(ids, stable=True)] = torch.argsort(splitmix64(ids ^ seed), stable=True)
    return order


def _of_one(members: list[Tensor], otherwise: Tensor) -> Tensor:
    """The id of each tuple's sample where all members are of one, else `otherwise`."""
    same = torch.stack([m == members[0] for m in members]).all(0)
    return torch.where(same, members[0], otherwise)
