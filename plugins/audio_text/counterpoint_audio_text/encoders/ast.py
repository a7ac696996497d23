"""The Audio Spectrogram Transformer, made by transformers.

Dimensions: n rows, M mel bands, T frames, P patches (and two more tokens), H width of `h`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from counterpoint.batch import Features
from counterpoint.encoders.stored import stored
from counterpoint.errors import ComponentError


def ast(
    *,
    model: str | None = None,
    mels: int = 128,
    frames: int = 1024,
    width: int = 192,
    depth: int = 12,
    heads: int = 3,
    patch: int = 16,
    stride: int = 10,
    dropout: float = 0.0,
) -> nn.Module:
    """AST: a vision transformer over overlapping patches of a log-mel spectrogram (n, M, T) -> h (n, H), tokens (n, P, H).

    model: the local folder of a model that transformers' ASTModel loads; it then says everything else. Without it the
    weights are fresh: mels, frames: size of the spectrogram it sees; a shorter one is padded with zeros, a longer one
    cut; width, depth, heads: of the transformer (192, 12, 3 are DeiT's tiny one, 768, 12, 12 AST's base); patch,
    stride: bands and frames of a patch, and between two. h is the mean of the two class tokens, as in AST.
    A padded row gives what it gives alone: padding is zero up to `frames` for every row, as AST was trained.
    Raises ComponentError for a folder without such a model, and for sizes that do not fit.
    Source: Gong, Chung and Glass, "AST: Audio Spectrogram Transformer", Interspeech 2021, section 2.
    """
    if heads < 1 or width % heads or patch > min(mels, frames):
        raise ComponentError(
            "encoder 'audio_text.ast': heads must divide width, and a patch fit in mels and frames; got "
            f"heads: {heads}, width: {width}, patch: {patch}, mels: {mels}, frames: {frames}"
        )
    from transformers import ASTConfig, ASTModel

    if model is not None:
        return _Patches(_loaded(model, ASTModel))
    config = ASTConfig(
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        patch_size=patch,
        frequency_stride=stride,
        time_stride=stride,
        max_length=frames,
        num_mel_bins=mels,
    )
    return _Patches(ASTModel(config))


def _loaded(model: str, kind: type) -> nn.Module:
    folder = Path(model).expanduser()
    if not (folder / "config.json").is_file():
        raise ComponentError(f"encoder 'audio_text.ast': model must be a folder with a config.json; got {model!r}")
    return stored("encoder 'audio_text.ast'", folder, kind, "model of AST")


class _Patches(nn.Module):
    """transformers' ASTModel, fed with (bands, frames) of any number of frames."""

    gives = frozenset({"tokens"})

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network, self.width = network, network.config.hidden_size

    def forward(self, data: Tensor, mask: Tensor | None = None) -> Features:
        mels, frames = self.network.config.num_mel_bins, self.network.config.max_length
        if data.shape[1] != mels:
            raise ComponentError(
                f"encoder 'audio_text.ast' sees {mels} bands; got {data.shape[1]}. Say `mels: {mels}` in audio_text.log_mel"
            )
        data = data if mask is None else data.masked_fill(~mask[:, None], 0.0)
        data = pad(data[..., :frames], (0, max(0, frames - data.shape[-1])))  # (n, M, frames)
        tokens = self.network(data.transpose(1, 2)).last_hidden_state  # (n, P + 2, H)
        real = torch.ones(tokens.shape[:2], dtype=torch.bool, device=data.device)
        return Features(tokens[:, :2].mean(1), tokens=tokens, mask=real)
