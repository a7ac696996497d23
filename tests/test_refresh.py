"""Columns made between epochs: what k-means and neighbours find, and a run that has them ends the same however it is cut.

Dimensions: n rows, D width, k clusters or neighbours.
"""

import re

import lightning
import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from building import assert_same_state, loop, train
from counterpoint.data.plan import Order, by_group, distinct
from counterpoint.data.plan import neighbours as near_batches
from counterpoint.errors import ComponentError, DataError, RecipeError
from counterpoint.fit.assembly import assemble
from counterpoint.kernels.kmeans import kmeans
from counterpoint.objectives.info_nce import InfoNCE
from counterpoint.recipe import load
from counterpoint.refresh.kmeans import KMeans
from counterpoint.refresh.neighbours import Neighbours
from counterpoint.refresh.refresh import Vectors
from counterpoint.refresh.refreshed import Refreshed
from counterpoint_toy.parts import Pairs


def blobs(k=4, each=9, spread=0.05):
    random = torch.Generator().manual_seed(0)
    centres = normalize(torch.randn(k, 6, generator=random), dim=1)
    who = torch.arange(k).repeat(each)
    return normalize(centres[who] + spread * torch.randn(len(who), 6, generator=random), dim=1), who


def test_kmeans_finds_clusters_that_stand_apart():
    rows, who = blobs()
    labels, centres = kmeans(rows, 4, seed=1)
    assert len(set(zip(labels.tolist(), who.tolist()))) == 4  # one number for each cluster
    for cluster in range(4):
        torch.testing.assert_close(centres[cluster], rows[labels == cluster].mean(0))


@pytest.mark.parametrize("k", [2, 5, 17])
def test_kmeans_ends_where_no_row_is_nearer_to_another_centre(k):
    rows = normalize(torch.randn(200, 5, generator=torch.Generator().manual_seed(3)), dim=1)
    labels, centres = kmeans(rows, k, seed=2, iterations=200)
    assert torch.equal(torch.cdist(rows, centres).argmin(1), labels)
    assert torch.equal(labels, kmeans(rows, k, seed=2, iterations=200)[0])


def test_no_cluster_is_empty_while_there_are_rows():
    rows = torch.ones(7, 3)
    assert sorted(kmeans(rows, 5, seed=0)[0].unique().tolist()) == list(range(5))
    assert len(kmeans(rows, 9, seed=0)[0].unique()) == 7
    assert kmeans(rows[:1], 3, seed=0)[0].tolist() != []


def test_the_order_of_chunks_does_not_matter(monkeypatch):
    rows, _ = blobs(each=20, spread=0.4)
    whole = kmeans(rows, 6, seed=4)[0]
    vectors = Vectors(rows, torch.ones(len(rows), dtype=torch.bool))
    table = Neighbours(k=5).make({None: vectors}, 0)
    monkeypatch.setattr("counterpoint.kernels.kmeans.CHUNK", 6 * 7)
    monkeypatch.setattr("counterpoint.refresh.neighbours.CHUNK", len(rows) * 3)
    assert torch.equal(kmeans(rows, 6, seed=4)[0], whole)
    assert torch.equal(Neighbours(k=5).make({None: vectors}, 0), table)


def test_neighbours_are_the_most_similar_others():
    rows, _ = blobs(each=3, spread=0.3)
    known = torch.ones(12, dtype=torch.bool)
    known[4] = False
    table = Neighbours(k=11).make({None: Vectors(rows, known)}, 0)
    assert table.dtype == torch.int32 and (table[4] == -1).all()
    for i in set(range(12)) - {4}:
        others = sorted(set(range(12)) - {i, 4}, key=lambda j: -float(rows[i] @ rows[j]))
        assert table[i].tolist() == [*others, -1]
    assert Neighbours(k=40).make({None: Vectors(rows, known)}, 0).shape == (12, 40)


def test_the_nearest_centres_are_several_groups():
    rows, _ = blobs(each=5, spread=0.3)
    known = torch.ones(20, dtype=torch.bool)
    known[7] = False
    rule = KMeans(clusters=6, top=3)
    column, (labels, centres) = rule.make({None: Vectors(rows, known)}, 5), kmeans(rows[known], 6, 5)
    assert rule.groups("cluster") == ["cluster", "cluster_2", "cluster_3"]
    assert (column[7] == -1).all() and torch.equal(column[known, 0], labels)
    for row, found in zip(rows[known], column[known].tolist()):
        near = (row - centres).square().sum(1).argsort().tolist()
        assert found == [found[0], *[c for c in near if c != found[0]][:2]]


# --- samplers --------------------------------------------------------------------------------------------------------


def order(size=40, batch=8, labels=None, tables=None):
    return Order(size, batch, 2, {} if labels is None else {"cluster": labels}, tables or {})


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("batch", [4, 8, 13, 64])
def test_distinct_batches_share_a_label_only_where_they_must(batch):
    labels = np.repeat(np.arange(7), [2, 3, 4, 5, 6, 8, 12])
    batches = distinct(by="cluster")(order(batch=batch, labels=labels), rng())
    assert sorted(np.concatenate(batches)) == list(range(40))
    assert max(map(len, batches)) - min(map(len, batches)) <= 1
    for label, count in enumerate(np.bincount(labels)):
        assert max((labels[b] == label).sum() for b in batches) == -(-count // len(batches))


def test_one_label_a_batch_is_by_group_with_whole_batches():
    labels = np.repeat(np.arange(3), [16, 8, 16])
    for batch in by_group(by="cluster", per_group=8)(order(labels=labels), rng()):
        assert len(set(labels[batch])) == 1


def test_batches_of_neighbours_hold_them_and_no_sample_twice():
    size, blocks = 64, np.arange(64).reshape(8, 8)
    table = np.array([[j for j in blocks[i // 8] if j != i] for i in range(size)])
    batches = near_batches(by="near", nearest=4, random=3)(order(size, 16, tables={"near": table}), rng())
    assert sorted(np.concatenate(batches)) == list(range(size))
    for batch in batches:
        assert sorted(np.bincount(batch // 8)[np.bincount(batch // 8) > 0]) == [8, 8]
    few = near_batches(by="near", nearest=2, random=0)(order(size, 3, tables={"near": table}), rng())[0]
    assert few.tolist() == [few[0], *table[few[0], :2]]


def test_before_the_first_refresh_the_order_is_random_and_as_long():
    unknown = {"near": np.full((40, 5), -1, dtype=np.int32)}
    for sampler in (near_batches(by="near"), distinct(by="cluster"), by_group(by="cluster", per_group=8)):
        batches = sampler(order(labels=np.full(40, -1), tables=unknown), rng())
        assert len(batches) == 5 and sorted(np.concatenate(batches)) == list(range(40))
    with pytest.raises(ComponentError, match="'naer' is not a table of neighbours; did you mean 'near'"):
        near_batches(by="naer")(order(tables=unknown), rng())


# --- in a run --------------------------------------------------------------------------------------------------------

RULES = {"cluster": lambda: KMeans(clusters=5), "near": lambda: Neighbours(of="words", among="signal", k=6, every=2)}


def refreshing(data, **options):
    rules = {name: rule() for name, rule in RULES.items()}
    objectives = {"nce": InfoNCE(temperature=0.3, positives="cluster")}
    return loop(objectives, norm=True, refreshed=Refreshed(rules, data, seed=7), **options)


class Seen(lightning.Callback):
    """What the columns are at every batch."""

    def __init__(self):
        self.columns, self.groups = [], []

    def on_train_batch_end(self, trainer, module, *rest):
        columns = module.refreshed.columns
        self.columns.append((columns["cluster"].values.clone(), columns["near"].values.clone()))
        batch = module.last_outputs.batch
        self.groups.append((batch.index, batch.groups["cluster"]))


@pytest.mark.parametrize("workers", [0, 2])
def test_columns_are_there_before_the_first_batch_of_an_epoch(workers):
    data, seen = Pairs(size=48, missing=0.3), Seen()
    train(refreshing(data), data, batch=16, epochs=3, workers=workers, callbacks=[seen], sampler=distinct(by="cluster"))
    lacking = torch.tensor(["signal" not in data.inputs(i) for i in range(48)])
    for start in (0, 3, 6):
        cluster, near = seen.columns[start]
        assert torch.equal(cluster < 0, lacking) and len(cluster.unique()) == 6
        assert all(torch.equal(cluster, other[0]) for other in seen.columns[start : start + 3])
        known = near[near >= 0]
        assert len(known) and not lacking[known].any()
        assert torch.equal(near, seen.columns[start - start % 6][1])  # every second epoch
    assert not torch.equal(seen.columns[0][0], seen.columns[6][0])
    for n, (index, group) in enumerate(seen.groups):
        column = seen.columns[n][0]
        assert torch.equal(column[index], group)
        counts, most = torch.bincount(group[group >= 0]), -(-torch.bincount(column[column >= 0]) // 3)
        assert (counts <= most[: len(counts)]).all()  # the sampler knew this epoch's column


@pytest.mark.parametrize(("stop", "workers"), [(1, 0), (3, 0), (4, 0), (6, 0), (8, 0), (3, 2), (4, 2)])
def test_a_run_with_refreshed_columns_ends_bit_identical_wherever_it_was_stopped(stop, workers, tmp_path):
    class Stop(lightning.Callback):
        def on_train_batch_end(self, trainer, module, *rest):
            if trainer.fit_loop.epoch_loop.batch_progress.total.ready == stop:
                trainer.save_checkpoint(tmp_path / "stopped.ckpt")
                raise KeyError("stopped")

    data, sampler = Pairs(size=48, missing=0.3), by_group(by="cluster", per_group=4)
    options = {"batch": 16, "epochs": 3, "sampler": sampler, "workers": workers}
    straight = refreshing(data)
    train(straight, data, **options)
    with pytest.raises(KeyError):
        train(refreshing(data), data, callbacks=[Stop()], **options)
    resumed = refreshing(data)
    train(resumed, data, ckpt=tmp_path / "stopped.ckpt", **options)
    assert_same_state(straight, resumed)


def test_an_unreadable_sample_is_of_no_group_where_such_are_skipped():
    data = Pairs(size=24, broken=5)
    made = {skip: Refreshed({"cluster": KMeans(clusters=3)}, data, skip=skip) for skip in (0.0, 1.0)}
    module = loop({"nce": InfoNCE()})
    where = (0, module.towers, module.pipelines, torch.device("cpu"))
    made[1.0].refresh(*where)
    assert (made[1.0].columns["cluster"].values < 0).nonzero().flatten().tolist() == [5]
    with pytest.raises(DataError, match="sample 5"):
        made[0.0].refresh(*where)


# --- in a recipe -----------------------------------------------------------------------------------------------------

RECIPE = """
data:      {use: toy.pairs, size: 24}
loader:    {batch: 8, sampler: {use: distinct, by: cluster}}
refresh:
  cluster: {use: kmeans, clusters: 4, of: words, every: null, top: 2}
  near:    {use: neighbours, k: 5}
encoders:  {signal: {use: toy.conv}, words: {use: toy.bag}}
heads:     {signal: {use: mlp, dim: 8}, words: {use: mlp, dim: 8}}
objective: {use: supcon, group: cluster}
trainer:   {max_epochs: 2, accelerator: cpu}
"""


def recipe(tmp_path, *changes):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return load(tmp_path / "recipe.yaml", list(changes))


def test_a_recipe_names_columns_that_objectives_and_samplers_use(tmp_path):
    made = recipe(tmp_path)
    (tmp_path / "again.yaml").write_text(made.as_yaml())
    assert load(tmp_path / "again.yaml") == made
    assert {name: rule.every for name, rule in assemble(made).refresh.items()} == {"cluster": None, "near": 1}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("refresh.cluster.of=wrods", "refresh.cluster: 'wrods' is not a modality of the recipe; did you mean 'words'?"),
        ("refresh.cluster.clusters=25", "refresh.cluster: 25 clusters of 24 samples"),
        ("refresh.cluster.every=0", "refresh.cluster: refresh: `every` is a number of epochs, or null for once; got 0"),
        ("refresh.subject={use: kmeans, clusters: 3}", "'subject' is a column of data 'toy.pairs' already"),
        ("refresh.cluster_2={use: kmeans, clusters: 3}", "'cluster_2' is a column of refresh.cluster already"),
        ("objective.group=near", "'near' is not a group of data 'toy.pairs'; it has: cluster, cluster_2, subject"),
    ],
)
def test_mistakes_are_named(change, problem, tmp_path):
    with pytest.raises(RecipeError, match=re.escape(problem)):
        assemble(recipe(tmp_path, change))
