"""SwAV: one view predicts to which prototypes another is assigned."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from counterpoint.batch import Encoded, Outputs, Queued
from counterpoint.errors import ComponentError
from counterpoint.markers import Dim
from counterpoint.objectives.mechanisms.rows import join
from counterpoint.objectives.mechanisms.sinkhorn import sinkhorn
from counterpoint.objectives.objective import Needs, Objective, mean

LOCAL = "local"  # the role of small crops, which predict and are not assigned


class SwAV(Objective):
    """Swapped assignments between views (Caron et al., 2020, eq. 1-5 and section 3.4), the mean over ordered pairs.

    For views g and v of the same samples, L2-normalised z (n, D), K prototypes c with unit rows, s = z C^T:

        q_g     = rows of the batch in Sinkhorn([s_g; queue C^T], epsilon, iterations), a constant
        L_gv    = -mean_i sum_k q_g,ik log softmax_k( s_v,i / temperature )
        loss    = mean over g that is not local, and v other than g, of L_gv

    Every view predicts; those of role `local` (multi-crop, views.use: branches) are never assigned. Sinkhorn runs over
    all rows of a view on all ranks, prototypes first and samples last, both having mass; what is assigned is detached,
    prototypes learn by what is predicted. A pair of views counts the samples that both have.

    Before each training step the prototypes are scaled to unit rows in place, without a gradient. In the first
    `frozen_steps` batches their gradient is zero (the code leaves it out: an optimizer with weight decay scales them,
    which the next step undoes).

    prototypes    K
    queue         rows of past assigned views that join Sinkhorn for small batches (section 4.1), from epoch
                  `queue_start` on; 0: none. One queue for all views, where the code has one each: for the paper's 3840 a
                  view and two views say 7680. The code waits for a full queue; here its rows count as they come
    epsilon, iterations: of Sinkhorn. frozen_steps is that of the code's main run

    Defaults are those of the released ImageNet run.
    """

    def __init__(
        self,
        *,
        dim: Dim,
        prototypes: int = 3000,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        iterations: int = 3,
        frozen_steps: int = 313,
        queue: int = 0,
        queue_start: int = 15,
    ):
        super().__init__()
        if min(temperature, epsilon) <= 0 or prototypes < 2 or min(iterations, frozen_steps, queue) < 0:
            raise ComponentError(
                "objective swav: temperature and epsilon are positive, prototypes at least 2, iterations, frozen_steps and "
                f"queue not negative; got {temperature}, {epsilon}, {prototypes}, {iterations}, {frozen_steps} and {queue}"
            )
        self.temperature, self.epsilon, self.iterations = temperature, epsilon, iterations
        self.frozen_steps, self.queue, self.queue_start = frozen_steps, queue, queue_start
        self.prototypes = nn.Parameter(normalize(torch.randn(prototypes, dim), dim=1))

    def needs(self) -> Needs:
        return Needs(pairs="all", batch=2, queues={"keys": self.queue} if self.queue else {})

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        frozen = self.frozen_steps > 0 and outputs.step < self.frozen_steps
        used = self.queue > 0 and (self.queue_start <= 0 or outputs.epoch >= self.queue_start)
        prototypes = self._unit_prototypes(frozen)
        held = self._held(outputs.queues.get("keys") if used else None, prototypes)
        both = [self._targets_and_predictions(e, prototypes, held) for e in outputs.views()]  # (n, 2 K) each
        terms = []
        for pair in replace(outputs, student=both).pairs():
            for g, v, view in ((pair.q, pair.k, pair.query), (pair.k, pair.q, pair.key)):
                if view.role != LOCAL:
                    target, predicted = g.chunk(2, 1)[0], v.chunk(2, 1)[1]
                    terms.append(-(target.detach() * predicted).sum(1).mean())
        return mean(terms, outputs), {}

    def enqueue(self, outputs: Outputs) -> dict[str, Encoded]:
        assigned = [replace(e, h=e.z) for e in outputs.views() if e.role != LOCAL]  # h differs between modalities
        return {"keys": join(assigned)} if self.queue and assigned else {}

    def _unit_prototypes(self, frozen: bool) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.prototypes.copy_(normalize(self.prototypes, dim=1))
        weights = self.prototypes.detach() if frozen else self.prototypes
        return weights if self.training else normalize(weights, dim=1)

    @staticmethod
    def _held(queue: Queued | None, prototypes: Tensor) -> Tensor:
        """(m, K): the scores of the rows in the queue."""
        return prototypes.new_zeros(0, len(prototypes)) if queue is None else queue.z.to(prototypes) @ prototypes.T

    def _targets_and_predictions(self, e: Encoded, prototypes: Tensor, held: Tensor) -> Encoded:
        scores = e.z @ prototypes.T
        predicted = (scores / self.temperature).log_softmax(1)
        if e.role == LOCAL:
            return replace(e, z=torch.cat([scores.detach() * 0, predicted], 1))
        whole = torch.cat([scores.detach(), held.detach()])
        target = sinkhorn(whole, self.epsilon, self.iterations)[: len(scores)]
        return replace(e, z=torch.cat([target, predicted], 1))
