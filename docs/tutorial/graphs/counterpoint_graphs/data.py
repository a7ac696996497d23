"""Data sets of which a sample is a node. Dimensions: N nodes, F features, E edges, K kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from counterpoint.data.dataset import Dataset, Spec
from counterpoint.errors import DataError
from counterpoint.randomness import key
from counterpoint_graphs.communities import detect, strengths
from counterpoint_graphs.graph import Graph, simple

SPLITS = ("train", "test")


class Nodes(Dataset):
    """Some nodes of a graph: modality "node", int64 (1,), the number of the node; the graph itself is in the spec.

    nodes   int64: which nodes of the graph this split has; the graph is whole in every split
    labels  name -> one a node of the graph; counts: name -> classes, or None for a value
    """

    def __init__(
        self, x: np.ndarray, edges: np.ndarray, nodes: np.ndarray, labels: Mapping[str, np.ndarray],
        counts: Mapping[str, int | None], splits: Sequence[str] = SPLITS,
    ):  # fmt: skip
        edges = simple(edges)
        community = detect(edges, len(x))
        strength = strengths(edges, community)
        tensors = (x.astype(np.float32), edges, np.ones(edges.shape[1], np.float32), community, strength)
        graph = Graph(*map(torch.from_numpy, tensors))
        self.nodes = nodes
        self.groups = {"community": community[nodes]}
        self.labels = {**{name: column[nodes] for name, column in labels.items()}, "strength": strength[nodes]}
        self.spec = Spec(
            size=len(nodes),
            modalities={"node": {"nodes": len(x), "channels": x.shape[1], "graph": graph}},
            groups={"community": int(community.max()) + 1},
            labels={**counts, "strength": None},
            splits=tuple(splits),
            in_memory=True,
        )

    def inputs(self, index: int) -> dict[str, Tensor]:
        return {"node": torch.tensor([int(self.nodes[index])])}


class Communities(Nodes):
    """A generated network of groups: who is in a group knows each other, and groups differ in how close they are.

    Label "kind": two groups are of each kind. The features of a node, 0 or 1, say which words it uses: most of them are
    common ones (`background`, their share), the others are words of its kind. Half of the nodes are held out; what is
    held out is their label alone, since every split has the whole graph.

    nodes, kinds, vocabulary: how many; words: drawn for each node, some of them twice; degree: edges a node has on average;
    mixing: (low, high), the share of them that leave the group, low in the closest group and high in the loosest
    Raises DataError for a split that is neither train nor test, and for numbers that make no graph.
    """

    def __init__(
        self, *, nodes: int = 1200, kinds: int = 6, vocabulary: int = 300, words: int = 12, background: float = 0.7,
        degree: float = 3.0, mixing: tuple[float, float] = (0.1, 0.6), seed: int = 0, split: Literal["train", "test"] = "train",
    ):  # fmt: skip
        if split not in SPLITS or not nodes >= 4 * kinds >= 4 or not 0 <= mixing[0] <= mixing[1] <= 1:
            raise DataError(
                f"data 'graphs.communities': expected train or test, 4 nodes a kind or more, and shares in order; got "
                f"split={split}, nodes={nodes}, kinds={kinds}, mixing={list(mixing)}"
            )
        rng = np.random.default_rng(key(seed, "communities"))
        group = np.sort(rng.integers(0, 2 * kinds, nodes))
        leaving = np.linspace(*mixing, 2 * kinds)[rng.permutation(2 * kinds)]
        kind = group % kinds
        common = 1 / np.arange(1, vocabulary + 1)  # Zipf: the n-th word is n times as rare as the first
        own = rng.dirichlet(np.full(vocabulary, 0.1), kinds)  # (K, F): few words, often
        share = background * common / common.sum() + (1 - background) * own
        x = np.stack([rng.multinomial(words, share[k]) > 0 for k in kind])
        place = rng.permutation(nodes)
        chosen = np.sort(place[: nodes // 2] if split == "train" else place[nodes // 2 :])
        edges = planted_edges(group, leaving, round(nodes * degree / 2), rng)
        super().__init__(x, edges, chosen, {"kind": kind}, {"kind": kinds})


def planted_edges(group: np.ndarray, leaving: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """int64 (2, count): from a random node to one of its own group, or with the chance `leaving[group]` to any node."""
    source, anyone = rng.integers(0, len(group), (2, count))
    size = np.bincount(group, minlength=len(leaving))
    first = np.cumsum(size) - size  # `group` is in ascending order
    own = first[group[source]] + rng.integers(0, size[group[source]])
    return np.stack([source, np.where(rng.random(count) < leaving[group[source]], anyone, own)])
