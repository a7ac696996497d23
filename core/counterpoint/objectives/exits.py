"""Self-distillation by exits: a network's last classifier teaches those on its way, on pseudo labels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from counterpoint.batch import Encoded, Outputs
from counterpoint.errors import ComponentError
from counterpoint.objectives.objective import Needs, Objective, mean


class Unfused(Objective):
    """The four-head loss of UNFUSED (Seth et al., 2023, section 3), the mean over views.

    z holds the logits of the last classifier, K = width of z classes, not normalised; the heads named in `exits` the
    logits q_e of classifiers on layers before it; y the pseudo label, CE the cross entropy, all means over the rows:

        L = CE(z, y) + alpha sum_e CE(q_e, y) + beta sum_e KL( softmax(z) || softmax(q_e) )
              + gamma sum_e ( 2 - 2 cos(q_e, z) )

    A row of unknown label has no cross entropy and stays in the mean. As in the released code, the gradient of the last
    two terms flows into z, too; `detach_targets` stops it, as self-distillation usually does.

        refresh: {cluster: {use: kmeans, clusters: 64, every: null}}
        heads:   {audio: {use: several, z: last, heads: {last: {use: linear, dim: 64}, first: {use: mlp, dim: 64}}}}

    group  the pseudo label, with at most K values; exits: names of heads beside z
    """

    unit = False

    def __init__(
        self,
        *,
        exits: list[str],
        group: str = "cluster",
        alpha: float = 0.7,
        beta: float = 0.3,
        gamma: float = 0.003,
        detach_targets: bool = False,
    ):
        super().__init__()
        if not exits:
            raise ComponentError("objective unfused: `exits` names at least one head")
        self.exits, self.group, self.detach_targets = list(exits), group, detach_targets
        self.alpha, self.beta, self.gamma = alpha, beta, gamma

    def needs(self) -> Needs:
        return Needs(groups=frozenset({self.group}), heads=frozenset(self.exits))

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        return mean([self._of(e, outputs) for e in outputs.views() if len(e.row)], outputs), {}

    def _of(self, e: Encoded, outputs: Outputs) -> Tensor:
        label = outputs.batch.groups[self.group][e.row]
        if int(label.max()) >= e.z.shape[1]:
            raise ComponentError(
                f"objective unfused: {self.group} names class {int(label.max())}, and z has {e.z.shape[1]} logits"
            )
        last = e.z.detach() if self.detach_targets else e.z
        target = last.log_softmax(1)
        loss = _cross_entropy(e.z, label)
        for name in self.exits:
            logits = e.heads[name].to(e.z)
            found = logits.log_softmax(1)
            divergence = (target.exp() * (target - found)).sum(1).mean()
            angle = (2 - 2 * cosine_similarity(logits, last, dim=1)).mean()
            loss = loss + self.alpha * _cross_entropy(logits, label) + self.beta * divergence + self.gamma * angle
        return loss


def _cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    found = logits.log_softmax(1).gather(1, label.clamp(min=0)[:, None])[:, 0]
    return -torch.where(label >= 0, found, torch.zeros_like(found)).mean()
