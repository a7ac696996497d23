"""Views of a node: its number stays, the graph around it becomes another one. Dimensions: N nodes, F features, E edges."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from counterpoint.batch import View
from counterpoint.randomness import Draw
from counterpoint.views.generator import ViewGenerator
from counterpoint_graphs.graph import KEY, TENSORS, DataGraph, Graph


class Whole(ViewGenerator):
    """The graph as it is: (n, 1) -> (n, 1), with the graph in meta. The base of every view of this pack.

    A view is of the whole graph, so that all samples of a batch share it. What is random in it is drawn for each edge
    or feature from the seed of the view (`draw.shared`): the same in every micro-batch and process.
    """

    def __init__(self, *, graph: DataGraph):
        super().__init__()
        for name in TENSORS:
            self.register_buffer(name, getattr(graph, name), persistent=False)

    def changed(self, graph: Graph, draw: Draw) -> Graph:
        """Another graph of the same nodes."""
        return graph

    def forward(self, view: View, draw: Draw) -> View:
        return self._with(view, self.changed(self._seen(view), draw))

    def prepare(self, view: View) -> View:
        return self._with(view, self._seen(view))

    def _seen(self, view: View) -> Graph:
        """What the step before left, or the graph of the data."""
        if KEY in view.meta:
            return view.meta[KEY]
        return Graph(*(getattr(self, name).to(view.data.device) for name in TENSORS))

    @staticmethod
    def _with(view: View, graph: Graph) -> View:
        return view.replace(meta={**view.meta, KEY: graph})


class DropEdges(Whole):
    """Every edge is dropped with probability `p`, both directions together (GRACE, Zhu et al., 2020)."""

    def __init__(self, *, graph: DataGraph, p: float = 0.3):
        super().__init__(graph=graph)
        if not 0.0 <= p < 1.0:
            raise ValueError(f"p is a probability in [0, 1); got {p}")
        self.p = p

    def kept(self, graph: Graph) -> Tensor:
        """float (E,): the probability that an edge is kept."""
        return torch.full_like(graph.weight, 1 - self.p)

    def changed(self, graph: Graph, draw: Draw) -> Graph:
        chance = draw.shared("edges", len(graph.weight)).uniform()  # (E,)
        return replace(graph, weight=graph.weight * (chance < self.kept(graph)))


class CommunalEdges(DropEdges):
    """Edges inside a strong community stay, those between communities go (CSGCL, Chen et al., IJCAI 2023).

    With S_c the strength of a community (communities.py), an edge between nodes of communities a and b has

        w = S_a  when a = b,  else  -(S_a + S_b)

    brought to [0, 1] by the least and greatest w of the graph. It is kept with probability (1 - p) w / mean(w), at most 1;
    so a little more than the share p is dropped. Where all w are equal: every edge with 1 - p. Departs from the authors'
    code, which draws for the two directions of an edge apart.
    """

    def kept(self, graph: Graph) -> Tensor:
        strength, community = graph.strength[graph.edges], graph.community[graph.edges]  # (2, E)
        w = torch.where(community[0] == community[1], strength[0], -strength.sum(0))
        return ((1 - self.p) * relative(w, 1.0)).clamp(max=1.0)


class CommunalFeatures(Whole):
    """Features for which strong communities vote stay, the others are set to 0 for all nodes (CSGCL).

    With the votes v_f = log sum_i |x_if| S(i), S(i) the strength of node i's community, u = (max v - v) / (max v - min v):
    feature f is dropped with probability p u_f / mean(u), at most `most`. Without any positive sum, every feature with
    probability p. Departs from the authors' code, in which a feature without votes counts as the one with the most: here, with
    the least.
    """

    def __init__(self, *, graph: DataGraph, p: float = 0.2, most: float = 0.7):
        super().__init__(graph=graph)
        if not 0.0 <= p <= most <= 1.0:
            raise ValueError(f"p and most are probabilities in order; got {p} and {most}")
        self.p, self.most = p, most

    def dropped(self, graph: Graph) -> Tensor:
        """float (F,): the probability that a feature is dropped."""
        votes = graph.strength @ graph.x.abs()  # (F,)
        least = votes.where(votes > 0, torch.inf).amin() if (votes > 0).any() else votes.new_ones(())
        return (self.p * relative(-votes.clamp(min=least).log(), 1.0)).clamp(max=self.most)

    def changed(self, graph: Graph, draw: Draw) -> Graph:
        chance = draw.shared("features", graph.x.shape[1]).uniform()  # (F,)
        return replace(graph, x=graph.x * (chance >= self.dropped(graph)))


def relative(w: Tensor, otherwise: float) -> Tensor:
    """`w` moved and scaled to least 0 and mean 1; where all are equal, `otherwise`."""
    if not len(w) or w.max() == w.min():
        return torch.full_like(w, otherwise)
    w = (w - w.min()) / (w.max() - w.min())
    return w / w.mean()
