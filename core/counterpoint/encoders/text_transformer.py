"""A small transformer over token ids, trained from scratch.

Dimensions: n rows, L tokens, H width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from counterpoint.batch import Features
from counterpoint.encoders.exits import exits
from counterpoint.errors import ComponentError
from counterpoint.markers import Vocabulary


class TextTransformer(nn.Module):
    """A bidirectional pre-norm transformer: token ids (n, L) -> h (n, H), tokens (n, L, H), layers 3 x (n, H).

    depth: layers; heads: must divide width; dropout: of attention, feed-forward and residuals; pool: mean over the real
    tokens, or the first token; max_tokens: positions that are learnt, a longer text is cut there. Padding has no
    influence on h. layers: the same pool of the residual stream after a quarter, half and three quarters of the layers,
    as far as there are any between. Source: Vaswani et al., 2017, section 3.1; layer norm before each block as in Xiong et al., ICML
    2020, and initial weights as in Radford et al., 2021, section 2.4.
    """

    def __init__(
        self,
        *,
        vocabulary: Vocabulary,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        dropout: float = 0.1,
        pool: Literal["mean", "first"] = "mean",
        max_tokens: int = 512,
    ):
        super().__init__()
        if width % heads:
            raise ComponentError(
                f"encoder 'text_transformer': heads must divide width; got heads: {heads}, width: {width}"
            )
        self.width, self.pool, self.max_tokens = width, pool, max_tokens
        self.token = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(torch.empty(max_tokens, width))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 4 * width, dropout, "gelu", batch_first=True, norm_first=True)
            for _ in range(depth)
        )
        self.norm, self.exits = nn.LayerNorm(width), exits(depth)
        self.layer_widths = (width,) * len(self.exits)
        self.gives = frozenset({"tokens", "layers"} if self.exits else {"tokens"})
        nn.init.normal_(self.token.weight, std=0.02)
        nn.init.normal_(self.position, std=0.01)

    def forward(self, data: Tensor, mask: Tensor | None = None) -> Features:
        data = data[:, : self.max_tokens]
        mask = torch.ones_like(data, dtype=torch.bool) if mask is None else mask[:, : self.max_tokens]
        x = self.token(data) + self.position[: data.shape[1]]  # (n, L, H)
        seen = []
        for number, layer in enumerate(self.layers, 1):
            x = layer(x, src_key_padding_mask=~mask)
            if number in self.exits:
                seen.append(pooled(x, mask, self.pool))
        x = self.norm(x)
        return Features(pooled(x, mask, self.pool), tokens=x, mask=mask, layers=tuple(seen))


def pooled(tokens: Tensor, mask: Tensor, how: str) -> Tensor:
    """(n, H) of tokens (n, L, H): the mean of the real ones, or the first."""
    if how == "first":
        return tokens[:, 0]
    weight = mask.to(tokens.dtype)[:, :, None]
    return (tokens * weight).sum(1) / weight.sum(1).clamp(min=1)
