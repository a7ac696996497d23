"""M3CoL: contrast of mixtures with both of the samples they hold, then soft targets."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from counterpoint.batch import MIXED, Encoded, Outputs, Pair, align
from counterpoint.errors import ComponentError
from counterpoint.kernels.soft import Indexed, SoftmaxOf, soft_info_nce
from counterpoint.objectives.mechanisms.aligned import places
from counterpoint.objectives.objective import Needs, Objective


class M3CoL(Objective):
    """Multimodal mixup contrastive learning (Kumar, Singhal et al., 2024): MixCo, then soft CLIP.

    While less than the share `mix_until` of the run is done, for a view of role `mixed` (made by the view `mix`) whose
    row i is share_i x_i + (1 - share_i) x_partner(i), z its N rows, b the aligned rows of another modality, not mixed,
    and l_ij = z_i . b_j / temperature, all L2-normalised:

        P_ij    = share_i where j is sample i, + 1 - share_i where j is its partner
        mix     = 1/2 [ -mean_i sum_j P_ij log( exp(l_ij) / sum_m exp(l_im) )
                      + -mean_j sum_i P_ij log( exp(l_ij) / sum_m exp(l_mj) ) ]

    After that, for the aligned views a, b of two modalities that are not mixed, l_ij = a_i . b_j / soft_temperature:

        P_ij    = softmax_j( b_i . b_j / soft_temperature )
        soft    = 1/2 [ -mean_i sum_j P_ij log( exp(l_ij) / sum_m exp(l_im) )
                      + -mean_j sum_i P_ji log( exp(l_ij) / sum_m exp(l_mj) ) ]

    The loss is the sum over (mixed view, other modality), and over ordered pairs of modalities: two terms for two
    modalities, as in the authors' code, which adds 0.1 of it to its supervised losses (weigh the objective so). The
    second direction of `mix` has P transposed, whose rows do not add up to 1; that of `soft` has the same row-softmax. A
    partner without a row in b has no weight; several rows of a partner share it. All N rows are candidates.

    Departures: partners are never the sample itself, where the authors' permutation may have fixed points, whose weight
    their code then overwrites; inputs are mixed as the paper has it, where the released model mixes embeddings.

    detach_targets  True: no gradient through P of soft CLIP. The paper's formula and its code have one
    """

    def __init__(
        self,
        *,
        temperature: float = 0.1,
        soft_temperature: float = 0.125,
        mix_until: float = 0.33,
        detach_targets: bool = False,
    ):
        super().__init__()
        if temperature <= 0 or soft_temperature <= 0:
            raise ComponentError(
                f"objective m3col: a temperature is positive; got {temperature} and {soft_temperature}"
            )
        self.temperature, self.soft_temperature = temperature, soft_temperature
        self.mix_until, self.detach_targets = mix_until, detach_targets

    def needs(self) -> Needs:
        roles = frozenset({MIXED} if self.mix_until > 0 else ())
        return Needs(pairs="across", modalities=2, batch=2, roles=roles, index=bool(roles))

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        mixing = self.mix_until > 0 and outputs.step < self.mix_until * outputs.total_steps
        plain = outputs.views()
        queries = outputs.views(role=MIXED) if mixing else plain
        pairs = [align(a, b) for a in queries for b in plain if a.modality != b.modality]
        term = self._mix if mixing else self._soft
        return sum((term(pair, outputs) for pair in pairs if len(pair.row)), outputs.zero()), {}

    def _mix(self, pair: Pair, outputs: Outputs) -> Tensor:
        targets = _both_samples(pair, outputs)
        return soft_info_nce(pair.q, pair.k, self.temperature, targets, direction="both")

    def _soft(self, pair: Pair, outputs: Outputs) -> Tensor:
        b = pair.k.detach() if self.detach_targets else pair.k
        targets = SoftmaxOf(b, b, self.soft_temperature)
        return soft_info_nce(pair.q, pair.k, self.soft_temperature, targets, back=targets, direction="both")


def _both_samples(pair: Pair, outputs: Outputs) -> Indexed:
    """The weights of each mixture's own row and of its partner's rows among the N keys."""
    n, i = len(pair.row), places(pair)[0]
    if lacking := {"partner", "share"} - set(pair.query.meta):
        raise ComponentError(
            f"objective m3col: a view of role {MIXED} says the partner of each row, its index in the data set, and the share "
            f"of the own sample; {pair.query.modality!r} lacks {', '.join(sorted(lacking))} in its meta"
        )
    partner, share = (pair.query.meta[name][i] for name in ("partner", "share"))
    own, mixture, key = _joined(pair.query, partner, outputs.batch.index[pair.row])
    rest = (1 - share)[mixture] / torch.bincount(mixture, minlength=n)[mixture]
    return Indexed(torch.cat([own, mixture]), torch.cat([own, key]), torch.cat([share, rest]), (n, n))


def _joined(e: Encoded, wanted: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """0 ... N-1, and every (mixture, key) where the key is of the sample wanted."""
    place = torch.arange(len(ids), device=ids.device)
    found = align(replace(e, row=wanted, z=place), replace(e, row=ids, z=place))
    return place, found.q, found.k
