"""Contrast with synthetic rows: MoCo whose queries, keys or negatives are mixed before the logits.

Dimensions: N queries, K rows of the queue, D width of z. The queue always takes the keys as the momentum encoder made
them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint

from counterpoint.batch import Encoded, Outputs
from counterpoint.errors import ComponentError
from counterpoint.kernels.identities import out_of
from counterpoint.markers import Dim, Modalities
from counterpoint.objectives.moco import Compared, MoCo
from counterpoint.randomness import Draw, beta_quantile


class MoCHi(MoCo):
    """Mixing of contrastive hard negatives (Kalantidis et al., 2020, section 4).

    For a query q, key k (momentum) and queue, all L2-normalised, let n_1, n_2, ... be the `hard` queue rows of largest
    q . n. Synthetic negatives, made anew for every query, without gradient:

        h = norm(a n_i + (1 - a) n_j)    `pairs` of them, a uniform in (0, 1)
        g = norm(b q + (1 - b) n_j)      `own` of them, b uniform in (0, 1/2)     i, j uniform, may be equal
        loss = mean_i -log( exp(q.k / T) / (exp(q.k / T) + sum over queue, h and g of exp(q. / T)) )

    One direction, the positive in the denominator, the queue's own rows stay in it. A query that sees fewer than
    `hard` rows draws from those.

    start  epochs before the first synthetic negative; the paper has 10 for ImageNet-100, 15 for ImageNet-1K
    others as in `moco`, with the temperature of MoCo v2, on which the paper builds

    Drawn, for every pair of views alike: i and j (N, pairs), the ranks of n_i and n_j among the hardest, int64 from 0, and a
    (N, pairs) in (0, 1); third (N, own), the ranks of the n_j in g, and b (N, own) in (0, 1/2).
    """

    draws = ("i", "j", "a", "third", "b")

    ELEMENTS = 2**23  # numbers held at a time, in synthetic rows or similarities; made again in the backward pass

    def __init__(
        self,
        *,
        hard: int = 1024,
        pairs: int = 1024,
        own: int = 128,
        start: int = 0,
        temperature: float = 0.2,
        queue: int = 65536,
        momentum: float = 0.999,
        symmetric: bool = False,
        drop_own: bool = False,
        modalities: Modalities = None,
    ):
        super().__init__(
            temperature=temperature,
            queue=queue,
            momentum=momentum,
            symmetric=symmetric,
            drop_own=drop_own,
            modalities=modalities,
        )
        if hard < 1 or min(pairs, own) < 0 or pairs + own < 1:
            raise ComponentError(
                f"objective mochi: expected hard >= 1 and some synthetic negatives; got hard {hard}, "
                f"pairs {pairs}, own {own}"
            )
        self.hard, self.synthetic, self.start = hard, (pairs, own), start

    def mixed(self, compared: Compared, outputs: Outputs) -> Compared:
        if (self.start > 0 and outputs.epoch < self.start) or not len(compared.q):
            return compared
        (pairs, own), draw = self.synthetic, Draw(outputs.seed(), compared.ids)
        chance = [
            self._chance(name, n, draw, compared, outputs)
            for name, n in zip(self.draws, (pairs, pairs, pairs, own, own))
        ]
        size = max(1, self.ELEMENTS // max((pairs + own) * compared.q.shape[1], len(compared.negatives)))
        extra = []
        for start in range(0, len(compared.q), size):
            rows = slice(start, start + size)
            exclude = None if compared.exclude is None else (compared.exclude[0][rows], compared.exclude[1])
            arguments = (compared.q[rows], compared.negatives, exclude, [c[rows] for c in chance])
            extra.append(checkpoint(self._logits, *arguments, use_reentrant=False, preserve_rng_state=False))
        return compared._replace(extra=torch.cat(extra))

    @staticmethod
    def _chance(name: str, n: int, draw: Draw, compared: Compared, outputs: Outputs) -> Tensor:
        """(N, n): uniform numbers, or what was given: ranks as they are, a share b as the half of a number."""
        drawn = draw.positions(n).to(compared.q)
        given = outputs.drawn(name, drawn.shape, lambda: drawn)
        if given is drawn or not given.is_floating_point():
            return given
        return given.to(drawn) * (2 if name == "b" else 1)

    def _logits(self, q: Tensor, queue: Tensor, exclude, chance: list[Tensor]) -> Tensor:
        """(n, pairs + own): logits of the synthetic negatives of n queries."""
        with torch.no_grad():
            found, seen = self._hardest(q, queue, exclude)  # (n, hard), (n,)
            i, j, a, third, b = chance
            place = lambda u: (u * seen[:, None].clamp(min=1)).long() if u.is_floating_point() else u  # noqa: E731
            row = lambda u: queue[found.gather(1, place(u))]  # noqa: E731
            h = a[..., None] * row(i) + (1 - a[..., None]) * row(j)
            g = b[..., None] / 2 * q[:, None] + (1 - b[..., None] / 2) * row(third)
            made = normalize(torch.cat([h, g], 1), dim=-1)  # (n, pairs + own, D)
        logits = (made @ q[:, :, None])[..., 0] / self.temperature
        return logits.masked_fill((seen == 0)[:, None], -torch.inf)

    def _hardest(self, q: Tensor, queue: Tensor, exclude) -> tuple[Tensor, Tensor]:
        """Positions (n, hard) of each query's nearest queue rows, nearest first, and how many of them it sees."""
        similarity, out = q @ queue.T, out_of(exclude, None)
        if out is not None:
            similarity = similarity.masked_fill(out, -torch.inf)
        best = similarity.topk(min(self.hard, len(queue)))
        return best.indices, (best.values > -torch.inf).sum(1)


class FeatureTransform(MoCo):
    """Feature transformation (Zhu et al., 2021, sections 4.1 and 4.2): positives pushed apart, negatives interpolated.

    For q (student), k (momentum, detached) and queue rows n, L2-normalised, element by element of the D numbers:

        q~ = l q + (1 - l) k    k~ = l k + (1 - l) q    l - 1 ~ Beta(positive, positive), so l in [1, 2]
        n~ = m n + (1 - m) n'   n' another row by one permutation of the queue, m ~ Beta(negative, negative)
        loss = mean_i -log( exp(q~.k~ / T) / (exp(q~.k~ / T) + sum_n~ exp(q~.n~ / T)) )

    With l = 1 and m = 1 it is `moco`. Since l > 1 lowers the score of every pair, positives are harder than they are;
    q~.k~ = q.k - sum_d l(l-1)(q_d - k_d)^2, whose gradient reaches q through both factors. One direction, the positive
    in the denominator, nothing is normalised again. The queue takes the untouched keys.

    positive, negative  parameter of each Beta distribution; None: no such mixing
    renormalize         unit length again after mixing (an option of the released code, off there too)
    start               epochs before the first mixing; others as in `moco`

    Drawn, for every pair of views alike: l (N, D) in [1, 2], order int64 (K,), the permutation of the queue, m (K, D) in [0, 1].
    """

    draws = ("l", "order", "m")

    def __init__(
        self,
        *,
        positive: float | None = 2.0,
        negative: float | None = 1.6,
        renormalize: bool = False,
        start: int = 0,
        temperature: float = 0.2,
        queue: int = 65536,
        momentum: float = 0.999,
        symmetric: bool = False,
        drop_own: bool = False,
        modalities: Modalities = None,
    ):
        super().__init__(
            temperature=temperature,
            queue=queue,
            momentum=momentum,
            symmetric=symmetric,
            drop_own=drop_own,
            modalities=modalities,
        )
        if any(a is not None and a <= 0 for a in (positive, negative)):
            raise ComponentError(
                f"objective feat_transform: parameters of Beta are positive; got {positive}, {negative}"
            )
        self.betas, self.renormalize, self.start = (positive, negative), renormalize, start

    def mixed(self, compared: Compared, outputs: Outputs) -> Compared:
        if self.start > 0 and outputs.epoch < self.start:
            return compared
        q, k, queue = compared.q, compared.k, compared.negatives
        if self.betas[0] is not None:
            draw = Draw(outputs.seed(), compared.ids)
            one = lambda: 1 + beta_quantile(draw.positions(q.shape[1]).to(q), self.betas[0], self.betas[0])  # noqa: E731
            share = outputs.drawn("l", q.shape, one).to(q)
            q, k = share * q + (1 - share) * k, share * k + (1 - share) * q
        if self.betas[1] is not None:
            other = outputs.drawn("order", (len(queue),), lambda: outputs.randperm(len(queue), queue.device))
            share = outputs.drawn("m", queue.shape, lambda: self._between(queue, outputs)).to(queue)
            queue = share * queue + (1 - share) * queue[other]
        if self.renormalize:
            q, k, queue = (normalize(z, dim=-1) for z in (q, k, queue))
        return compared._replace(q=q, k=k, negatives=queue)

    def _between(self, queue: Tensor, outputs: Outputs) -> Tensor:
        uniform = outputs.rand(*queue.shape, dtype=queue.dtype, device=queue.device)
        return beta_quantile(uniform, self.betas[1], self.betas[1])


class Hallucinator(MoCo):
    """Hallucination (Wu et al., 2023, section 3; MoCo form): a learned extra query for every query.

    For a student embedding q as it is, a momentum key k, L2-normalised and detached, and queue rows n:

        e = (1 + r) q - r k          r uniform in [0, extrapolate), one number for all rows
        h = MLP([q; e])              three linear layers, 2 D -> 2 D -> 2 D -> D, with ReLU between, no residual
        loss = mean over the 2 N rows p of norm(q) and norm(h) of
               -log( exp(p . k / T) / (exp(p . k / T) + sum_n exp(p . n / T)) )

    h is a further query with the same key, no key itself. The hallucinator learns with the loss; gradients reach q
    through h as well. Where there are several pairs of views, each has its own r. The queue takes the keys once (the
    released code, which doubles them for the loss, stores both copies).

    dim is D, the width of z; others as in `moco`, with T 0.2

    Drawn: r, one number in [0, extrapolate).
    """

    draws = ("r",)

    def __init__(
        self,
        *,
        dim: Dim,
        extrapolate: float = 0.1,
        temperature: float = 0.2,
        queue: int = 65536,
        momentum: float = 0.999,
        symmetric: bool = False,
        drop_own: bool = False,
        modalities: Modalities = None,
    ):
        super().__init__(
            temperature=temperature,
            queue=queue,
            momentum=momentum,
            symmetric=symmetric,
            drop_own=drop_own,
            modalities=modalities,
        )
        wide = 2 * dim
        self.extrapolate = extrapolate
        self.mlp = nn.Sequential(
            nn.Linear(wide, wide), nn.ReLU(), nn.Linear(wide, wide), nn.ReLU(), nn.Linear(wide, dim)
        )

    def _prepared(self, e: Encoded, detach: bool = False) -> Encoded:
        return super()._prepared(e, detach) if detach else e  # the student's are normalised after the MLP

    def mixed(self, compared: Compared, outputs: Outputs) -> Compared:
        q, k, exclude = compared.q, compared.k, compared.exclude
        r = outputs.drawn("r", (), lambda: self.extrapolate * outputs.rand(dtype=q.dtype, device=q.device))
        made = self.mlp(torch.cat([q, (1 + r) * q - r * k], 1))
        both = normalize(torch.cat([q, made]), dim=-1, eps=1e-12)
        exclude = None if exclude is None else (exclude[0].repeat(2), exclude[1])
        return compared._replace(q=both, k=k.repeat(2, 1), ids=compared.ids.repeat(2), exclude=exclude)
