"""Heads that make one vector of the tokens of any modality by parts that all modalities share.

Dimensions: n rows, L tokens of C numbers, K codes, D width of z.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from counterpoint.batch import Features
from counterpoint.errors import ComponentError
from counterpoint.markers import TokenWidth


def sparsemax(logits: Tensor) -> Tensor:
    """The Euclidean projection of every row (..., K) onto the simplex (Martins and Astudillo, ICML 2016, algorithm 1)."""
    ranked, _ = logits.sort(-1, descending=True)
    count = torch.arange(1, logits.shape[-1] + 1, device=logits.device, dtype=logits.dtype)
    total = ranked.cumsum(-1) - 1  # (..., K)
    support = (count * ranked > total).sum(-1, keepdim=True)
    threshold = total.gather(-1, support - 1) / support
    return (logits - threshold).clamp(min=0)


class FiniteTokens(nn.Module):
    """Finite discrete tokens (Chen et al., CVPR 2023, section 3): tokens (n, L, C) -> z (n, D) through a shared codebook.

    With the codes c_k (K, D) and q = layer norm, linear, GELU, layer norm, linear of the tokens, in each modality its own:

        a_k = pool over real tokens l of  q_l . c_k / (sqrt(D) temperature)
        z   = sum_k w_k c_k,  w = sparsemax(a): most weights are exactly 0

    The codebook is both key and value, one for all modalities of the recipe, and learns from all of them; nothing is
    detached. Train it by `clip`.

    pool    max (the paper's), mean or sum
    attend  sparsemax, or softmax, which spreads every row over all codes
    padding what a padded token counts for: out, or 0, which is what the authors' code puts in place of its logits: with
            `max` no code can then fall below 0 in a padded row
    """

    takes_features = True
    shared = ("codes",)

    def __init__(
        self,
        *,
        token_width: TokenWidth,
        dim: int = 512,
        codes: int = 16384,
        temperature: float = 1.0,
        pool: Literal["max", "mean", "sum"] = "max",
        attend: Literal["sparsemax", "softmax"] = "sparsemax",
        padding: Literal["out", "zero"] = "out",
    ):
        super().__init__()
        if min(dim, codes) < 1 or not temperature > 0:
            raise ComponentError(
                f"head 'fdt': dim, codes and temperature are positive; got {dim}, {codes}, {temperature}"
            )
        self.dim, self.pool, self.padding, self.scale = dim, pool, padding, 1.0 / (dim**0.5 * temperature)
        self.attend = sparsemax if attend == "sparsemax" else lambda a: a.softmax(-1)
        self.query = nn.Sequential(
            nn.LayerNorm(token_width), nn.Linear(token_width, dim), nn.GELU(), nn.LayerNorm(dim), nn.Linear(dim, dim)
        )
        self.codes = nn.Parameter(torch.randn(codes, dim))

    def forward(self, features: Features) -> Tensor:
        tokens, mask = real_tokens(features)
        query = self.query(tokens)
        with torch.autocast(tokens.device.type, enabled=False):  # sums over many codes
            codes = self.codes.to(torch.promote_types(self.codes.dtype, torch.float32))
            a = self.scale * query.to(codes.dtype) @ codes.T  # (n, L, K)
            return self.attend(self._pooled(a, mask)) @ codes

    def _pooled(self, a: Tensor, mask: Tensor) -> Tensor:
        """(n, K) of a (n, L, K)."""
        if self.padding == "zero":
            a, mask = a * mask[..., None], torch.ones_like(mask)
        if self.pool == "max":
            return a.masked_fill(~mask[..., None], -torch.inf).amax(1)
        total = (a * mask[..., None]).sum(1)
        return total if self.pool == "sum" else total / mask.sum(1, keepdim=True)


class Universal(nn.Module):
    """The universal projection of OneEncoder (Faye et al., 2024): tokens (n, L, C) -> z (n, D).

        z = mean over real tokens of U(P_m(tokens) + e_m)

    P_m, a linear map, and e_m, a vector that names the modality, are each modality's own (the alignment layer); the
    transformer U, of `depth` pre-norm layers, is one for all modalities of the recipe. An encoder without tokens gives its
    h as the only one. Modalities are added one after another in stages or runs: `train_shared: false` freezes U.
    """

    takes_features = True
    shared = ("stack",)

    def __init__(
        self,
        *,
        token_width: TokenWidth,
        dim: int = 256,
        depth: int = 4,
        heads: int = 4,
        dropout: float = 0.1,
        train_shared: bool = True,
    ):
        super().__init__()
        if min(dim, depth, heads) < 1 or dim % heads:
            raise ComponentError(
                f"head 'oneencoder': heads must divide dim; got heads: {heads}, dim: {dim}, depth: {depth}"
            )
        self.dim = dim
        self.align = nn.Linear(token_width, dim)
        self.modality = nn.Parameter(0.02 * torch.randn(dim))
        layer = nn.TransformerEncoderLayer(dim, heads, 4 * dim, dropout, "gelu", batch_first=True, norm_first=True)
        self.stack = nn.TransformerEncoder(layer, depth, nn.LayerNorm(dim), enable_nested_tensor=False)
        self.stack.requires_grad_(train_shared)

    def forward(self, features: Features) -> Tensor:
        tokens, mask = real_tokens(features)
        x = self.stack(self.align(tokens) + self.modality, src_key_padding_mask=~mask)  # (n, L, D)
        return (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def real_tokens(features: Features) -> tuple[Tensor, Tensor]:
    """Tokens (n, L, C), h as the only one where the encoder has none, and which are real, bool (n, L).

    A row of which nothing is real is taken as it is: padding alone.
    """
    tokens = features.h[:, None] if features.tokens is None else features.tokens
    if features.tokens is None or features.mask is None:
        return tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    return tokens, features.mask | ~features.mask.any(1, keepdim=True)
