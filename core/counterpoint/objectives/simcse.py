"""Contrast of sentences: SimCSE, and ESimCSE with a queue of past sentences."""

from __future__ import annotations

from torch import Tensor

from counterpoint.batch import Encoded, Outputs
from counterpoint.errors import ComponentError
from counterpoint.kernels import softmax_stats
from counterpoint.objectives.info_nce import InfoNCE
from counterpoint.objectives.objective import Momentum, Needs


class SimCSE(InfoNCE):
    """SimCSE (Gao, Yao and Chen, 2021, eqs. 4 and 5): `info_nce` in one direction, from the earlier view to the later.

    For N aligned rows q, k of two views, L2-normalised, and hard negatives n, the rows of views of role `negative`:

        loss = mean_i -log( exp(q_i . k_i / T) / (sum_j exp(q_i . k_j / T) + sum_n exp(q_i . n / T)) )

    The positive is in the denominator, candidates come from the later view only, nothing is detached. The
    unsupervised form has two `copies` of a text, which differ by the encoder's dropout alone; the supervised one a
    sentence, its entailment, and its contradiction as `negative`, which is a negative of every anchor. T as in the
    paper (0.05); the weight on the own contradiction (appendix, 1 in the released code) is not offered.
    """

    def __init__(self, *, temperature: float = 0.05):
        super().__init__(temperature=temperature, direction="forward")


class ESimCSE(SimCSE):
    """ESimCSE (Wu et al., 2022, eq. 5): SimCSE with a queue of momentum embeddings as further negatives.

    As in `simcse`, and with queue rows m, L2-normalised and detached:

        loss = mean_i -log( exp(q_i . k_i / T) / (sum_j exp(q_i . k_j / T) + sum_m exp(q_i . m / T)) )

    After the loss the momentum encoder's rows of the first view enter the queue; it runs without dropout, on the text
    without repetition. So the first view is the text as it is and the second one has passed `token_repeat`:
    `{use: branches, n_global: 1, n_local: 1, local_steps: [{use: token_repeat}]}`. A queue row of the anchor's own sample is a negative, too: let the queue be short.

    queue  rows: 2.5 batches of 64 (2 for RoBERTa-large); momentum as in the released code. One modality
    """

    def __init__(self, *, temperature: float = 0.05, queue: int = 160, momentum: float = 0.995):
        super().__init__(temperature=temperature)
        if queue < 1:
            raise ComponentError(f"objective esimcse: queue is positive; got {queue}")
        self.queue, self.decay = queue, momentum

    def needs(self) -> Needs:
        return Needs(pairs="within", batch=2, momentum=Momentum(self.decay, dropout=False), queues={"keys": self.queue})

    def which(self, outputs: Outputs) -> str:
        return "within"

    def enqueue(self, outputs: Outputs) -> dict[str, Encoded]:
        return {"keys": outputs.views(of="momentum")[0]}

    def _hard(self, z: Tensor, modality: str, temperature: float | Tensor, outputs: Outputs) -> tuple[Tensor, ...]:
        queue = outputs.queues.get("keys")
        past = () if queue is None or not len(queue.z) else (softmax_stats(z, queue.z, 1.0 / temperature).rows,)
        return super()._hard(z, modality, temperature, outputs) + past
