"""The view of LightGCL. Dimensions: N nodes, E edges, q rank."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from counterpoint.randomness import Draw
from counterpoint_graphs.graph import DataGraph, Graph
from counterpoint_graphs.views import Whole


class SVD(Whole):
    """The adjacency as its truncated singular value decomposition shows it (LightGCL, Cai et al., ICLR 2023).

    With A~ = D^-1/2 A D^-1/2 = U S V^T, the view's adjacency is U_q S_q V_q^T, of the `rank` q largest singular values: dense,
    but held as two (N, q) factors. Computed once, from the graph of the data; edges that were dropped before count as there.
    Nothing in it is random. Rank 5 is the authors' choice.

    A~ is symmetric, so that U S V^T comes of the eigenvalues that are largest in magnitude. Departs from the paper, where
    layer l multiplies the main view's embeddings of layer l - 1: here a view is encoded on its own, so that its layers
    follow one another. With one layer there is no difference.
    """

    def __init__(self, *, graph: DataGraph, rank: int = 5):
        super().__init__(graph=graph)
        if not 0 < rank < len(graph.x):
            raise ValueError(f"rank is above 0 and below the number of nodes, {len(graph.x)}; got {rank}")
        left, right = factors(graph, rank)
        self.register_buffer("left", left.to(graph.x), persistent=False)
        self.register_buffer("right", right.to(graph.x), persistent=False)

    def changed(self, graph: Graph, draw: Draw) -> Graph:
        return replace(graph, factors=(self.left.to(graph.x.device), self.right.to(graph.x.device)))


def factors(graph: Graph, rank: int) -> tuple[Tensor, Tensor]:
    """U_q S_q and V_q, float64 (N, q) each, of the normalised adjacency."""
    from scipy.sparse.linalg import eigsh

    count = len(graph.x)
    start = np.random.default_rng(0).standard_normal(count)  # the same factors whenever they are computed
    values, vectors = eigsh(normalised(graph), k=rank, which="LM", v0=start)
    return torch.from_numpy(vectors * values), torch.from_numpy(vectors)


def normalised(graph: Graph):
    """D^-1/2 A D^-1/2, a sparse float64 (N, N) of scipy; nodes without an edge have a row of zeros."""
    from scipy.sparse import coo_array

    edges, weight = (tensor.numpy() for tensor in graph.both_ways())
    degree = np.bincount(edges[0], weight, minlength=len(graph.x))
    scale = np.divide(1.0, np.sqrt(degree), out=np.zeros_like(degree), where=degree > 0)
    return coo_array((weight * scale[edges[0]] * scale[edges[1]], edges), (len(graph.x),) * 2).tocsr()
