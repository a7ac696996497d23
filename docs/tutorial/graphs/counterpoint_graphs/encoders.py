"""Encoders. Dimensions: n rows, N nodes, F features, H width of `h`."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv, LGConv

from counterpoint.markers import Channels, Given
from counterpoint_graphs.graph import Graph, graph_of


class GCN(nn.Module):
    """A graph convolutional network (Kipf and Welling, ICLR 2017): nodes int64 (n, 1) -> (n, H), H = `width`.

    Every layer is torch_geometric's GCNConv and a PReLU, as in GRACE and CSGCL. It computes all N nodes of the graph
    that its view holds and picks those of the batch. It keeps no graph: trained on one, it embeds another.
    """

    def __init__(self, *, channels: Channels, width: int = 64, layers: int = 2):
        super().__init__()
        widths = [channels, *[width] * layers]
        self.convolutions = nn.ModuleList([GCNConv(a, b) for a, b in pairwise(widths)])
        self.activations = nn.ModuleList([nn.PReLU() for _ in range(layers)])
        self.width = width

    def forward(self, data: Tensor, meta: dict[str, Any] | None = None) -> Tensor:
        graph = graph_of(meta, "encoder 'graphs.gcn'")
        x = graph.x.to(self.convolutions[0].bias)  # (N, F), in the precision of the weights
        for convolution, activation in zip(self.convolutions, self.activations):
            x = activation(convolved(convolution, x, graph))  # (N, H)
        return x[data[:, 0]]


def convolved(convolution: GCNConv, x: Tensor, graph: Graph) -> Tensor:
    """One convolution over the edges, or over the low-rank adjacency that stands in their place."""
    if graph.factors is None:
        edges, weight = graph.both_ways()
        return convolution(x, edges, weight.to(x))
    return propagated(convolution.lin(x), graph.factors) + convolution.bias


def propagated(x: Tensor, factors: tuple[Tensor, Tensor]) -> Tensor:
    """left @ right.T @ x, without the (N, N) matrix."""
    left, right = (factor.to(x) for factor in factors)
    return left @ (right.T @ x)


class LightGCN(nn.Module):
    """Free embeddings of the nodes, smoothed (He et al., SIGIR 2020): nodes int64 (n, 1) -> (n, H), H = `width`.

    With A~ = D^-1/2 A D^-1/2, h is the mean of A~^l E over the layers l from `first` to `layers`, E (N, H) learned. For nodes
    without features, such as users and items; it knows the nodes it was trained on and no other. `first: 1` leaves out E
    itself, in which two views of a node cannot differ.
    """

    def __init__(self, *, nodes: Annotated[int, Given("nodes")], width: int = 32, layers: int = 2, first: int = 0):
        super().__init__()
        if not 0 <= first <= layers:
            raise ValueError(f"first is a layer from 0 to {layers}; got {first}")
        self.embedding, self.layers, self.first = nn.Embedding(nodes, width), layers, first
        self.width = width
        nn.init.xavier_uniform_(self.embedding.weight)
        self.convolution = LGConv()

    def forward(self, data: Tensor, meta: dict[str, Any] | None = None) -> Tensor:
        graph = graph_of(meta, "encoder 'graphs.lightgcn'")
        found = [self.embedding.weight]
        for _ in range(self.layers):
            found.append(self._smoothed(found[-1], graph))
        return torch.stack(found[self.first :]).mean(0)[data[:, 0]]

    def _smoothed(self, x: Tensor, graph: Graph) -> Tensor:
        if graph.factors is not None:
            return propagated(x, graph.factors)
        edges, weight = graph.both_ways()
        return self.convolution(x, edges, weight.to(x))


class NodeFeatures(nn.Module):
    """The score to beat: a node's features, averaged `hops` times over its neighbours; nothing is learned.

    With S = D^-1/2 (A + I) D^-1/2, h = S^hops x (SGC, Wu et al., ICML 2019): nodes int64 (n, 1) -> (n, F).
    """

    def __init__(self, *, channels: Channels, hops: int = 0):
        super().__init__()
        self.hops, self.width = hops, channels
        self.convolution = GCNConv(channels, channels, bias=False)
        self.convolution.lin = nn.Identity()

    def forward(self, data: Tensor, meta: dict[str, Any] | None = None) -> Tensor:
        graph = graph_of(meta, "encoder 'graphs.features'")
        x, (edges, weight) = graph.x, graph.both_ways()
        for _ in range(self.hops):
            x = self.convolution(x, edges, weight)
        return x[data[:, 0]]
