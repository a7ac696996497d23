"""RoBERTa-like encoders through transformers, with fresh weights or those of a local folder.

Dimensions: n rows, L tokens, H width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from counterpoint.batch import Features
from counterpoint.data.sources import model_folder
from counterpoint.encoders.text_transformer import pooled
from counterpoint.errors import ComponentError
from counterpoint.markers import Vocabulary

WHO = "encoder 'code_search.roberta'"


def roberta(
    *,
    vocabulary: Vocabulary,
    width: int = 256,
    depth: int = 4,
    heads: int = 4,
    max_tokens: int = 512,
    dropout: float = 0.1,
    pool: Literal["mean", "first"] = "mean",
    weights: str | None = None,
) -> nn.Module:
    """RoBERTa (the architecture of CodeBERT, GraphCodeBERT and UniXcoder): ids (n, L) -> h (n, H), tokens (n, L, H).

    width, depth, heads: of a network with fresh weights; heads must divide width, the feed-forward is 4 x width.
    max_tokens: positions; a longer text is cut there. dropout: of attention and hidden states. pool: mean over the real
    tokens, or the first token. weights: folder of a pretrained RoBERTa (config.json and model.safetensors), whose sizes
    and vocabulary then hold; read with its tokenizer, `tokenizer: FOLDER`. Padding has no influence on h.
    Raises DataError when the folder is missing, ComponentError when it holds no RoBERTa or too small a vocabulary.
    Source: Liu et al., "RoBERTa", 2019; Feng et al., "CodeBERT", EMNLP 2020; pooling: Shi et al., "CoCoSoDa", ICSE 2023.
    """
    if width % heads:
        raise ComponentError(f"{WHO}: heads must divide width; got heads: {heads}, width: {width}")
    network = _fresh(vocabulary, width, depth, heads, max_tokens, dropout) if weights is None else _stored(weights)
    if network.config.vocab_size < vocabulary:
        raise ComponentError(
            f"{WHO}: {weights} knows {network.config.vocab_size} tokens, the data has {vocabulary}; "
            f"read the data with its tokenizer: tokenizer: {weights}"
        )
    return Roberta(network, pool)


def _models():
    try:
        from transformers import RobertaConfig, RobertaModel
    except ImportError as error:
        raise ComponentError(f"{WHO} needs the package transformers: pip install 'transformers>=5,<6'") from error
    return RobertaConfig, RobertaModel


def _fresh(vocabulary: int, width: int, depth: int, heads: int, max_tokens: int, dropout: float) -> nn.Module:
    config, model = _models()
    sizes = config(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=max_tokens + 1,  # position 0 is padding's
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        type_vocab_size=1,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return model(sizes, add_pooling_layer=False)


def _stored(folder: str) -> nn.Module:
    config, model = _models()
    path: Path = model_folder(folder, f"{WHO}: weights")
    try:
        sizes = config.from_pretrained(path, local_files_only=True)
        if sizes.model_type != "roberta" or not path.is_dir():
            raise ValueError(f"its model_type is {sizes.model_type!r}")
        return model.from_pretrained(path, add_pooling_layer=False, local_files_only=True, use_safetensors=True).float()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ComponentError(f"{WHO}: weights: {folder} holds no RoBERTa in safetensors: {error}") from error


class Roberta(nn.Module):
    """A `RobertaModel`, its token states pooled; positions count real tokens, whatever id padding has."""

    gives = frozenset({"tokens"})

    def __init__(self, network: nn.Module, pool: str):
        super().__init__()
        self.network, self.pool, self.width = network, pool, network.config.hidden_size
        self.first = network.config.pad_token_id + 1
        self.longest = network.config.max_position_embeddings - self.first

    def forward(self, data: Tensor, mask: Tensor | None = None) -> Features:
        data = data[:, : self.longest]
        mask = torch.ones_like(data, dtype=torch.bool) if mask is None else mask[:, : self.longest]
        place = (mask.cumsum(1) - 1 + self.first).masked_fill(~mask, self.first - 1)  # (n, L)
        states = self.network(input_ids=data, attention_mask=mask.long(), position_ids=place)
        return Features(pooled(states.last_hidden_state, mask, self.pool), tokens=states.last_hidden_state, mask=mask)
