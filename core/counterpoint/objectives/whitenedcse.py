"""WhitenedCSE: one anchor view against each of several positive views."""

from __future__ import annotations

from torch import Tensor

from counterpoint.batch import Outputs
from counterpoint.objectives.info_nce import InfoNCE
from counterpoint.objectives.objective import Needs


class WhitenedCSE(InfoNCE):
    """The loss of WhitenedCSE (Zhuo, Sun, Wang et al., ACL 2023, section 3.3), to be used with the head `whitening`.

    The first view of a modality is the anchor z_1, every other one a positive z_k, L2-normalised, N rows aligned:

        loss = sum over k of  mean_i -log( exp(z_1i . z_ki / t) / sum_j exp(z_1i . z_kj / t) )

    A sum over the positive views, not their mean; one direction, from the anchor; the positive is in the denominator, whose
    candidates are rows of view k alone. Nothing is detached. Three views in the paper, by dropout: views: [{use: copies,
    n: 3}]. Of several modalities, the mean of their losses. The authors' code cuts a batch of N x 3 rows, in which the
    three of a sample stand together, into thirds: what it compares are not views of one sample. That is not followed.
    """

    def __init__(self, *, temperature: float = 0.05):
        super().__init__(temperature=temperature, pairs="within", direction="forward")

    def needs(self) -> Needs:
        return Needs(pairs="within", batch=2)

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        temperature, losses = self.temperature(), []
        for modality in outputs.modalities():
            views = outputs.views(modality)
            pairs = [pair for pair in outputs.pairs("within") if pair.query is views[0]] if views else []
            terms = [self.pair_loss(pair, temperature, outputs) for pair in pairs]
            losses += [sum(terms)] if terms else []
        return (sum(losses) / len(losses) if losses else outputs.zero()), {}
