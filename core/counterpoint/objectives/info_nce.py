"""InfoNCE between pairs of views, of any number of views and modalities."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from counterpoint.batch import Outputs, Pair
from counterpoint.errors import ComponentError
from counterpoint.kernels import Grouped, info_nce, softmax_stats
from counterpoint.kernels.info_nce import share_of_forward
from counterpoint.objectives.mechanisms.rows import pair_ids
from counterpoint.objectives.mechanisms.temperature import Temperature
from counterpoint.objectives.objective import Momentum, Needs, Objective, mean


class InfoNCE(Objective):
    """InfoNCE (van den Oord, Li and Vinyals, 2018, eq. 4), the mean over pairs of views.

    For a pair of views with N aligned rows q, k (N, D), L2-normalised, and l_ij = q_i . k_j / temperature:

        forward_i  = -log( exp(l_ii) / (exp(l_ii) + sum_{j: sample j is not sample i} exp(l_ij)) )
        backward_j = the same with the roles of q and k changed
        loss       = mean over pairs of views of  a * mean_i forward_i + (1 - a) * mean_j backward_j

    The positive is in the denominator, candidates come from the other view only, nothing is detached. a is 1/2 for
    `both`, 1 for `forward`, or `direction` itself. Other rows of the own sample are never negatives.

    With `positives` naming a group, all keys of the anchor's group are positives (Khosla et al., 2020, eq. 2, L_out):
    forward_i = -mean_{p in group of i} log( exp(l_ip) / sum_j exp(l_ij) ), the denominator over all keys; a sample
    of unknown group matches only itself. Rows of role `negative` in the key's modality join the denominator, own
    ones included (Gao, Yao and Chen, 2021, eq. 5).

    temperature      divides the logits; `learnable`: a parameter in log space, not under 0.01
    positives        index, or a group of the data
    pairs            all, within, across, or a modality (the query of every pair)
    direction        forward, both, or the share of forward in [0, 1]
    label_smoothing  share of the target spread evenly over all candidates (index positives only)
    momentum         decay of momentum encoders whose outputs, detached, are the keys of every student view, forward only
                     (Abbaspourazad et al., ICLR 2024, section 3.2, with a group as `positives`); None: the student's are

    Departs from the paper, which scores with a bilinear form, by cosine and temperature, as has become usual.
    """

    denominator: Literal["all", "negatives"] = "all"

    def __init__(
        self,
        *,
        temperature: float = 0.1,
        learnable: bool = False,
        positives: str = "index",
        pairs: str = "all",
        direction: Literal["forward", "both"] | float = "both",
        label_smoothing: float = 0.0,
        momentum: float | None = None,
    ):
        super().__init__()
        if label_smoothing and positives != "index":
            raise ComponentError(f"objective: label_smoothing goes with positives: index; got positives: {positives}")
        self.temperature = Temperature(temperature, learnable)
        self.positives, self.pairs, self.label_smoothing = positives, pairs, label_smoothing
        self.momentum, self.direction = momentum, 1.0 if momentum is not None else share_of_forward(direction)

    def needs(self) -> Needs:
        groups = frozenset() if self.positives == "index" else frozenset({self.positives})
        follows = None if self.momentum is None else Momentum(self.momentum)
        return Needs(pairs=self.pairs, batch=2, groups=groups, momentum=follows)

    def which(self, outputs: Outputs) -> str:
        """The kind of pairs the loss is over."""
        return self.pairs

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        temperature = self.temperature()
        pairs = outputs.pairs(self.which(outputs), keys="student" if self.momentum is None else "momentum")
        terms = [self.pair_loss(pair, temperature, outputs) for pair in pairs]
        return mean(terms, outputs), self.temperature.parts()

    def pair_loss(self, pair: Pair, temperature: float | Tensor, outputs: Outputs) -> Tensor:
        """The loss of one pair of views, in the directions that are asked for."""
        ids = pair_ids(outputs, pair, self.positives)
        extra = [self._hard(z, e.modality, temperature, outputs) for z, e in ((pair.q, pair.key), (pair.k, pair.query))]
        if not any(extra):
            return self.contrast(pair.q, pair.k, temperature, ids, (), self.direction)
        if self.label_smoothing:
            raise ComponentError("objective: label_smoothing does not go with views of role negative; leave one out")
        forward = self.contrast(pair.q, pair.k, temperature, ids, extra[0], 1.0)
        if self.direction == 1:
            return forward
        backward = self.contrast(pair.k, pair.q, temperature, ids, extra[1], 1.0)
        return self.direction * forward + (1 - self.direction) * backward

    def _hard(self, z: Tensor, modality: str, temperature: float | Tensor, outputs: Outputs) -> tuple[Tensor, ...]:
        """Log-sum-exps (N,) over the rows of each `negative` view of the modality."""
        return tuple(
            softmax_stats(z, e.z, 1.0 / temperature).rows for e in outputs.views(modality, "negative") if len(e.row)
        )

    def contrast(self, q, k, temperature, ids, extra, direction) -> Tensor:
        """Queries q (N, D) against keys k (N, D) of the identities ids (N,); `extra` joins the denominators, (N,) each."""
        how = {"extra": extra, "direction": direction, "denominator": self.denominator}
        if self.positives != "index":
            return info_nce(q, k, temperature, positives=Grouped(ids, ids), **how)
        return info_nce(q, k, temperature, exclude=(ids, ids), smoothing=self.label_smoothing, **how)
