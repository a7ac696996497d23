"""Pseudo labels: k-means of the embeddings of a whole data set."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from counterpoint.errors import ComponentError
from counterpoint.kernels.kmeans import kmeans, ranked
from counterpoint.refresh.refresh import Refresh, Space, Vectors


class KMeans(Refresh):
    """The k-means cluster of every sample, a group of the data that objectives and samplers may name.

    k-means++ from a seeded draw, then Lloyd's iterations on unit vectors, squared Euclidean distance; a cluster that
    runs empty takes the sample of the largest cluster that is farthest from its centre. A sample without the modality
    is of unknown group. The number of a cluster means nothing from one refresh to the next.

    of   the modality whose embeddings are clustered; None: the first of the recipe
    by   whose embeddings: stages before this one by name, or `teacher`, all of which stay as they are; []: those of the
         encoders that are trained. With several, a group is one cluster of each (MCL): sum_k cluster_k clusters^(S - 1 - k)
    top  more than 1: the groups NAME, NAME_2, ... are the cluster and the next nearest centres (MLCD: 8)
    """

    def __init__(
        self,
        *,
        clusters: int,
        of: str | None = None,
        every: int | None = 1,
        top: int = 1,
        iterations: int = 20,
        space: Space = "z",
        by: list[str] = [],  # noqa: B006
    ):
        super().__init__((of,), every, space, by)
        if clusters < 2 or iterations < 1 or not 1 <= top <= clusters:
            raise ComponentError(
                f"refresh kmeans: at least 2 clusters, 1 iteration and 1 <= top <= clusters; got {clusters}, {iterations}, {top}"
            )
        combined = clusters ** max(1, len(by))
        if len(set(by)) < len(by) or (len(by) > 1 and top > 1) or combined > 2**62:
            raise ComponentError(
                "refresh kmeans: `by` names each once, with top: 1 and at most 2^62 combined clusters where there are several; "
                f"got by: {by}, top: {top}, clusters: {clusters}"
            )
        self.clusters, self.identities = clusters, combined
        self.iterations, self.shape = iterations, (top,) if top > 1 else ()

    def lacking(self, size: int) -> str | None:
        return f"{self.clusters} clusters of {size} samples" if self.clusters > size else None

    def joined(self, columns: list[Tensor]) -> Tensor:
        whole = columns[0]
        for column in columns[1:]:
            whole = torch.where((whole < 0) | (column < 0), -1, whole * self.clusters + column)
        return whole

    def make(self, found: Mapping[str | None, Vectors], seed: int) -> Tensor:
        vectors = found[self.modalities[0]]
        column, rows = self.empty(len(vectors.rows)).to(vectors.rows.device), vectors.rows[vectors.known]
        if len(rows):
            labels, centres = kmeans(rows, self.clusters, seed, self.iterations)
            column[vectors.known] = ranked(rows, labels, centres, self.shape[0]) if self.shape else labels
        return column
