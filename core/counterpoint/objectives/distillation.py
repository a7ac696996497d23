"""Contrast between modalities that also keeps to the scores of a frozen teacher: Mod-X and DCD."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from counterpoint.batch import Outputs, Pair
from counterpoint.errors import ComponentError
from counterpoint.kernels.soft import divergence
from counterpoint.objectives.clip import CLIP
from counterpoint.objectives.mechanisms.aligned import twins
from counterpoint.objectives.mechanisms.rows import across_or_all, pair_ids
from counterpoint.objectives.mechanisms.temperature import Temperature
from counterpoint.objectives.objective import Needs, Objective, mean

CHUNK = 1024 * 1024  # teacher scores held at a time


class ModX(CLIP):
    """Mod-X (Ni et al., 2023): CLIP on new data that keeps the off-diagonal similarities of the model before it.

    For N aligned rows q, k of the student and q', k' of the teacher (the previous model, frozen), L2-normalised, and
    O_i the keys of other samples than i:

        kl_i   = KL( softmax_{j in O_i} q'_i . k'_j  ||  softmax_{j in O_i} q_i . k_j )    cosines, temperature 1
        keep   = 1/2 [ sum_i kl_i + the same with q and k changed ]
        loss   = clip + alpha * keep, the mean over pairs of modalities

    Only rows count that the teacher itself gets right: none of O_i scores above the own key (the authors replace the
    others by the student's row, whose divergence is 0). `keep` is a sum over rows, as in their code; clip a mean.

    alpha     20 as in the authors' scripts, for a batch of 70 a device
    diagonal  True: O_i is all keys, as in the authors' code; the paper aligns the off-diagonal information
    """

    def __init__(
        self, *, alpha: float = 20.0, temperature: float = 0.07, learnable: bool = True, diagonal: bool = False
    ):
        super().__init__(temperature=temperature, learnable=learnable)
        self.alpha, self.diagonal = alpha, diagonal

    def needs(self) -> Needs:
        return replace(super().needs(), teacher=True)

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        clip, parts = super().loss(outputs)
        terms = [self._keep(pair, outputs) for pair in outputs.pairs(self.which(outputs))]
        keep = mean(terms, outputs)
        return clip + self.alpha * keep, parts | {"clip": clip.detach(), "keep": keep.detach()}

    def _keep(self, pair: Pair, outputs: Outputs) -> Tensor:
        ids, taught = pair_ids(outputs, pair), twins(outputs, pair, "teacher")
        rows = [(pair.q, pair.k, *taught), (pair.k, pair.q, *taught[::-1])]
        return sum(self._one_way(*row, ids) for row in rows) / 2

    def _one_way(self, q: Tensor, k: Tensor, old_q: Tensor, old_k: Tensor, ids: Tensor) -> Tensor:
        right = hardest(old_q, old_k, ids, 1)[0][:, 0] <= (old_q * old_k).sum(-1)
        terms = divergence(q, k, 1.0, (old_q, old_k, 1.0), None if self.diagonal else (ids, ids))
        return terms.where(right, 0.0).sum()


class DCD(Objective):
    """Dynamic contrastive distillation (Rao et al., 2022): the teacher chooses negatives, what is learned counts less.

    For N aligned rows q, k of the student and q', k' of the teacher, L2-normalised, s_ij = q_i . k_j / temperature, t_ij
    the same of the teacher, and C_i = i and the `negatives` keys of other samples with the highest t_ij:

        contrast_i = -log( exp(s_ii) / sum_{j in C_i} exp(s_ij) )
        distil_i   = KL( softmax_{j in C_i} t_ij || softmax_{j in C_i} s_ij )
        d_i        = (1 - exp(-contrast_i))^focus, without gradient      1 where all is to learn, 0 where nothing is
        loss       = mean_i d_i [ contrast_i + distil_weight * distil_i ], the mean of both directions and all pairs

    Derived again from the paper's abstract (hard negatives by the teacher, divergence of score distributions, weights
    by difficulty), not read: d_i is the weight of a focal loss. It leaves the direction of each row's gradient as it is;
    focus 0 gives every row the weight 1, and with negatives >= N - 1 and distil_weight 0 the loss is then clip's. Not
    from the paper: the defaults.

    negatives  how many a row has; fewer where the batch holds no more. A learned temperature serves student and, detached,
               teacher
    """

    def __init__(
        self,
        *,
        negatives: int = 16,
        temperature: float = 0.07,
        learnable: bool = True,
        distil_weight: float = 1.0,
        focus: float = 1.0,
    ):
        super().__init__()
        if negatives < 1:
            raise ComponentError(f"objective dcd: negatives is at least 1; got {negatives}")
        self.temperature = Temperature(temperature, learnable)
        self.negatives, self.distil_weight, self.focus = negatives, distil_weight, focus

    def needs(self) -> Needs:
        return Needs(pairs="all", batch=2, teacher=True)

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        temperature = self.temperature()
        pairs = outputs.pairs(across_or_all(outputs))
        return mean([self.pair_loss(pair, temperature, outputs) for pair in pairs], outputs), self.temperature.parts()

    def pair_loss(self, pair: Pair, temperature: float | Tensor, outputs: Outputs) -> Tensor:
        ids, taught = pair_ids(outputs, pair), twins(outputs, pair, "teacher")
        forward = self._one_way(pair.q, pair.k, *taught, temperature, ids)
        return (forward + self._one_way(pair.k, pair.q, *taught[::-1], temperature, ids)) / 2

    def _one_way(self, q, k, old_q, old_k, temperature, ids: Tensor) -> Tensor:
        score, chosen = hardest(old_q, old_k, ids, self.negatives)
        fixed = temperature.detach() if isinstance(temperature, Tensor) else temperature
        there = torch.cat([torch.ones_like(ids)[:, None].bool(), score > -torch.inf], 1)  # (N, 1 + negatives)
        student = _log_softmax(q, k, chosen, there, temperature)
        teacher = _log_softmax(old_q, old_k, chosen, there, fixed)
        contrast = -student[:, 0]
        distil = (teacher.exp() * (teacher - student)).where(there, 0.0).sum(1)
        difficulty = (1 - student[:, 0].detach().exp()).clamp(min=0).pow(self.focus)
        return (difficulty * (contrast + self.distil_weight * distil)).mean()


@torch.no_grad()
def hardest(queries: Tensor, keys: Tensor, ids: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(N, count), (N, count): scores and places of the keys of other samples that score highest; -inf where none is left."""
    count = min(count, len(keys))
    size = max(1, CHUNK // max(1, len(keys)))
    found = [
        (q @ keys.T).masked_fill(own[:, None] == ids, -torch.inf).topk(count)
        for q, own in zip(queries.split(size), ids.split(size))
    ]
    return torch.cat([part.values for part in found]), torch.cat([part.indices for part in found])


def _log_softmax(q: Tensor, k: Tensor, chosen: Tensor, there: Tensor, temperature: float | Tensor) -> Tensor:
    """(N, 1 + negatives): of the own key and the chosen ones; places that are not there have no part."""
    own = (q * k).sum(-1, keepdim=True)
    logits = torch.cat([own, torch.einsum("nd,nkd->nk", q, k[chosen])], 1) / temperature
    low = torch.finfo(logits.dtype).min / 4
    return torch.log_softmax(logits.masked_fill(~there, low), 1).masked_fill(~there, 0.0)
