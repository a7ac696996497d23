"""Decoupled contrastive learning: the positive leaves the denominator."""

from __future__ import annotations

import torch
from torch import Tensor

from counterpoint.errors import ComponentError
from counterpoint.objectives.nt_xent import NTXent


class DCL(NTXent):
    """Decoupled contrastive learning (Yeh et al., 2022, eq. 6).

    All R rows of all views are stacked, L2-normalised, l_ab = z_a . z_b / temperature. For an anchor a and a positive
    p, rows of one sample in different views:

        term(a, p) = -l_ap + log sum_{b: sample of b is not sample of a} exp(l_ab)
        loss       = mean of term over all ordered positive pairs (2 B of them for two views of B samples)

    This is `nt_xent` with exp(l_ap) taken out of its denominator, which is why it is below `nt_xent` by
    log(1 + exp(l_ap) / sum_b exp(l_ab)) a term, and its gradient does not vanish when the positive is easy. Negatives
    come from the anchor's own view too (2 B - 2 of them); nothing is detached. The public code adds the means of the
    two views, twice this loss, and takes terms out by adding log(1e-45); here they are left out. An anchor without
    negatives gives 0.
    """

    denominator = "negatives"


class DCLW(DCL):
    """DCL with weighted positives (Yeh et al., 2022, section 3.2, negative von Mises-Fisher weighting).

        w_ap       = 2 - exp(z_a . z_p / sigma) / mean over positive pairs (b, q) of exp(z_b . z_q / sigma)
        term(a, p) = -w_ap l_ap + log sum_{b: sample of b is not sample of a} exp(l_ab)

    The rest as in `dcl`. Weights are 1 on average; a pair that is far apart has more than 1, at most 2, and a very
    close one among distant ones may have less than 0. As sigma grows the loss becomes that of `dcl`.

    detach_weights  True: the weights are constants of the step. False: the gradient reaches them, as in the public code,
                    which also divides by the sum over pairs where the paper has the mean
    """

    def __init__(
        self, *, temperature: float = 0.1, learnable: bool = False, sigma: float = 0.5, detach_weights: bool = True
    ):
        super().__init__(temperature=temperature, learnable=learnable)
        if sigma <= 0:
            raise ComponentError(f"objective dclw: sigma is positive; got {sigma}")
        self.sigma, self.detach_weights = sigma, detach_weights

    def positive(self, cosine: Tensor) -> Tensor:
        weight = 2 - len(cosine) * torch.softmax(cosine / self.sigma, 0)
        return (weight.detach() if self.detach_weights else weight) * cosine
