"""BYOL: predict the momentum embedding of another view."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor
from torch.nn.functional import normalize

from counterpoint.batch import Outputs
from counterpoint.markers import Dim
from counterpoint.objectives.mechanisms.predictor import Predictor
from counterpoint.objectives.objective import Momentum, Needs, Objective, mean


class BYOL(Objective):
    """Bootstrap your own latent (Grill et al., 2020, eq. 2), no negatives.

    For N aligned rows of views a and b, predictor p (linear D -> hidden, batch norm, ReLU, linear -> D), student z
    and momentum z' (detached), and cos the cosine:

        L_ab = mean_i ( 2 - 2 cos(p(z_a,i), z'_b,i) )
        loss = mean over unordered pairs of views of L_ab + L_ba   (their sum for two views, as in the paper)

    There is no temperature; z enters the predictor without normalisation, prediction and target are normalised. The
    momentum rises from 0.996 to 1 along a half cosine (section 3.3). The predictor sees each view on its own; its last
    linear has no bias, as in the authors' code. That code starts from 0.99 for runs of 100 or 300 epochs.

    dim is D, the width of z; hidden as in the ImageNet runs (section 3.3).
    """

    unit = False

    def __init__(self, *, dim: Dim, hidden: int = 4096, momentum: float = 0.996, final_momentum: float = 1.0):
        super().__init__()
        self.predictor = Predictor(dim, hidden, biased=(True, False))
        self.momentum, self.final_momentum = momentum, final_momentum

    def needs(self) -> Needs:
        return Needs(pairs="all", batch=2, momentum=Momentum(self.momentum, self.final_momentum))

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        predicted = [replace(e, z=self.predictor(e.z)) for e in outputs.views()]
        pairs = replace(outputs, student=predicted).pairs(keys="momentum")
        terms = [(2 - 2 * (normalize(p.q, dim=-1) * normalize(p.k, dim=-1)).sum(-1)).mean() for p in pairs]
        return 2 * mean(terms, outputs), {}
