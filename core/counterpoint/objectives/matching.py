"""Matching: whether two modalities' tokens, looked at together, are of one sample; the wrong partners are chosen to be hard.

Dimensions: N aligned rows of a pair of views, L tokens of the side that asks, M of the side that is looked at, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from counterpoint.batch import Encoded, Outputs, Pair
from counterpoint.errors import ComponentError
from counterpoint.kernels.by_rows import by_rows
from counterpoint.markers import Facts
from counterpoint.modules import NamedModules
from counterpoint.objectives.mechanisms.aligned import places
from counterpoint.objectives.mechanisms.facts import fact
from counterpoint.objectives.objective import Needs, Objective
from counterpoint.randomness import Draw, key


class Fusion(nn.Module):
    """Tokens (N, L, C) that ask and tokens (N, M, E) that are looked at -> logits (N, 2): other samples, or one.

    A learned token stands before those that ask; pre-norm layers of self-attention and cross-attention, no dropout.
    """

    def __init__(self, asks: int, looked_at: int, width: int, layers: int, heads: int):
        super().__init__()
        options = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": True}
        self.first = nn.Parameter(0.02 * torch.randn(width))
        self.asks, self.looked_at = nn.Linear(asks, width), nn.Linear(looked_at, width)
        made = (nn.TransformerDecoderLayer(width, heads, 4 * width, **options) for _ in range(layers))
        self.layers = nn.ModuleList(made)
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, 2)

    def forward(self, asks: Tensor, asks_mask: Tensor, looked_at: Tensor, looked_at_mask: Tensor) -> Tensor:
        first = self.first.expand(len(asks), 1, -1)
        x = torch.cat([first, self.asks(asks.to(first.dtype))], 1)  # (N, 1 + L, W)
        memory = self.looked_at(looked_at.to(first.dtype))
        padding = ~torch.cat([asks_mask.new_ones(len(asks), 1), asks_mask], 1)
        hidden = ~(
            looked_at_mask | ~looked_at_mask.any(1, keepdim=True)
        )  # a row without a token attends to its padding
        for layer in self.layers:
            x = layer(x, memory, tgt_key_padding_mask=padding, memory_key_padding_mask=hidden)
        return self.out(self.norm(x[:, 0]))


class Matching(Objective):
    """Image-text matching (Li et al., 2021, "ALBEF", section 3.2; Li et al., 2022, "ALPRO", section 3.2), for any two modalities.

    For each of N aligned rows of a pair, a partner of another sample is drawn for either side, with probability
    proportional to exp(z_i . z_j / temperature) over the batch. A transformer that belongs to the objective looks at the tokens
    of both sides and says p(of one sample); over the N pairs that match and the 2N that do not,

        loss = mean -log p(what is true), the mean over pairs of views

    The draw has no gradient; tokens of both encoders learn. A row whose batch has no other sample has only its match. Stands
    beside a contrast that makes z: `objective: {contrast: {use: clip}, match: {use: matching}}`.

    temperature  of the draw: 0.07; the papers follow the learned one of the contrast
    width, layers, heads  of the transformer; the text asks where one of two modalities has a vocabulary, else the first

    Departs from the papers, whose fusion layers are the upper half of a pretrained text encoder: here they are apart and new.

    Drawn, for every pair of views alike: wrong_key and wrong_query int64 (N,), for each of the N pairs the place of the pair
    from which the other side is taken.
    """

    draws = ("wrong_key", "wrong_query")

    def __init__(self, *, facts: Facts, temperature: float = 0.07, width: int = 256, layers: int = 3, heads: int = 4):
        super().__init__()
        if min(width, layers, heads) < 1 or width % heads or temperature <= 0:
            raise ComponentError(
                "objective 'matching': expected layers of 1 or more, heads that divide the width, and a temperature above 0; got "
                f"layers: {layers}, heads: {heads}, width: {width}, temperature: {temperature}"
            )
        self.temperature, self.modalities = temperature, list(facts)
        names = self.modalities
        couples = [_asking(a, b, facts) for i, a in enumerate(names) for b in names[i + 1 :]]
        widths = {name: fact("matching", name, known, "token_width") for name, known in facts.items()}
        made = {f"{a}, {b}": Fusion(widths[a], widths[b], width, layers, heads) for a, b in couples}
        self.fusions: nn.ModuleDict = NamedModules(made)

    def needs(self) -> Needs:
        named = tuple(self.modalities) if len(self.modalities) > 1 else 2
        return Needs(pairs="across", batch=2, modalities=named, features=frozenset({"tokens"}))

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        seed = outputs.seed()
        found = [self._match(pair, outputs, seed) for pair in outputs.pairs("across")]
        found = [(loss, right) for loss, right in found if loss is not None]
        if not found:
            return outputs.zero(), {}
        losses, right = zip(*found)
        return sum(losses) / len(losses), {"right": torch.stack(right).mean()}

    def _match(self, pair: Pair, outputs: Outputs, seed: int) -> tuple[Tensor | None, Tensor | None]:
        """The loss of a pair of views, and the share of decisions that are right."""
        query, other = pair.query, pair.key
        if not len(pair.row) or query.tokens is None or other.tokens is None:
            return None, None
        i, j = places(pair)
        ids, alike = outputs.batch.index[pair.row], (pair.q @ pair.k.T).detach() / self.temperature
        for_query, has = drawn(alike, ids, key(seed, query.view, other.view))
        for_key, _ = drawn(alike.T, ids, key(seed, other.view, query.view))
        wrong_key = outputs.drawn("wrong_key", ids.shape, lambda: for_query)
        wrong_query = outputs.drawn("wrong_query", ids.shape, lambda: for_key)
        rows = torch.cat([i, i[has], i[wrong_query[has]]]), torch.cat([j, j[wrong_key[has]], j[has]])
        logits = self._logits(query, other, *rows)
        truth = torch.arange(len(logits), device=logits.device) < len(i)
        return cross_entropy(logits, truth.long()), (logits.detach().argmax(1) == truth).float().mean()

    def _logits(self, query: Encoded, other: Encoded, i: Tensor, j: Tensor) -> Tensor:
        name = f"{query.modality}, {other.modality}"
        if name not in self.fusions:
            return self._logits(other, query, j, i)
        fusion = self.fusions[name]
        sides = [side for e, row in ((query, i), (other, j)) for side in (e.tokens[row], _mask(e)[row])]
        a, m, width = sides[0].shape[1] + 1, sides[2].shape[1], fusion.norm.normalized_shape[0]
        cost = len(fusion.layers) * (a * (a + m) * fusion.layers[0].self_attn.num_heads + (16 * a + 2 * m) * width)
        return by_rows(lambda *parts: (fusion(*parts),), tuple(sides), (), cost)[0]


def _asking(a: str, b: str, facts: Facts) -> tuple[str, str]:
    """The two modalities, the one that asks first: the one that has a vocabulary where the other has none."""
    texts = [bool(facts[name].get("vocabulary")) for name in (a, b)]
    return (b, a) if texts == [False, True] else (a, b)


def _mask(e: Encoded) -> Tensor:
    return e.mask if e.mask is not None else e.tokens.new_ones(e.tokens.shape[:2], dtype=torch.bool)


@torch.no_grad()
def drawn(alike: Tensor, ids: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """int64 (N,): a column of another sample for every row of logits (N, N), by their softmax; bool (N,): whether there is one.

    The draw of a row depends on its sample and on the seed, the columns are gone through in the order of their samples.
    """
    order = ids.argsort(stable=True)
    alike = alike.masked_fill(ids[:, None] == ids, -torch.inf)[:, order]
    has = (alike > -torch.inf).any(1)
    chances = alike.masked_fill(~has[:, None], 0.0).softmax(1).cumsum(1)
    wanted = Draw(seed, ids).uniform(1, high=1 - 2**-22).to(chances) * chances[:, -1:]
    place = torch.searchsorted(chances, wanted, right=True).squeeze(1).clamp(max=len(ids) - 1)
    return order[place], has
