"""Momentum distillation between modalities: ALBEF's image-text contrast, and the queue-free form of MSD."""

from __future__ import annotations

from dataclasses import replace
from math import log
from typing import Literal

import torch
from torch import Tensor

from counterpoint.batch import Encoded, Outputs, Pair
from counterpoint.errors import ComponentError
from counterpoint.kernels.soft import Blend, GroupMean, SoftmaxOf, own, soft_info_nce
from counterpoint.markers import MaybeSize, Modalities
from counterpoint.objectives.mechanisms.aligned import twins
from counterpoint.objectives.mechanisms.rows import pair_ids
from counterpoint.objectives.mechanisms.temperature import Temperature
from counterpoint.objectives.moco import MoCo
from counterpoint.objectives.objective import Needs, mean


class Bounded(Temperature):
    """A learned temperature that stays between `lowest` and `highest`."""

    def __init__(self, start: float, lowest: float = 0.001, highest: float = 0.5):
        super().__init__(start, True, lowest)
        self.most, self.least = -log(lowest), -log(highest)

    def forward(self) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.log_scale.clamp_(min=self.least, max=self.most)
        return torch.exp(-self.log_scale)


class ALBEF(MoCo):
    """Image-text contrast with momentum distillation (Li et al., 2021, "ALBEF", sections 3.2 and 3.3).

    For N aligned rows, q student rows of one modality, q' what the momentum encoders make of the same views, k' momentum
    rows of another modality, K = [k', queue of that modality] (N + Q rows), L2-normalised, T learned:

        p_ij = softmax_{j in K}( q_i . K_j / T )
        y_ij = alpha * softmax_{j in K}( q'_i . K_j / T ) + (1 - alpha) * 1[j = i]       without gradient
        loss = -mean_i sum_j y_ij log p_ij, the mean over ordered pairs of modalities

    The positive and all of K are in the denominator. T is a parameter in log space, kept in [0.001, 0.5], the same in p
    and, detached, in y. Momentum rows of every view that served as key enter its queue after the loss. Section 3.3 has
    the divergence from the momentum softmax in place of the cross-entropy: a term without gradient less.

    alpha      share of the momentum softmax, 0.4; with `ramp` it rises from 0 to that over the first epoch, as in the code
    size       samples in the training set, which tell how long the first epoch is
    positives  pair: the own key alone, as for pretraining. index: all of K of the same sample, queue included, in equal
               parts, as in the authors' retrieval training; set it where the queue is not far smaller than the data
    queue      capacity of each queue in rows; the matching and the masked-language losses of ALBEF are other objectives
    """

    def __init__(
        self,
        *,
        temperature: float = 0.07,
        alpha: float = 0.4,
        ramp: bool = True,
        queue: int = 65536,
        momentum: float = 0.995,
        positives: Literal["pair", "index"] = "pair",
        size: MaybeSize = None,
        modalities: Modalities = None,
    ):
        super().__init__(temperature=temperature, queue=queue, momentum=momentum, symmetric=True, modalities=modalities)
        if self.modalities is None:
            raise ComponentError(
                f"objective {self._name()}: needs two modalities or more, such as modalities=['image', 'text']; got {modalities}"
            )
        if not 0 <= alpha <= 1:
            raise ComponentError(f"objective {self._name()}: alpha is a share in [0, 1]; got {alpha}")
        self.temperature, self.alpha, self.ramp = Bounded(temperature), alpha, ramp
        self.positives, self.size = positives, size

    def _name(self) -> str:
        return type(self).__name__.lower()

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        temperature, alpha = self.temperature(), self._alpha_at(outputs)
        terms = [self._distilled(pair, temperature, alpha, outputs) for pair in self.view_pairs(outputs)]
        return mean(terms, outputs), self.temperature.parts()

    def needs(self) -> Needs:
        by_sample = self.positives == "index"
        return replace(super().needs(), index=by_sample, owners=by_sample)

    def _alpha_at(self, outputs: Outputs) -> float:
        if not self.ramp or not self.alpha or outputs.epoch > 0:
            return self.alpha
        if self.size is None:
            raise ComponentError(
                f"objective {self._name()}: alpha rises over the first epoch, whose length nobody says; build it with size=, "
                "the samples of the training set, or with ramp=False"
            )
        return self.alpha * min(1.0, outputs.step * len(outputs.batch) / self.size)

    def _distilled(self, pair: Pair, temperature: Tensor, alpha: float, outputs: Outputs) -> Tensor:
        keys, names = self._candidates(pair, outputs)
        soft = SoftmaxOf(twins(outputs, pair, "momentum")[0], keys, temperature.detach())
        if self.positives == "index":
            hard = GroupMean(pair_ids(outputs, pair), names)
        else:
            hard = own(len(pair.q), len(keys), keys)
        return soft_info_nce(pair.q, keys, temperature, Blend(soft, hard, alpha))

    def _candidates(self, pair: Pair, outputs: Outputs) -> tuple[Tensor, Tensor]:
        """K and whose its rows are."""
        ids, queue = pair_ids(outputs, pair), outputs.queues.get(self.queue_of(pair.key))
        if queue is None:
            return pair.k, ids
        return torch.cat([pair.k, queue.z.to(pair.k)]), torch.cat([ids, queue.index])


class MSD(ALBEF):
    """Momentum self-distillation for medical vision-language pretraining (Pham et al., 2025).

    With q, q', k', T as in `albef`, candidates the momentum keys of the whole batch, and no queue:

        p_ij = softmax_j( q_i . k'_j / T ),  y_ij = softmax_j( q'_i . k'_j / T ) without gradient
        loss = (1 - alpha) * -mean_i log p_ii + alpha * mean_i KL(y_i || p_i), the mean over ordered pairs of modalities

    The paper's batch is an accumulation window whose momentum keys are computed first. Here it is loader.batch, encoded
    in parts of loader.micro_batch rows: every row then meets all keys, with the same memory.

    Derived from the paper's abstract, its formula not read. With alpha 0 it is InfoNCE against momentum keys, with alpha 1
    the student follows the momentum encoders alone; the gradient by logits is p - alpha y - (1 - alpha) onehot, as it
    should be. Defaults are those of ALBEF.
    """

    def __init__(
        self,
        *,
        temperature: float = 0.07,
        alpha: float = 0.4,
        momentum: float = 0.995,
        modalities: Modalities = None,
    ):
        super().__init__(temperature=temperature, alpha=alpha, ramp=False, momentum=momentum, modalities=modalities)

    def _name(self) -> str:
        return "msd_medical_vlp"

    def needs(self) -> Needs:
        return replace(super().needs(), queues={}, batch=2)

    def enqueue(self, outputs: Outputs) -> dict[str, Encoded]:
        return {}

    def _distilled(self, pair: Pair, temperature: Tensor, alpha: float, outputs: Outputs) -> Tensor:
        q, fixed = twins(outputs, pair, "momentum")[0], temperature.detach()
        entropy = soft_info_nce(q, pair.k, fixed, SoftmaxOf(q, pair.k, fixed))
        return super()._distilled(pair, temperature, alpha, outputs) - alpha * entropy

    def _candidates(self, pair: Pair, outputs: Outputs) -> tuple[Tensor, Tensor]:
        return pair.k, pair_ids(outputs, pair)
