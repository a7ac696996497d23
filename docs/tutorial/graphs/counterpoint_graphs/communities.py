"""Communities and how strong they are. Dimensions: N nodes, E edges, C communities."""

from __future__ import annotations

from functools import lru_cache

import numpy as np


def detect(edges: np.ndarray, nodes: int) -> np.ndarray:
    """int64 (N,): the community of every node by the method of Louvain (Blondel et al., 2008), largest first."""
    return _louvain(np.ascontiguousarray(edges, dtype=np.int64).tobytes(), nodes).copy()


@lru_cache(maxsize=8)  # the splits of a data set share one graph
def _louvain(edges: bytes, nodes: int) -> np.ndarray:
    import networkx

    graph = networkx.empty_graph(nodes)
    graph.add_edges_from(np.frombuffer(edges, dtype=np.int64).reshape(2, -1).T.tolist())
    found = networkx.community.louvain_communities(graph, seed=0)
    community = np.empty(nodes, dtype=np.int64)
    for number, members in enumerate(sorted(found, key=lambda members: (-len(members), min(members)))):
        community[list(members)] = number
    return community


def strengths(edges: np.ndarray, community: np.ndarray) -> np.ndarray:
    """float32 (N,): the strength of every node's community, its share of the modularity (CSGCL, Chen et al., 2023).

        S_c = E_c / E - (D_c / (2 E))^2     E_c: edges inside c, D_c: the degrees of its nodes summed

    Without any edge: zeros.
    """
    count, total = int(community.max()) + 1, edges.shape[1]
    if not total:
        return np.zeros(len(community), dtype=np.float32)
    source, target = community[edges]
    inside = np.bincount(source[source == target], minlength=count)
    degrees = np.bincount(source, minlength=count) + np.bincount(target, minlength=count)
    return (inside / total - (degrees / (2 * total)) ** 2).astype(np.float32)[community]
