"""Dialog2Flow: positives in proportion to how alike their labels' texts are."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor
from torch.nn.functional import normalize

from counterpoint.batch import Outputs, Pair
from counterpoint.errors import ComponentError
from counterpoint.kernels import Grouped, info_nce
from counterpoint.kernels.soft import SoftmaxOf, soft_info_nce
from counterpoint.objectives.mechanisms.aligned import by_sample
from counterpoint.objectives.mechanisms.rows import classes
from counterpoint.objectives.objective import Needs, Objective, mean


class Dialog2Flow(Objective):
    """Soft contrastive loss of Dialog2Flow (Burdisso et al., 2024), the mean over pairs of views.

    For N aligned rows a, b (N, D), L2-normalised, and l_ij = a_i . b_j / temperature:

        soft  y_ij = softmax_j( cos(e_i, e_j) / label_temperature )     e_i: embedding of the label of sample i
        hard  y_ij = 1[label_i = label_j] / how many have label_i
        loss  = 1/2 [ -mean_i sum_j y_ij log( exp(l_ij) / sum_m exp(l_im) )
                    + -mean_j sum_i y_ji log( exp(l_ij) / sum_m exp(l_mj) ) ]

    Both directions have the same row-softmax y, not its transpose. All N rows are candidates, positives included; y
    has no gradient. Exactly one of `source` and `label` is given: a label's texts as a modality of their own, whose
    kept representation h is e (freeze its encoder), or the name of a label (then the loss is the hard one; as
    label_temperature goes to 0 the soft one becomes it). Rows of a sample without a label text take no part; a sample
    of unknown label (-1) matches only its own rows. Views of `source` form no pairs.

    The authors' code also multiplies the loss by the number of processes.
    """

    def __init__(
        self,
        *,
        source: str | None = None,
        label: str | None = None,
        temperature: float = 0.05,
        label_temperature: float = 0.35,
    ):
        super().__init__()
        if (source is None) == (label is None):
            got = "neither" if label is None else f"source: {source} and label: {label}"
            raise ComponentError(f"objective dialog2flow: expected one of `source` and `label`; got {got}")
        if temperature <= 0 or label_temperature <= 0:
            raise ComponentError(
                f"objective dialog2flow: a temperature is positive; got {temperature} and {label_temperature}"
            )
        self.source, self.label = source, label
        self.temperature, self.label_temperature = temperature, label_temperature

    def needs(self) -> Needs:
        if self.source is None:
            return Needs(pairs="all", batch=2, labels=frozenset({self.label}))
        return Needs(pairs="all", batch=2, modalities=(self.source,), apart=frozenset({self.source}))

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        views = [e for e in outputs.views() if e.modality != self.source]
        if len(views) == 1:
            raise ComponentError(
                "objective dialog2flow: needs two views of a sample beside its label's text; "
                f"add views.{views[0].modality}: [{{use: copies, n: 2}}, ...]"
            )
        pairs = replace(outputs, student=views).pairs()
        term = self._hard if self.source is None else self._soft
        return mean([term(pair, outputs) for pair in pairs], outputs), {}

    def _hard(self, pair: Pair, outputs: Outputs) -> Tensor:
        who = classes("dialog2flow", outputs, [replace(pair.query, row=pair.row)], self.label)
        return info_nce(pair.q, pair.k, self.temperature, positives=Grouped(who, who), direction="both")

    def _soft(self, pair: Pair, outputs: Outputs) -> Tensor:
        tables = [by_sample(e, e.h.detach().to(pair.q.dtype), len(outputs.batch)) for e in outputs.views(self.source)]
        e, known = normalize(sum(t[0] for t in tables), dim=-1)[pair.row], sum(t[1] for t in tables)[pair.row] > 0
        targets = SoftmaxOf(e[known], e[known], self.label_temperature)
        return soft_info_nce(pair.q[known], pair.k[known], self.temperature, targets, back=targets, direction="both")
