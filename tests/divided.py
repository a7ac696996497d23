"""Run by torchrun (or alone): writes value and gradients of contrasts that several processes divide among themselves."""

import os
import sys

import torch
import torch.distributed as dist

from counterpoint.kernels import divided, info_nce, sigmoid, softmax, softmax_product, softmax_stats, softplus_sums
from counterpoint.kernels.soft import SoftmaxOf, soft_info_nce


def cases():
    """name -> a loss of (q, k, scale); 37 queries and 41 keys, ids that repeat, an anchor that sees nothing."""
    own, other = torch.arange(37) % 9, torch.arange(41) % 9
    own[5] = 50
    yield "rows", lambda q, k, s: softmax_stats(q, k, s).rows.sum()
    yield "columns", lambda q, k, s: softmax_stats(q, k, s, columns=True).columns.square().sum()
    yield "both", lambda q, k, s: sum(x.square().sum() for x in softmax_stats(q, k, s, columns=True, mean=True))
    yield "exclude", lambda q, k, s: softmax_stats(q, k, s, exclude=(own, other), columns=True).columns.sum()
    yield "only", lambda q, k, s: finite(softmax_stats(q, k, s, only=(own, other), columns=True))
    yield "one", lambda q, k, s: softmax_stats(q, q, s, exclude=(own, own)).rows.square().sum()
    yield "fixed keys", lambda q, k, s: softmax_stats(q, k.detach(), s).rows.square().sum()
    yield "per anchor", lambda q, k, s: softmax_stats(q, k, s * q[:, 0].exp(), columns=True).columns.square().sum()
    yield "pairs", lambda q, k, s: info_nce(q, k[:37], 1 / s, exclude=(own, own))
    yield "sigmoid", lambda q, k, s: softplus_sums(q, k, s, s - 3, exclude=(own, other)).square().sum()
    yield "sigmoid, fixed", lambda q, k, s: softplus_sums(q, k, 1.7, -3.0).square().sum() + 0 * s
    yield "soft", lambda q, k, s: soft_info_nce(q, k[:37], 1 / s, SoftmaxOf(q, k[:37], 2.0), direction="both")
    yield "soft, exclude", lambda q, k, s: soft(q, k, s, (own, other))
    yield "hot", lambda q, k, s: info_nce(300 * q, k[:37], 1 / s)


def soft(q, k, scale, rule) -> torch.Tensor:
    return soft_info_nce(q, k, 1 / scale, SoftmaxOf(q, k, 2.0, rule), exclude=rule, reduction="none").square().sum()


def finite(stats) -> torch.Tensor:
    return sum(x[x.isfinite()].square().sum() for x in (stats.rows, stats.columns))


def main(path: str) -> None:
    softmax.DENSE = sigmoid.DENSE = 0  # every contrast in tiles
    softmax_product.CHUNK = 100
    world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    if world > 1:
        dist.init_process_group("gloo")
    found = {}
    for name, loss in cases():
        random = torch.Generator().manual_seed(3)
        q, k = (torch.randn(n, 6, generator=random, dtype=torch.float64).requires_grad_() for n in (37, 41))
        scale = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
        with divided(3 if world > 1 else 1):  # of two, a symmetric one would be left whole
            value = loss(q, k, scale)
        used = [x for x in (q, k, scale) if not (x is k and name in ("one", "fixed keys"))]
        found[name] = [value.detach(), *torch.autograd.grad(value, used)]
    torch.save(found, f"{path}.{rank}")
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
