"""Tables of nearest neighbours: for every sample, the samples that are hard to tell from it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from counterpoint.errors import ComponentError
from counterpoint.refresh.refresh import Refresh, Space, Vectors

CHUNK = 2**24  # similarities held at a time


class Neighbours(Refresh):
    """The k most similar other samples of every sample by cosine, nearest first: a table for the sampler `neighbours`.

    Sample4Geo (Deuser et al., 2023, section 3.3): near neighbours of a street view among the satellite views make hard
    negatives. A sample without the modality has no neighbours and is nobody's.

    of     the modality that asks; None: the first of the recipe
    among  the modality that is searched; None: the same
    k      length of the table, which costs 4 k bytes a sample
    """

    def __init__(
        self,
        *,
        of: str | None = None,
        among: str | None = None,
        k: int = 128,
        every: int | None = 1,
        space: Space = "z",
    ):
        super().__init__((of, among or of), every, space)
        if k < 1:
            raise ComponentError(f"refresh neighbours: k is at least 1; got {k}")
        self.k, self.shape = k, (k,)

    def make(self, found: Mapping[str | None, Vectors], seed: int) -> Tensor:
        queries, keys = (found[modality] for modality in self.modalities)
        return neighbours(queries, keys, self.k)


@torch.no_grad()
def neighbours(queries: Vectors, keys: Vectors, k: int) -> Tensor:
    """int32 (N, k): the most similar other samples, nearest first, -1 where there are no more."""
    size, device = len(keys.rows), keys.rows.device
    table = torch.full((size, k), -1, dtype=torch.int32, device=device)
    step, most = max(1, CHUNK // max(1, size)), min(k, size)
    for start in range(0, size, step):
        rows = torch.arange(start, min(start + step, size), device=device)
        similar = queries.rows[rows] @ keys.rows.T  # (chunk, N)
        similar = similar.masked_fill(~keys.known, -torch.inf)
        similar[rows - start, rows] = -torch.inf
        value, place = similar.topk(most, dim=1)
        nobody = (value == -torch.inf) | ~queries.known[rows, None]
        table[rows, :most] = place.to(torch.int32).masked_fill(nobody, -1)
    return table
