"""A causal decoder of token ids, and what predicting a text with it costs.

Dimensions: N rows, L tokens of the text, M tokens of the memory, W width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from counterpoint.errors import ComponentError
from counterpoint.kernels.by_rows import by_rows

MAX_TOKENS = 512  # positions that are learnt; a longer text is predicted up to there


class Decoder(nn.Module):
    """Token ids (N, L) and a memory (N, M, C) -> logits (N, L, V), each position seeing those up to itself.

    `alone` layers look at the text only, then `crossing` layers at the memory too; pre-norm, no dropout.
    """

    def __init__(self, vocabulary: int, memory_width: int, width: int, alone: int, crossing: int, heads: int):
        super().__init__()
        if min(width, heads, crossing) < 1 or width % heads:
            raise ComponentError(
                f"objective: heads must divide the decoder's width; got heads: {heads}, width: {width}"
            )
        options = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": True}
        self.vocabulary = vocabulary
        self.token = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(0.01 * torch.randn(MAX_TOKENS, width))
        self.memory = nn.Linear(memory_width, width)
        self.alone = nn.ModuleList(nn.TransformerEncoderLayer(width, heads, 4 * width, **options) for _ in range(alone))
        self.crossing = nn.ModuleList(
            nn.TransformerDecoderLayer(width, heads, 4 * width, **options) for _ in range(crossing)
        )
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, vocabulary)
        nn.init.normal_(self.token.weight, std=0.02)

    def forward(self, ids: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        length = ids.shape[1]
        later = torch.ones(length, length, dtype=torch.bool, device=ids.device).triu(1)  # True: is not looked at
        hidden = None if mask is None else ~(mask | ~mask.any(1, keepdim=True))
        x = self.token(ids) + self.position[:length]  # (N, L, W)
        memory = self.memory(memory.to(x.dtype))
        for layer in self.alone:
            x = layer(x, src_mask=later)
        for layer in self.crossing:
            x = layer(x, memory, tgt_mask=later, memory_key_padding_mask=hidden)
        return self.out(self.norm(x))

    def surprise(self, ids: Tensor, real: Tensor, memory: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(N,), (N,): -log p of each text's tokens after the first, summed, and their number; some rows at a time.

        Padding stands at the end of a text, where no real token looks at it.
        """
        ids, real = ids[:, : MAX_TOKENS + 1], real[:, : MAX_TOKENS + 1]
        cost = ids.shape[1] * (self.vocabulary + 16 * self.token.embedding_dim)
        return by_rows(self._surprise, (ids, real, memory, mask), (), cost)

    def _surprise(self, ids: Tensor, real: Tensor, memory: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        logits = self(ids[:, :-1], memory, mask)
        losses = cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(len(ids), -1)
        there = real[:, 1:].to(losses)
        return (losses * there).sum(1), there.sum(1)
