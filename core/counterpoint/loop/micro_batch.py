"""Micro-batches: what is made of some samples at a time, joined, and made again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from counterpoint.batch import Encoded, padded
from counterpoint.towers.tower import Tower, batch_statistics_kept

_RAGGED = ("tokens", "mask", "map", "input", "input_mask")  # of as many tokens as the longest in a micro-batch


def recomputed(make: Callable, tower: Tower, *arguments) -> list[Encoded]:
    """What `make` makes, with its activations made again in the backward pass; batch statistics count once."""
    contexts = partial(_recomputing, tower)
    return checkpoint(make, tower, *arguments, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)


def _recomputing(tower: Tower):
    return nullcontext(), batch_statistics_kept(tower)


def joined(parts: list[list[Encoded]]) -> list[Encoded]:
    """The views of several micro-batches joined; views that shared their rows still share them."""
    shared: dict[tuple[int, ...], Tensor] = {}
    return [_join(list(pieces), shared) for pieces in zip(*parts)]


def _join(pieces: list[Encoded], shared: dict) -> Encoded:
    rows = tuple(id(piece.row) for piece in pieces)
    if rows not in shared:
        shared[rows] = torch.cat([piece.row for piece in pieces])
    first = pieces[0]
    there = [name for name in _RAGGED if getattr(first, name) is not None]
    return replace(
        first,
        row=shared[rows],
        z=torch.cat([piece.z for piece in pieces]),
        h=torch.cat([piece.h for piece in pieces]),
        **{name: _cat_padded([getattr(piece, name) for piece in pieces]) for name in there},
        layers=tuple(torch.cat(layer) for layer in zip(*(piece.layers for piece in pieces))),
        heads={name: torch.cat([piece.heads[name] for piece in pieces]) for name in first.heads},
        meta={
            name: torch.cat([piece.meta[name] for piece in pieces])
            if isinstance(value, Tensor) and value.ndim and len(value) == len(first.row)
            else value
            for name, value in first.meta.items()
        },
    )


def _cat_padded(pieces: list[Tensor]) -> Tensor:
    """Rows of all pieces, padded with zeros (false) to the largest in every other dimension."""
    target = [max(sizes) for sizes in zip(*(piece.shape[1:] for piece in pieces))]
    return torch.cat([padded(piece, target) for piece in pieces])
