"""NT-Xent: all views in one stack."""

from __future__ import annotations

from torch import Tensor

from counterpoint.batch import Outputs
from counterpoint.kernels import contrast, softmax_stats
from counterpoint.kernels.info_nce import Denominator
from counterpoint.objectives.objective import Needs, Objective
from counterpoint.objectives.rows import stack_views
from counterpoint.objectives.temperature import Temperature


class NTXent(Objective):
    """The normalised temperature-scaled cross entropy of SimCLR (Chen et al., 2020, eq. 1).

    All R rows of all V views are stacked, L2-normalised, l_ab = z_a . z_b / temperature. For an anchor a and a
    positive p, rows of one sample in different views:

        term(a, p) = -log( exp(l_ap) / (exp(l_ap) + sum_{b: sample of b is not sample of a} exp(l_ab)) )
        loss       = mean of term over all ordered positive pairs (2 B of them for two views of B samples)

    The positive is in the denominator, negatives come from the anchor's own view too, the temperature divides every
    logit, nothing is detached. With more than two views the other positives of an anchor are not among its negatives.
    The authors' code adds the means of the two views, twice this loss (which is the paper's algorithm 1). The default
    temperature is that of the ImageNet runs (section 5.1, table 5; CIFAR-10 has 0.5, appendix B.9).
    """

    denominator: Denominator = "all"

    def __init__(self, *, temperature: float = 0.1, learnable: bool = False):
        super().__init__()
        self.temperature = Temperature(temperature, learnable)

    def needs(self) -> Needs:
        return Needs(pairs="all", batch=2)

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        scale = 1.0 / self.temperature()
        z, ids, (a, b) = stack_views(outputs)
        if not len(a):
            return outputs.zero(), self.temperature.parts()
        negatives = softmax_stats(z, z, scale, exclude=(ids, ids)).rows  # (R,)
        positive = scale * (z[a] * z[b]).sum(-1)  # (P,)
        terms = [contrast(negatives[anchor], positive, self.denominator).mean() for anchor in (a, b)]
        return (terms[0] + terms[1]) / 2, self.temperature.parts()
