"""Self-distillation by exits: a network's last classifier teaches those on its way, on pseudo labels."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from counterpoint.batch import Encoded, Outputs
from counterpoint.errors import ComponentError
from counterpoint.heads.projection import MLP
from counterpoint.markers import Given
from counterpoint.modules import NamedModules
from counterpoint.objectives.objective import Needs, Objective, mean

Classes = Annotated[int | None, Given("dim")]
Known = Annotated[dict[str, dict[str, Any]] | None, Given("facts")]


class Unfused(Objective):
    """The four-head loss of UNFUSED (Seth et al., 2023, section 3), the mean over views.

    z holds the logits of the last classifier, K = width of z classes, not normalised; q_e = P_e(x_e) the logits of exit e,
    where x_e is what the encoder gives of an earlier layer (three, in `layers`) and P_e three linear maps with batch
    normalisation and ReLU between; y the pseudo label, CE the cross entropy, all means over the rows:

        L = CE(z, y) + alpha sum_e CE(q_e, y) + beta sum_e KL( softmax(z) || softmax(q_e) )
              + gamma sum_e ( 2 - 2 cos(q_e, z) )

    A row of unknown label has no cross entropy and stays in the mean. As in the released code, the gradient of the last
    two terms flows into z, too; `detach_targets` stops it, as self-distillation usually does. P_e takes the statistics of
    the whole batch, its running ones for a view of one row.

        refresh: {cluster: {use: kmeans, clusters: 64, every: null, by: [first]}}     # by the stage `first`
        heads:   {audio: {use: linear, dim: 64}}

    group  the pseudo label, with at most K values
    exits  names of heads beside z that give q_e in place of P_e, for an encoder without `layers`:
           heads: {audio: {use: several, z: last, heads: {last: {use: linear, dim: 64}, first: {use: mlp, dim: 64}}}}
    """

    unit = False

    def __init__(
        self,
        *,
        exits: list[str] | None = None,
        group: str = "cluster",
        alpha: float = 0.7,
        beta: float = 0.3,
        gamma: float = 0.003,
        detach_targets: bool = False,
        dim: Classes = None,
        facts: Known = None,
    ):
        super().__init__()
        if exits == []:
            raise ComponentError("objective unfused: `exits` names at least one head")
        self.exits, self.group, self.detach_targets = list(exits or ()), group, detach_targets
        self.alpha, self.beta, self.gamma = alpha, beta, gamma
        widths = {} if exits else {name: known.get("layer_widths", ()) for name, known in (facts or {}).items()}
        self.projections = NamedModules(
            {name: nn.ModuleList(_projection(width, dim) for width in found) for name, found in widths.items()}
        )

    def needs(self) -> Needs:
        features = frozenset() if self.exits else frozenset({"layers"})
        return Needs(groups=frozenset({self.group}), heads=frozenset(self.exits), features=features)

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
        for logits in self._logits(e):
            found = logits.log_softmax(1)
            divergence = (target.exp() * (target - found)).sum(1).mean()
            angle = (2 - 2 * cosine_similarity(logits, last, dim=1)).mean()
            loss = loss + self.alpha * _cross_entropy(logits, label) + self.beta * divergence + self.gamma * angle
        return loss

    def _logits(self, e: Encoded) -> list[Tensor]:
        """(n, K) of every exit."""
        if self.exits:
            return [e.heads[name].to(e.z) for name in self.exits]
        if e.modality not in self.projections:
            raise ComponentError(
                f"objective unfused: facts do not say the layer_widths of {e.modality!r}, and `exits` names no heads; one of "
                f"them: facts={{{e.modality!r}: {{'layer_widths': (W1, W2, W3)}}}}"
            )
        projections = self.projections[e.modality].train(self.training and len(e.row) > 1)
        if len(e.layers) != len(projections):
            raise ComponentError(
                f"objective unfused: expected {len(projections)} layers of {e.modality!r}, as many as layer_widths; got "
                f"{len(e.layers)}"
            )
        return [project(layer.to(e.z)) for project, layer in zip(projections, e.layers, strict=True)]


def _projection(width: int, classes: int) -> nn.Module:
    return MLP(width=width, dim=classes, hidden=classes, layers=3, batch_norm=True)


def _cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    found = logits.log_softmax(1).gather(1, label.clamp(min=0)[:, None])[:, 0]
    return -torch.where(label >= 0, found, torch.zeros_like(found)).mean()
