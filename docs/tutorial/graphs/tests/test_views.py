"""What the views do to a graph, on a few nodes in float64."""

from dataclasses import replace

import numpy as np
import torch

from counterpoint.batch import View
from counterpoint.randomness import Draw
from counterpoint_graphs.communities import detect, strengths
from counterpoint_graphs.data import Communities, planted_edges
from counterpoint_graphs.encoders import GCN
from counterpoint_graphs.graph import Graph, simple
from counterpoint_graphs.svd import SVD
from counterpoint_graphs.views import CommunalEdges, CommunalFeatures, DropEdges

NODES = 40


def graph() -> Graph:
    """Two groups of nodes with few edges between them."""
    rng = np.random.default_rng(3)
    group = np.arange(NODES) // (NODES // 2)
    edges = simple(planted_edges(group, np.array([0.1, 0.4]), 5 * NODES, rng))
    community = detect(edges, NODES)
    strength = strengths(edges, community)
    arrays = (rng.random((NODES, 6)), edges, np.ones(edges.shape[1]), community, strength.astype(np.float64))
    return Graph(*map(torch.from_numpy, arrays))


def nodes(count: int = NODES) -> View:
    return View("node", torch.arange(count)[:, None], torch.arange(count))


def made(step, seed: int = 0, count: int = NODES) -> Graph:
    return step(nodes(count), Draw(seed, torch.arange(count))).meta["graph"]


def dense(g: Graph) -> torch.Tensor:
    """D^-1/2 A D^-1/2, float64 (N, N)."""
    a = torch.zeros(NODES, NODES, dtype=torch.float64)
    a[g.edges[0], g.edges[1]] = a[g.edges[1], g.edges[0]] = g.weight
    degree = a.sum(1)
    return a / (degree[:, None] * degree).sqrt()


def test_svd_is_the_truncated_decomposition_of_the_dense_matrix():
    g = graph()
    left, right = made(SVD(graph=g, rank=5)).factors
    u, s, v = torch.linalg.svd(dense(g))
    assert torch.allclose(left @ right.T, u[:, :5] * s[:5] @ v[:5], atol=1e-9)


def test_with_all_singular_values_the_encoder_sees_the_adjacency_itself():
    g, x = graph(), nodes().data
    encoder = GCN(channels=6, width=4).double()
    whole = SVD(graph=g, rank=NODES - 1)
    rest = dense(g) - torch.matmul(whole.left, whole.right.T)  # of rank 1: the least singular value
    assert torch.linalg.matrix_norm(rest, 2) <= torch.linalg.svdvals(dense(g))[-1] + 1e-9
    exact = replace(g, factors=(dense(g), torch.eye(NODES, dtype=torch.float64)))
    close = encoder(x, {"graph": made(whole)}) - encoder(x, {"graph": exact})
    assert close.abs().max() < 0.1 * encoder(x, {"graph": exact}).abs().max()


def test_communal_edges_drop_more_between_communities_than_inside():
    g = graph()
    inside = g.community[g.edges[0]] == g.community[g.edges[1]]
    kept = torch.stack([made(CommunalEdges(graph=g, p=0.5), seed).weight for seed in range(200)]).mean(0)
    expected = CommunalEdges(graph=g, p=0.5).kept(g)
    assert kept[inside].min() > kept[~inside].max()
    assert torch.allclose(kept, expected, atol=0.15)
    plain = torch.stack([made(DropEdges(graph=g, p=0.5), seed).weight for seed in range(200)])
    assert abs(plain.mean() - 0.5) < 0.02


def test_an_edge_weighs_what_the_formula_says():
    g = graph()
    weights = []
    for a, b in g.edges.T.tolist():
        same = g.community[a] == g.community[b]
        weights.append(g.strength[a].item() if same else -(g.strength[a] + g.strength[b]).item())
    low, high = min(weights), max(weights)
    scaled = [(w - low) / (high - low) for w in weights]
    mean = sum(scaled) / len(scaled)
    expected = torch.tensor([min(1.0, 0.7 * w / mean) for w in scaled], dtype=torch.float64)
    assert torch.allclose(CommunalEdges(graph=g, p=0.3).kept(g), expected)


def test_strength_is_the_share_of_the_modularity():
    import networkx

    g = graph()
    whole = networkx.Graph(g.edges.T.tolist())
    parts = [set(torch.nonzero(g.community == c)[:, 0].tolist()) for c in g.community.unique()]
    total = sum(g.strength[next(iter(part))].item() for part in parts)
    assert abs(total - networkx.community.modularity(whole, parts)) < 1e-6


def test_features_of_strong_communities_stay_rather():
    g = graph()
    strong = g.strength == g.strength.max()
    x = torch.zeros_like(g.x)
    x[strong, 0], x[~strong, 1] = 1.0, 1.0
    x[:, 2:] = 0.5
    dropped = CommunalFeatures(graph=g, p=0.4).dropped(replace(g, x=x))
    assert dropped[0] < dropped[1] and dropped.max() <= 0.7
    seen = made(CommunalFeatures(graph=g, p=0.4)).x
    assert all(torch.equal(seen[:, f], g.x[:, f]) or not seen[:, f].any() for f in range(6))


def test_a_view_is_a_function_of_the_seed_alone():
    """Of which nodes are in the batch it says nothing."""
    g = graph()
    for step in (CommunalEdges(graph=g), CommunalFeatures(graph=g), DropEdges(graph=g)):
        once, again, *others = (made(step, *how) for how in ((1, NODES), (1, 3), (2, 3), (3, 3), (4, 3), (5, 3)))
        alike = lambda a, b: torch.equal(a.weight, b.weight) and torch.equal(a.x, b.x)  # noqa: E731
        assert alike(once, again) and not all(alike(once, other) for other in others)


def test_graphs_without_edges_or_with_one_community_go_through():
    lonely = Graph(torch.eye(4), torch.empty(2, 0, dtype=torch.int64), torch.empty(0), torch.arange(4), torch.zeros(4))
    for g in (lonely, replace(graph(), strength=torch.ones(NODES).double(), community=torch.zeros(NODES).long())):
        for step in (CommunalEdges(graph=g), CommunalFeatures(graph=g)):
            after = made(step, count=4)
            h = GCN(channels=g.x.shape[1])(torch.arange(4)[:, None], {"graph": after})
            assert h.isfinite().all() and after.weight.isfinite().all()


def test_the_whole_graph_is_in_every_split_and_no_label_of_the_other():
    train, test = Communities(nodes=120), Communities(nodes=120, split="test")
    assert str(train.spec.modalities["node"]["graph"]) == str(test.spec.modalities["node"]["graph"])
    assert not set(train.nodes) & set(test.nodes) and len(train) + len(test) == 120
