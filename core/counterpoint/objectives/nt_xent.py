"""NT-Xent: all views in one stack."""

from __future__ import annotations

import torch
from torch import Tensor

from counterpoint.batch import Outputs
from counterpoint.kernels import Grouped, contrast, info_nce, softmax_stats
from counterpoint.kernels.few import FewViews
from counterpoint.kernels.identities import counts
from counterpoint.kernels.info_nce import Denominator
from counterpoint.kernels.softmax import are_few
from counterpoint.objectives.mechanisms.rows import stack_views
from counterpoint.objectives.mechanisms.temperature import Temperature
from counterpoint.objectives.objective import Needs, Objective


class NTXent(Objective):
    """The normalised temperature-scaled cross entropy of SimCLR (Chen et al., 2020, eq. 1).

    All R rows of all V views are stacked, L2-normalised, l_ab = z_a . z_b / temperature. For an anchor a and a
    positive p, rows of one sample in different views:

        term(a, p) = -log( exp(l_ap) / (exp(l_ap) + sum_{b: sample of b is not sample of a} exp(l_ab)) )
        loss       = mean of term over all ordered positive pairs (2 B of them for two views of B samples)

    The positive is in the denominator, negatives come from the anchor's own view too, the temperature divides every
    logit, nothing is detached. With more than two views the other positives of an anchor are not among its negatives
    (`ntxent_multiview` has them in the denominator).
    The authors' code adds the means of the two views, twice this loss (which is the paper's algorithm 1). The default
    temperature is that of the ImageNet runs (section 5.1, table 5; CIFAR-10 has 0.5, appendix B.9).
    """

    denominator: Denominator = "all"

    @property
    def plain(self) -> bool:
        """Whether a subclass changes neither the denominator nor the positives."""
        return self.denominator == "all" and type(self).positive is NTXent.positive

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
        if self.plain and are_few(z, scale):
            return FewViews.apply(z, scale, ids[:, None] == ids, a, b), self.temperature.parts()
        negatives = softmax_stats(z, z, scale, exclude=(ids, ids)).rows  # (R,)
        positive = scale * self.positive((z[a] * z[b]).sum(-1))  # (P,)
        terms = [contrast(negatives[anchor], positive, self.denominator).mean() for anchor in (a, b)]
        return (terms[0] + terms[1]) / 2, self.temperature.parts()

    def positive(self, cosine: Tensor) -> Tensor:
        """(P,): what stands for the cosine (P,) of each positive pair; each pair comes once."""
        return cosine


class MultiviewNTXent(NTXent):
    """NT-Xent with every other row of the anchor's sample as a positive: L_out of Khosla et al., 2020, eq. 2.

    Each sample is a class of its own, which is what their code does without labels.

    All R rows of all V views are stacked, L2-normalised, l_ab = z_a . z_b / temperature. P(a): the other rows of a's
    sample, whichever view they are of.

        term(a) = -1/|P(a)| sum_{p in P(a)} log( exp(l_ap) / sum_{b != a} exp(l_ab) )
        loss    = mean of term over the anchors that have a positive

    The denominator holds the anchor's other positives beside the negatives, so that positives compete; in `nt_xent`
    they do not. For two views of one row each, and for them alone, the two are equal. Nothing is detached.
    """

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        z, ids, _ = stack_views(outputs)
        if not len(z):
            return outputs.zero(), self.temperature.parts()
        own = torch.arange(len(z), device=z.device)
        how = {"positives": Grouped(ids, ids), "exclude": (own, own), "denominator": self.denominator}
        terms = info_nce(z, z, self.temperature(), **how, reduction="none")
        anchors = (counts(len(z), len(z), (own, own), (ids, ids), z.device) > 0).sum()
        return terms.sum() / anchors.clamp(min=1), self.temperature.parts()
