"""SimSiam: predict another view's embedding, which is held still."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor
from torch.nn.functional import normalize

from counterpoint.batch import Outputs
from counterpoint.markers import Dim
from counterpoint.objectives.mechanisms.predictor import Predictor
from counterpoint.objectives.objective import Needs, Objective, mean


class SimSiam(Objective):
    """SimSiam (Chen and He, 2021, eqs. 1-4), no negatives and no momentum encoder.

    For N aligned rows of views a and b, predictor p (linear D -> hidden, batch norm, ReLU, linear -> D), sg = detach:

        L_ab = -mean_i cos(p(z_a,i), sg(z_b,i))
        loss = mean over unordered pairs of views of 1/2 L_ab + 1/2 L_ba

    There is no temperature. Predictions and targets are normalised inside the cosine. The predictor sees each view on
    its own; its first linear has no bias, as in the authors' code.

    dim is D, the width of z; hidden: None is D / 4, the paper's 512 for its D of 2048 (section 3).
    """

    unit = False

    def __init__(self, *, dim: Dim, hidden: int | None = None):
        super().__init__()
        self.predictor = Predictor(dim, hidden or max(dim // 4, 1), biased=(False, True))

    def needs(self) -> Needs:
        return Needs(pairs="all", batch=2)

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        predicted = [replace(e, z=normalize(self.predictor(e.z), dim=-1)) for e in outputs.views()]
        targets = [replace(e, z=normalize(e.z.detach(), dim=-1)) for e in outputs.views()]
        p_pairs, z_pairs = (replace(outputs, student=views).pairs() for views in (predicted, targets))
        terms = [-((p.q * z.k).sum(-1).mean() + (p.k * z.q).sum(-1).mean()) / 2 for p, z in zip(p_pairs, z_pairs)]
        return mean(terms, outputs), {}
