"""Contrast with the hardest negatives alone."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from counterpoint.batch import Encoded, Outputs
from counterpoint.errors import ComponentError
from counterpoint.kernels import contrast
from counterpoint.kernels.identities import Rule, out_of
from counterpoint.kernels.reference import log_sum_exp
from counterpoint.markers import Modalities
from counterpoint.objectives.mechanisms.rows import pair_ids
from counterpoint.objectives.moco import Compared, MoCo
from counterpoint.objectives.objective import Needs, mean


class HardContrastive(MoCo):
    """The hard contrastive loss (Wang and Liu, 2021, eqs. 9 to 11): each anchor's nearest negatives, no others.

    For an anchor q_i with key k_i, L2-normalised, and negatives n of other samples; s_i(share) is the upper quantile of
    q_i . n over the anchor's negatives, so that round(share x their number) of them, one at least, and ties, are left:

        loss_i = -log( exp(q_i . k_i / T) / (exp(q_i . k_i / T) + sum_{n: q_i . n >= s_i(share)} exp(q_i . n / T)) )

    The positive is always in the denominator; gradients reach the negatives that are left; the choice has none. The
    loss is the mean over anchors and pairs of views. With share 1 it is the ordinary loss.

    share   of the negatives that stay: 0.0819 leaves 4095 of CIFAR's 50000; 0.0315 for SVHN, 0.034 for ImageNet-100
    simple  not None: the HardSimple form, loss_i = -q_i . k_i + simple x sum_{n that is left} q_i . n, without T. The
            sum is no mean: choose `simple` by the number of negatives left. An anchor without negatives gives 0
    queue   rows of momentum keys, detached, as negatives, as in `moco` with own rows out (the paper's memory bank holds
            an average of each sample's features). None: negatives are the rows of the key's view in the batch, with
            gradient, and the loss is the mean of both directions of every pair of student views
    momentum, symmetric, modalities: of the form with a queue, as in `moco`

    The paper finds T 0.3 to 1 best for this loss, where 0.2 to 0.3 is best for the ordinary one.
    """

    ELEMENTS = 2**24  # similarities that are held at a time; they are made again in the backward pass

    def __init__(
        self,
        *,
        share: float = 0.0819,
        temperature: float = 0.3,
        simple: float | None = None,
        queue: int | None = 65536,
        momentum: float = 0.999,
        symmetric: bool = False,
        modalities: Modalities = None,
    ):
        super().__init__(
            temperature=temperature,
            queue=1 if queue is None else queue,
            momentum=momentum,
            symmetric=symmetric,
            drop_own=True,
            modalities=modalities,
        )
        if not 0 < share <= 1:
            raise ComponentError(f"objective hard_contrastive: share is in (0, 1]; got {share}")
        self.share, self.simple, self.in_batch = share, simple, queue is None

    def needs(self) -> Needs:
        return Needs(pairs="all", batch=2) if self.in_batch else super().needs()

    def enqueue(self, outputs: Outputs) -> dict[str, Encoded]:
        return {} if self.in_batch else super().enqueue(outputs)

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        if not self.in_batch:
            return super().loss(outputs)
        terms = []
        for pair in outputs.pairs():
            ids = pair_ids(outputs, pair)
            for q, k in ((pair.q, pair.k), (pair.k, pair.q)):
                terms.append(self.contrast(Compared(q, k, ids, k, (ids, ids))).mean())
        return mean(terms, outputs), {}

    def contrast(self, compared: Compared) -> Tensor:
        q, k, _, keys, exclude, _ = compared
        size, left = max(1, self.ELEMENTS // max(1, len(keys))), []
        for start in range(0, len(q), size):
            rows = slice(start, start + size)
            arguments = (q[rows], keys, (exclude[0][rows], exclude[1]))
            left.append(checkpoint(self._hardest, *arguments, use_reentrant=False, preserve_rng_state=False))
        negatives, positive = torch.cat(left), (q * k).sum(-1)
        if self.simple is None:
            return contrast(negatives, positive / self.temperature)
        has = negatives > -torch.inf
        total = torch.where(has, negatives, torch.zeros_like(negatives))
        return self.simple * total - torch.where(has, positive, torch.zeros_like(positive))

    def _hardest(self, q: Tensor, keys: Tensor, exclude: Rule) -> Tensor:
        """(n,): log-sum-exp of the logits of the negatives that are left, or their summed similarity; -inf for none."""
        similarity, out = q @ keys.T, out_of(exclude, None)
        with torch.no_grad():
            seen = (~out).sum(1)
            stay = (self.share * seen.double()).round().long().clamp(min=1)
            ranked = similarity.masked_fill(out, -torch.inf).topk(max(1, round(self.share * len(keys)))).values
            rounding = 8 * torch.finfo(similarity.dtype).eps  # equal rows may differ in their last digit
            out = out | (similarity < ranked.gather(1, stay[:, None] - 1) - rounding)
        if self.simple is None:
            return log_sum_exp((similarity / self.temperature).masked_fill(out, -torch.inf), 1)
        return similarity.masked_fill(out, 0.0).sum(1).masked_fill(seen == 0, -torch.inf)
