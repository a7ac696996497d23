"""MoCo: negatives from a queue of momentum keys."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from counterpoint.batch import Encoded, Outputs, Pair
from counterpoint.errors import ComponentError
from counterpoint.kernels import contrast, softmax_stats
from counterpoint.kernels.identities import Rule, counts
from counterpoint.kernels.reference import log_sum_exp
from counterpoint.markers import Modalities
from counterpoint.objectives.mechanisms.rows import join, pair_ids
from counterpoint.objectives.objective import Momentum, Needs, Objective, mean


class Compared(NamedTuple):
    """What goes into the logits: queries q and their keys k (N, D), ids (N,), and queue rows negatives (K, D).

    exclude  rule of the queue rows that are no negatives; None: all are
    extra    (N, m) finished logits of further negatives
    """

    q: Tensor
    k: Tensor
    ids: Tensor
    negatives: Tensor
    exclude: Rule | None = None
    extra: Tensor | None = None


class MoCo(Objective):
    """Momentum contrast (He et al., 2020, eq. 1), the mean over (student view, another view's momentum) pairs.

    For N aligned rows q (student) and k (momentum, detached), L2-normalised, and queue rows n_1 ... n_K:

        loss = mean_i -log( exp(q_i . k_i / T) / (exp(q_i . k_i / T) + sum_m exp(q_i . n_m / T)) )

    One direction; the batch's other keys are no negatives; the temperature T divides every logit. The queue starts empty
    and the loss is 0 until it holds a row (the authors start from random rows). Keys are not shuffled between devices.

    symmetric   False: the earlier view is the query, the later one the key, as in v1 and v2. True: also the other way
                round, averaged (MoCo v3 adds the two, times 2 T; it has a predictor and no queue)
    drop_own    True: queue rows of the query's own sample are no negatives. The paper and its code keep them, which
                hardly matters where the data set is far larger than the queue; set it where it is not
    modalities  one (or None): pairs of its views and one queue, `keys`. Several: pairs across them and a queue for each,
                `keys_<modality>`; a query looks into the queue of its key's modality. A recipe fills in its own
    queue       capacity of each queue in rows. The keys of a batch enter after its loss: of views that served as key
    normalize   False: dot products of z as it is, in the loss and in the queue
    label_smoothing  share of the target spread evenly over the key and the negatives

    A subclass rewrites queries, keys and negatives in `mixed`; the queue always takes the keys as they were.

    Defaults are those of the ImageNet runs (section 4: queue 65536, momentum 0.999, T 0.07); MoCo v2 has T 0.2.
    """

    def __init__(
        self,
        *,
        temperature: float = 0.07,
        queue: int = 65536,
        momentum: float = 0.999,
        symmetric: bool = False,
        drop_own: bool = False,
        modalities: Modalities = None,
        normalize: bool = True,
        label_smoothing: float = 0.0,
    ):
        super().__init__()
        self.unit, self.label_smoothing = normalize, label_smoothing
        if temperature <= 0 or queue < 1:
            raise ComponentError(f"objective: temperature and queue are positive; got {temperature} and {queue}")
        if not 0 <= label_smoothing < 1:
            raise ComponentError(f"objective: label_smoothing is in [0, 1); got {label_smoothing}")
        self.temperature, self.queue, self.momentum = temperature, queue, momentum
        self.symmetric, self.drop_own = symmetric, drop_own
        self.modalities = modalities if modalities and len(modalities) > 1 else None

    def needs(self) -> Needs:
        names = ["keys"] if self.modalities is None else [f"keys_{m}" for m in self.modalities]
        return Needs(
            pairs="within" if self.modalities is None else "across",
            modalities=1 if self.modalities is None else tuple(self.modalities),
            momentum=Momentum(self.momentum),
            queues=dict.fromkeys(names, self.queue),
            index=self.drop_own,
            owners=self.drop_own,
        )

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        return mean([self.pair_loss(pair, outputs) for pair in self.view_pairs(outputs)], outputs), {}

    def enqueue(self, outputs: Outputs) -> dict[str, Encoded]:
        keys: dict[str, list[Encoded]] = {}
        served = {pair.key.view for pair in self.view_pairs(outputs)}
        for e in outputs.views(of="momentum"):
            if e.view in served:
                keys.setdefault(self.queue_of(e), []).append(e)
        return {name: join(views) for name, views in keys.items()}

    def view_pairs(self, outputs: Outputs) -> list[Pair]:
        """The pairs of a student's view and another view's momentum key that are compared."""
        self._check(outputs)
        pairs = outputs.pairs("within" if self.modalities is None else "across", keys="momentum")
        return [p for p in pairs if self._wants(p)]

    def _wants(self, pair: Pair) -> bool:
        listed = self.modalities is None or {pair.query.modality, pair.key.modality} <= set(self.modalities)
        return listed and (self.symmetric or pair.query.view < pair.key.view)

    def queue_of(self, e: Encoded) -> str:
        """The name of the queue that holds keys like this one."""
        return "keys" if self.modalities is None else f"keys_{e.modality}"

    def _check(self, outputs: Outputs) -> None:
        if self.modalities is None and len(names := outputs.modalities()) > 1:
            raise ComponentError(
                f"objective moco: one queue serves one modality, but the batch has {', '.join(names)}; "
                f"name them: modalities: [{', '.join(names)}]"
            )

    def pair_loss(self, pair: Pair, outputs: Outputs) -> Tensor:
        queue = outputs.queues.get(self.queue_of(pair.key))
        if queue is None or not len(queue.z):
            return outputs.zero()
        ids = pair_ids(outputs, pair)
        exclude = (ids, queue.ids()) if self.drop_own else None
        return self.contrast(self.mixed(Compared(pair.q, pair.k, ids, queue.z, exclude), outputs)).mean()

    def mixed(self, compared: Compared, outputs: Outputs) -> Compared:
        """What the logits are made of: here, what the encoders and the queue gave."""
        return compared

    def contrast(self, compared: Compared) -> Tensor:
        """(N,): the loss of every query."""
        q, k, _, queue, exclude, extra = compared
        scale, smoothing = 1.0 / self.temperature, self.label_smoothing
        positive = scale * (q * k).sum(-1)
        stats = softmax_stats(q, queue, scale, exclude=exclude, mean=smoothing > 0)
        negatives = stats.rows if extra is None else log_sum_exp(torch.cat([stats.rows[:, None], extra], 1), 1)
        loss = contrast(negatives, positive)
        if smoothing:
            n = counts(len(q), len(queue), exclude, None, q.device)
            loss = loss + smoothing * (positive - stats.mean) * n / (n + 1)
        return loss


class Contriever(MoCo):
    """The pretraining loss of Contriever (Izacard et al., 2022, section 3.2): `moco` on dot products of z as it is.

    The formula is that of `moco`: one direction, the batch's other keys are no negatives, the queue holds keys of past
    batches. Defaults are those of the released English model: no normalisation, T 0.05, queue 131072, momentum 0.9995
    (multilingual: 32768 and 0.999). The released code updates the momentum encoder just before the keys are made, here
    it is updated just after the optimizer's step, which is the same. Its queue starts from random unit rows, here
    empty. Views are two `token_crop`s of one text; `h` as z, by the head `identity`, is the authors' model.
    """

    def __init__(
        self,
        *,
        temperature: float = 0.05,
        queue: int = 131072,
        momentum: float = 0.9995,
        normalize: bool = False,
        label_smoothing: float = 0.0,
        drop_own: bool = False,
        modalities: Modalities = None,
    ):
        super().__init__(
            temperature=temperature,
            queue=queue,
            momentum=momentum,
            normalize=normalize,
            label_smoothing=label_smoothing,
            drop_own=drop_own,
            modalities=modalities,
        )
