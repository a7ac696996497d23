"""The graph itself. Dimensions: N nodes, F features, E edges, q rank of a low-rank adjacency."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from counterpoint.errors import ComponentError
from counterpoint.markers import Given

KEY = "graph"  # where a view's meta and what the data knows hold it
DataGraph = Annotated[Any, Given(KEY)]  # a parameter that is the graph of the data


@dataclass(eq=False, repr=False)
class Graph:
    """An undirected graph, or a view of one; the loop moves its tensors along with the view that holds it.

    x          float32 (N, F): the features of every node
    edges      int64 (2, E): every edge once
    weight     float32 (E,): 0 = dropped
    community  int64 (N,), and strength float32 (N,): what communities.py says of every node
    factors    two (N, q) whose product left @ right.T stands in the place of the edges, or nothing
    """

    x: Tensor
    edges: Tensor
    weight: Tensor
    community: Tensor
    strength: Tensor
    factors: tuple[Tensor, Tensor] | None = None

    def __str__(self) -> str:
        """What a run keeps of it: enough to notice, when the run goes on, that the graph is another one."""
        digest = hashlib.sha256()
        for tensor in (self.x, self.edges, self.weight):
            digest.update(tensor.contiguous().numpy().tobytes())
        return f"{len(self.x)} nodes, {self.edges.shape[1]} edges, {digest.hexdigest()[:16]}"

    def both_ways(self) -> tuple[Tensor, Tensor]:
        """int64 (2, 2 E) and float32 (2 E,): edges and weights as torch_geometric wants them."""
        return torch.cat([self.edges, self.edges.flip(0)], dim=1), self.weight.repeat(2)


TENSORS = tuple(field.name for field in fields(Graph) if field.name != "factors")


def graph_of(meta: dict[str, Any] | None, who: str) -> Graph:
    """The graph that the views have put into their meta; ComponentError when there is none."""
    if meta is None or KEY not in meta:
        raise ComponentError(
            f"{who} wants a graph with the nodes: begin the views with {{use: graphs.whole}}, or hand one over, as in "
            "encoder(nodes, meta={'graph': graph})"
        )
    return meta[KEY]


def simple(edges: np.ndarray) -> np.ndarray:
    """int64 (2, E): every edge once and in order, without those from a node to itself."""
    ordered = np.sort(edges[:, edges[0] != edges[1]], axis=0)
    return np.unique(ordered, axis=1)
