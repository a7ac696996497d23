"""FILIP: contrast by the similarity of tokens.

Dimensions: N aligned rows of a pair of views, L tokens of a row, C numbers of a token.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from counterpoint.batch import Encoded, Outputs
from counterpoint.errors import ComponentError
from counterpoint.objectives.mechanisms.rows import across_or_all
from counterpoint.objectives.mechanisms.scored import info_nce_of
from counterpoint.objectives.mechanisms.similarity import LateInteraction, Side, side
from counterpoint.objectives.mechanisms.temperature import Temperature
from counterpoint.objectives.objective import Needs, Objective, mean


class FILIP(Objective):
    """Fine-grained interactive contrast (Yao et al., 2022, section 3.1), the mean over pairs of modalities.

    N aligned rows, their tokens L2-normalised; f and b (N, N): forward and backward of `LateInteraction`, two tables
    that are not transposes of each other, l = f / temperature, r = b / temperature:

        loss = 1/2 [ mean_i -log( exp(l_ii) / sum_j exp(l_ij) ) + mean_j -log( exp(r_jj) / sum_i exp(r_ij) ) ]

    Positives are in the denominators, other rows of the own sample in none; nothing is detached; padding has no part in
    maximum or mean. Tokens must be of one width: head: {use: tokens} maps them, to 256 as in the paper. Where the recipe
    has one modality, pairs are those of its views.

    temperature  divides the means; its inverse is learned from 1 / 0.07 and kept from exceeding 100
    top          only so many tokens of the row that is looked at, those of the largest sum of similarities to the tokens
                 of its own partner, stand for it, while the row that looks keeps all: the selection of DeCLIP's
                 reimplementation (with 16). The paper selects 25 % by largest similarity, to save the exchange between
                 GPUs. None: all tokens. Retrieval uses all
    """

    def __init__(self, *, temperature: float = 0.07, learnable: bool = True, top: int | None = None):
        super().__init__()
        if top is not None and top < 1:
            raise ComponentError(f"objective filip: top is at least 1 token; got {top}")
        self.temperature, self.top, self.similarity = Temperature(temperature, learnable), top, LateInteraction()

    def needs(self) -> Needs:
        return Needs(pairs="all", batch=2, features=frozenset({"tokens"}))

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        temperature = self.temperature()
        terms = [self.pair_loss(*pair, temperature) for pair in sides_of_pairs(outputs, across_or_all(outputs))]
        return mean(terms, outputs), self.temperature.parts()

    def pair_loss(self, q: Side, k: Side, ids: Tensor, temperature: float | Tensor) -> Tensor:
        forward, backward = self._tables(q, k)
        forward = info_nce_of(forward / temperature, ids, ids)
        backward = info_nce_of(backward.T / temperature, ids, ids)
        return (forward.mean() + backward.mean()) / 2

    def _tables(self, q: Side, k: Side) -> tuple[Tensor, Tensor]:
        if self.top is None:
            return self.similarity(q, [k])
        fewer_q, fewer_k = selected(q, k, self.top), selected(k, q, self.top)
        return self.similarity(q, [fewer_k])[0], self.similarity(fewer_q, [k])[1]


def sides_of_pairs(outputs: Outputs, which: str) -> list[tuple[Side, Side, Tensor]]:
    """Every pair of views as two Sides of N aligned rows, and the ids int64 (N,) of their samples."""
    numbered = [replace(e, z=torch.arange(len(e.row), device=e.row.device)) for e in outputs.student]
    by_view = {e.view: e for e in outputs.student}
    found = []
    for pair in replace(outputs, student=numbered).pairs(which):
        q, k = by_view[pair.query.view], by_view[pair.key.view]
        found.append((_side(q, pair.q), _side(k, pair.k), outputs.batch.index[pair.row]))
    return found


def _side(e: Encoded, rows: Tensor) -> Side:
    if e.tokens is None:
        raise ComponentError(f"objective: the encoder of {e.modality!r} gives no tokens to compare")
    return side(e, rows)


@torch.no_grad()
def _best(s: Side, partner: Side, top: int) -> Tensor:
    """int64 (N, top): the real tokens of each row that are most alike to those of its partner, first; then padding."""
    real = s.tokens.new_ones(s.tokens.shape[:2], dtype=torch.bool) if s.mask is None else s.mask
    others = torch.nn.functional.normalize(partner.tokens, dim=-1)
    if partner.mask is not None:
        others = others * partner.mask[:, :, None]
    score = (torch.nn.functional.normalize(s.tokens, dim=-1) * others.sum(1, keepdim=True)).sum(-1)  # (N, L)
    return score.masked_fill(~real, -torch.inf).topk(min(top, score.shape[1]), dim=1).indices


def selected(s: Side, partner: Side, top: int) -> Side:
    """`s` with the `top` tokens a row that are most alike to those of the same row of `partner`."""
    best = _best(s, partner, top)
    tokens = s.tokens.gather(1, best[:, :, None].expand(-1, -1, s.tokens.shape[2]))
    return Side(s.z, tokens, None if s.mask is None else s.mask.gather(1, best))
