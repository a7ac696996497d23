"""Nearest-neighbour contrast: the positive is another sample's embedding, found in a queue."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from counterpoint.batch import Encoded, Outputs, Pair
from counterpoint.errors import ComponentError
from counterpoint.kernels import info_nce
from counterpoint.kernels.info_nce import share_of_forward
from counterpoint.markers import Dim
from counterpoint.objectives.mechanisms.predictor import Predictor
from counterpoint.objectives.mechanisms.rows import pair_ids
from counterpoint.objectives.objective import Needs, Objective, mean


class NNCLR(Objective):
    """Nearest-neighbour contrastive learning (Dwibedi et al., 2021, eqs. 3 and 4 and algorithm 1).

    For N aligned rows of views a and b, predictor p (linear D -> hidden, batch norm, ReLU, linear -> D), and NN(z) the
    row of the queue nearest to z by cosine, all L2-normalised after p; the neighbour is detached:

        l_ij = NN(a_i) . p(b_j) / T
        L_ab = mean_i -log( exp(l_ii) / (exp(l_ii) + sum_{j: sample j is not sample i} exp(l_ij)) )
        loss = mean over unordered pairs of views of 1/2 L_ab + 1/2 L_ba

    The positive is in the denominator, candidates are predictions of the other view. After the loss the queue takes the
    embeddings, before the predictor, of the first view. It starts empty, and the loss is 0 until it holds a row (the
    authors start from random rows). A row of the own sample, an epoch old, may be its nearest neighbour.

    direction  forward: neighbours find predictions (algorithm 1); both: also predictions find neighbours, averaged (the
               paper adds that term; it reports no effect)
    predictor  False: z in place of p(z), an ablation of the paper
    queue      rows of the support set (section 4.1: 98304); dim is D, the width of z; one modality
    """

    unit, unit_queues = False, True
    CHUNK = 1024  # rows whose neighbours are sought at a time

    def __init__(
        self,
        *,
        dim: Dim,
        temperature: float = 0.1,
        queue: int = 98304,
        predictor: bool = True,
        hidden: int = 4096,
        direction: Literal["forward", "both"] | float = "forward",
    ):
        super().__init__()
        if temperature <= 0 or queue < 1:
            raise ComponentError(f"objective nnclr: temperature and queue are positive; got {temperature} and {queue}")
        self.temperature, self.queue, self.direction = temperature, queue, share_of_forward(direction)
        self.predictor = Predictor(dim, hidden, biased=(True, True)) if predictor else None

    def needs(self) -> Needs:
        return Needs(pairs="within", batch=2, queues={"support": self.queue})

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        queue = outputs.queues.get("support")
        if queue is None or not len(queue.z):
            return outputs.zero(), {}
        found = [replace(e, z=self._neighbours(e.z.detach(), queue.z)) for e in outputs.views()]
        predicted = [replace(e, z=normalize(self._predict(e.z), dim=-1, eps=1e-12)) for e in outputs.views()]
        nn, p = (replace(outputs, student=views).pairs("within") for views in (found, predicted))
        terms = [(self._way(a.q, b.k, b, outputs) + self._way(a.k, b.q, b, outputs)) / 2 for a, b in zip(nn, p)]
        return mean(terms, outputs), {}

    def enqueue(self, outputs: Outputs) -> dict[str, Encoded]:
        first = outputs.views()[0]
        return {"support": replace(first, z=normalize(first.z.detach(), dim=-1, eps=1e-12))}

    def _predict(self, z: Tensor) -> Tensor:
        return z if self.predictor is None else self.predictor(z)

    def _way(self, neighbours: Tensor, predictions: Tensor, pair: Pair, outputs: Outputs) -> Tensor:
        ids = pair_ids(outputs, pair)
        return info_nce(neighbours, predictions, self.temperature, exclude=(ids, ids), direction=self.direction)

    def _neighbours(self, z: Tensor, queue: Tensor) -> Tensor:
        """(n, D): the queue row nearest to each row by cosine."""
        best = [(rows @ queue.T).argmax(1) for rows in z.split(self.CHUNK)]
        return queue[torch.cat(best)] if best else queue[:0]
