"""Evaluators against plain loops and scikit-learn, in their limits, and on what a user gets wrong."""

import math
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from counterpoint.errors import ComponentError, CounterpointError
from counterpoint.evaluate import bootstrap
from counterpoint.evaluate.evaluator import Embeddings
from counterpoint.evaluate.geometry import Geometry, alignment, effective_rank, uniformity
from counterpoint.evaluate.knn import KNN, vote
from counterpoint.evaluate.linear_models import choose_l2, inner_splits, logistic, ridge, standardise
from counterpoint.evaluate.linear_probe import LinearProbe
from counterpoint.evaluate.retrieval import Retrieval, rank
from counterpoint.evaluate.rows import Rows
from counterpoint.evaluate.statistics import auroc

torch.set_num_threads(1)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def integers(high, n, seed=0):
    return torch.randint(high, (n,), generator=torch.Generator().manual_seed(seed))


def embeddings(x, modality="signal", **columns):
    """One row a sample; integer columns are labels, and groups too."""
    columns = {name: torch.as_tensor(column) for name, column in columns.items()}
    return Embeddings({modality: x}, {modality: torch.arange(len(x))}, {modality: x}, columns, columns)


def clustered(n, classes=4, width=6, spread=1.0, seed=0, **columns):
    """Rows around one centre a class."""
    label = integers(classes, n, seed)
    return embeddings(
        2 * normal(9, width, seed=99)[label] + spread * normal(n, width, seed=seed), label=label, **columns
    )


def shuffled(e, seed=7):
    """The same rows in another order; the samples keep their numbers."""
    order = {m: torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)) for m, x in e.h.items()}
    pick = lambda table: {m: x[order[m]] for m, x in table.items()}  # noqa: E731
    return Embeddings(pick(e.h), pick(e.index), pick(e.z), e.groups, e.labels)


def values(scores):
    return {score.name: score.value for score in scores}


# --- k-nearest neighbours -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("k", [1, 5])
def test_knn_with_equal_votes_is_scikit_learn(metric, k):
    neighbors = pytest.importorskip("sklearn.neighbors")
    bank, queries, labels = 3 + normal(80, 6), 3 + normal(50, 6, seed=1), integers(4, 80)
    model = neighbors.KNeighborsClassifier(k, metric=metric).fit(bank.double(), labels)
    expected = torch.as_tensor(model.predict(queries.double()))
    assert torch.equal(vote(queries, bank, labels, k, math.inf, metric), expected)


def test_knn_is_the_weighted_vote_of_the_formula():
    bank, queries, labels, k, temperature = normal(40, 5), normal(30, 5, seed=1), integers(3, 40) * 10, 7, 0.2
    unit = lambda x: x / x.norm()  # noqa: E731
    for query, predicted in zip(queries, vote(queries, bank, labels, k, temperature).tolist()):
        similarity = [float(unit(query) @ unit(row)) for row in bank]
        votes = dict.fromkeys([0, 10, 20], 0.0)
        for i in sorted(range(40), key=lambda i: -similarity[i])[:k]:
            votes[int(labels[i])] += math.exp(similarity[i] / temperature)
        assert predicted == max(votes, key=votes.get)


def test_knn_metrics_agree_on_unit_vectors_and_survive_a_tiny_temperature():
    bank, queries = (torch.nn.functional.normalize(normal(n, 5, seed=n), dim=1) for n in (60, 40))
    labels = integers(3, 60)
    assert torch.equal(vote(queries, bank, labels, 9, 0.1), vote(queries, bank, labels, 9, 0.1, "euclidean"))
    assert torch.equal(vote(queries, bank, labels, 9, 1e-6), vote(queries, bank, labels, 1, 1.0))


def test_knn_chunks_and_order_of_rows_do_not_matter():
    fit, test = clustered(90, seed=1), clustered(70, seed=2)
    whole = vote(test.h["signal"], fit.h["signal"], fit.labels["label"], 5, 0.07)
    parts = vote(test.h["signal"], fit.h["signal"], fit.labels["label"], 5, 0.07, chunk=13 * 90 + 1)
    assert torch.equal(whole, parts)
    assert KNN(label="label")(fit, test) == KNN(label="label")(shuffled(fit), shuffled(test))


def test_knn_limits():
    fit, test = clustered(60, spread=0.0, seed=1), clustered(50, spread=0.0, seed=2)
    [perfect] = KNN(label="label", k=3)(fit, test)
    assert (perfect.value, perfect.low, perfect.high, perfect.n) == (1.0, 1.0, 1.0, 50)
    noise = [embeddings(normal(400, 6, seed=s), label=integers(4, 400, seed=s + 10)) for s in (1, 2)]
    [chance] = KNN(label="label")(*noise)
    assert abs(chance.value - 0.25) < 0.1 and chance.low < 0.25 < chance.high


def test_knn_leaves_unknown_labels_out():
    fit, test = clustered(60, seed=1), clustered(50, seed=2)
    known = KNN(label="label", k=3)(fit, test)
    far = torch.full((10, 6), 50.0)
    for e in (fit, test):
        e.h["signal"] = torch.cat([e.h["signal"], far])
        e.index["signal"] = torch.arange(len(e.h["signal"]))
        e.labels["label"] = torch.cat([e.labels["label"], torch.full((10,), -1)])
    assert KNN(label="label", k=3)(fit, test) == known


def test_knn_leave_one_out_excludes_row_sample_or_group():
    sample = torch.arange(20).repeat_interleave(2)  # two nearly equal rows a sample
    x = normal(20, 6)[sample] + 1e-3 * normal(40, 6, seed=1)
    label, patient = torch.arange(20) % 2, torch.arange(20) // 4
    e = Embeddings({"signal": x}, {"signal": sample}, {}, {"patient": patient}, {"label": label})
    knn = KNN(label="label", k=1)
    similarity = torch.nn.functional.normalize(x, dim=1) @ torch.nn.functional.normalize(x, dim=1).T
    for exclude, ids in (("row", torch.arange(40)), ("index", sample), ("patient", patient[sample])):
        nearest = similarity.masked_fill(ids[:, None] == ids, -2).argmax(1)
        expected = (label[sample][nearest] == label[sample]).double().mean().item()
        [score] = knn.leave_one_out(e, exclude)
        assert score.value == pytest.approx(expected) and score.n == 40
    assert knn.leave_one_out(e, "row")[0].value == 1.0
    assert knn(None, e) == knn(e, e) == knn.leave_one_out(e, "index")


def test_knn_reads_every_modality_unless_one_is_named():
    fit, test = clustered(40, seed=1), clustered(30, seed=2)
    for e in (fit, test):
        e.h["text"], e.index["text"] = e.h["signal"][:25], torch.arange(25)  # the others have no text
    scores = KNN(label="label", k=3)(fit, test)
    assert [(s.name, s.n) for s in scores] == [("signal/accuracy", 30), ("text/accuracy", 25)]
    assert KNN(label="label", k=3, modality="text")(fit, test) == [replace(scores[1], name="accuracy")]


# --- linear probe ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("shape", [(120, 5), (30, 60)])
def test_logistic_regression_is_scikit_learn(classes, shape):
    linear_model = pytest.importorskip("sklearn.linear_model")
    fit, test, y, l2 = 5 + 3 * normal(*shape), 5 + 3 * normal(40, shape[1], seed=1), integers(classes, shape[0]), 0.03
    x, queries = standardise(fit, test)
    probabilities = logistic(x, y, classes, l2, 500)(queries).softmax(1)
    inverse = 1 / (l2 * shape[0]) * (2 if classes == 2 else 1)  # scikit-learn has one weight vector for two classes
    scale = lambda z: ((z - fit.mean(0)) / fit.std(0, correction=0)).double().numpy()  # noqa: E731
    model = linear_model.LogisticRegression(C=inverse, tol=1e-9, max_iter=5000).fit(scale(fit), y)
    np.testing.assert_allclose(probabilities.numpy(), model.predict_proba(scale(test)), atol=1e-4)


@pytest.mark.parametrize("shape", [(50, 4), (20, 45)])
def test_ridge_regression_is_scikit_learn(shape):
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, queries = standardise(2 + normal(*shape), 2 + normal(30, shape[1], seed=1))
    y = x[:, 0] * 2 + 7 + normal(shape[0], seed=2)
    model = linear_model.Ridge(alpha=0.1 * shape[0]).fit(x, y)
    np.testing.assert_allclose(ridge(x, y, 0.1)(queries)[:, 0].numpy(), model.predict(queries), atol=1e-8)


@pytest.mark.parametrize("classes", [2, 4])
def test_linear_probe_figures_are_scikit_learn_s(classes):
    metrics = pytest.importorskip("sklearn.metrics")
    fit, test = clustered(80, classes, spread=4, seed=1), clustered(60, classes, spread=4, seed=2)
    found = values(LinearProbe(label="label", l2=0.01)(fit, test))
    x, queries = standardise(fit.h["signal"], test.h["signal"])
    logits, truth = logistic(x, fit.labels["label"], classes, 0.01, 500)(queries), test.labels["label"]
    predicted = logits.argmax(1)
    expected = {
        "accuracy": metrics.accuracy_score(truth, predicted),
        "balanced_accuracy": metrics.balanced_accuracy_score(truth, predicted),
        "macro_f1": metrics.f1_score(truth, predicted, average="macro"),
    }
    if classes == 2:
        expected["auroc"] = metrics.roc_auc_score(truth, logits[:, 1] - logits[:, 0])
    assert found == pytest.approx({name: value for name, value in expected.items()})


def test_auroc_counts_ties_half_and_weights_as_copies():
    metrics = pytest.importorskip("sklearn.metrics")
    score, positive, weights = integers(6, 40).double(), integers(2, 40, seed=1), integers(4, 40, seed=2).double()
    expected = [metrics.roc_auc_score(positive, score, sample_weight=w) for w in (None, weights)]
    found = auroc(positive == 1, score)(torch.stack([torch.ones(40).double(), weights]))
    np.testing.assert_allclose(found[:, 0].numpy(), expected)


def test_linear_probe_of_values():
    x, noise = normal(200, 5), normal(200, seed=1)
    y = x @ torch.tensor([1.0, -2, 0, 0, 3]) + 4
    exact = [embeddings(x[part], y=y[part]) for part in (slice(0, 150), slice(150, 200))]
    found = LinearProbe(label="y")(*exact)
    assert values(found) == pytest.approx({"r2": 1.0, "mae": 0.0}, abs=1e-3)
    assert [score.higher_is_better for score in found] == [True, False]
    unknown = torch.cat([y, torch.full((9,), torch.nan)])
    more = embeddings(torch.cat([x, 50 * torch.ones(9, 5)]), y=unknown)
    assert [score.n for score in LinearProbe(label="y")(exact[0], more)] == [200, 200]
    assert values(LinearProbe(label="y", l2=1e-3)(more, more)) == values(
        LinearProbe(label="y", l2=1e-3)(*[embeddings(x, y=y)] * 2)
    )
    noisy = [embeddings(x[part], y=noise[part]) for part in (slice(0, 150), slice(150, 200))]
    assert values(LinearProbe(label="y")(*noisy))["r2"] < 0.2


def test_linear_probe_does_not_depend_on_order_of_rows():
    fit, test = clustered(40, 2, spread=3, seed=1), clustered(30, 2, spread=3, seed=2)
    probe = LinearProbe(label="label")
    assert values(probe(shuffled(fit), shuffled(test))) == pytest.approx(values(probe(fit, test)), abs=1e-6)


def test_linear_probe_chooses_the_penalty_on_rows_it_did_not_fit():
    y, queried = integers(2, 60, seed=50), integers(2, 400, seed=51)
    fit, test = normal(60, 40) + y[:, None] / 4, normal(400, 40, seed=4) + queried[:, None] / 4
    x, queries = standardise(fit, test)
    rows = Rows(fit, torch.arange(60), y, torch.arange(60))
    solve = lambda x, y, l2, start: logistic(x, y, 2, l2, 500, start)  # noqa: E731
    chosen = choose_l2(solve, x, y, inner_splits(y, rows))
    loss = lambda l2: torch.nn.functional.cross_entropy(solve(x, y, l2, None)(queries), queried)  # noqa: E731
    assert loss(chosen) < min(loss(1e-2), loss(1e-5), math.log(2))
    data = embeddings(fit, label=y), embeddings(test, label=queried)
    assert LinearProbe(label="label")(*data) == LinearProbe(label="label", l2=chosen)(*data)


def test_inner_splits_keep_clusters_whole_and_classes_on_both_sides():
    patient = torch.arange(60) // 3
    y = patient % 4
    rows = Rows(normal(60, 2), torch.arange(60), y, patient)
    splits = inner_splits(y, rows)
    assert torch.equal(sum(held.int() for _, held in splits), torch.ones(60, dtype=torch.int32))
    for train, held in splits:
        assert not torch.isin(patient[held], patient[train]).any()
        assert set(y[train].tolist()) == set(y[held].tolist()) == {0, 1, 2, 3}
    for train, held in inner_splits(patient, rows):  # the cluster is the class: samples are split instead
        assert held.sum() == 12 and not train[held].any() and set(patient[train].tolist()) == set(range(20))
    few = Rows(normal(3, 2), torch.arange(3), torch.arange(3), torch.arange(3))
    assert inner_splits(few.target, few) == []
    many = torch.arange(6000)
    assert len(inner_splits(many % 2, Rows(normal(6000, 1), many, many % 2, many))) == 1


def test_linear_probe_with_constant_columns_and_unseen_classes():
    fit, test = clustered(80, 3, seed=1), clustered(60, 4, seed=1)
    for e in (fit, test):
        e.h["signal"] = torch.cat([e.h["signal"], torch.full((len(e.h["signal"]), 2), 0.1)], 1)
    found = values(LinearProbe(label="label", l2=0.01)(fit, test))
    seen = (test.labels["label"] < 3).double().mean().item()
    assert 0.5 * seen < found["accuracy"] <= seen


# --- retrieval ------------------------------------------------------------------------------------------------------


def plain_ranking(similarity, relevant, ks):
    """Hits, reciprocal rank and average precision of one query by the definition, ties against it."""
    order = sorted(range(len(similarity)), key=lambda j: (-similarity[j], relevant[j]))
    ranks = [place for place, j in enumerate(order, 1) if relevant[j]]
    precision = sum(nth / place for nth, place in enumerate(ranks, 1)) / len(ranks)
    return [*(float(ranks[0] <= k) for k in ks), 1 / ranks[0], precision]


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_retrieval_is_the_plain_ranking(own, tied):
    axis = torch.eye(5)  # rows along axes: similarities are 0 or 1 exactly, so ties abound
    keys = axis[integers(5, 40)] if tied else normal(40, 5)
    queries = keys if own else (axis[integers(5, 30, seed=1)] if tied else normal(30, 5, seed=1))
    key_ids = integers(12, 40, seed=2)
    query_ids = key_ids if own else integers(14, 30, seed=3)
    figures, several = rank(queries, keys, query_ids, key_ids, (1, 3), own)
    unit = torch.nn.functional.normalize
    similarity = unit(queries, dim=1) @ unit(keys, dim=1).T
    for i, found in enumerate(figures):
        others = [j for j in range(40) if not (own and i == j)]
        relevant = [bool(key_ids[j] == query_ids[i]) for j in others]
        if any(relevant):
            expected = plain_ranking(similarity[i, others].tolist(), relevant, (1, 3))
            np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)
        else:
            assert found.isnan().all()
    assert several


def test_retrieval_average_precision_is_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    queries, keys, ids = normal(25, 4), normal(60, 4, seed=1), integers(6, 85, seed=2)
    figures, _ = rank(queries, keys, ids[:25], ids[25:], (1,))
    unit = torch.nn.functional.normalize
    similarity = unit(queries, dim=1) @ unit(keys, dim=1).T
    expected = [metrics.average_precision_score(ids[25:] == ids[i], similarity[i]) for i in range(25)]
    np.testing.assert_allclose(figures[:, -1].numpy(), expected, atol=1e-9)


def test_retrieval_chunks_do_not_matter():
    x, ids = normal(50, 4), integers(9, 50)
    whole, parts = (rank(x, x, ids, ids, (1, 5), own=True, chunk=chunk)[0] for chunk in (1 << 20, 7 * 50 + 3))
    assert torch.equal(whole.nan_to_num(-1), parts.nan_to_num(-1))


def two_modalities(n=40, noise=0.0, seed=0):
    """Every sample has text; all but the first five have audio, some twice."""
    z = normal(n, 8, seed=seed)
    heard = torch.cat([torch.arange(5, n), torch.arange(10, 15)])
    audio = z[heard] + noise * normal(len(heard), 8, seed=seed + 1)
    table = {"text": z, "audio": audio}
    return Embeddings(table, {"text": torch.arange(n), "audio": heard}, table, {"speaker": torch.arange(n) // 4})


def test_retrieval_between_modalities_with_missing_and_repeated_rows():
    scores = Retrieval(ks=[1, 5])(None, two_modalities())
    assert {s.name: (s.value, s.n) for s in scores} == {
        **{f"text->audio/{name}": (1.0, 35) for name in ("R@1", "R@5", "MRR", "mAP")},
        **{f"audio->text/{name}": (1.0, 40) for name in ("R@1", "R@5", "MRR")},
    }
    [one, *_] = Retrieval(query="audio", ks=[1])(None, two_modalities())
    assert one.name == "audio->text/R@1"


def test_retrieval_order_of_rows_does_not_matter():
    e = two_modalities(noise=1.0)
    before, after = Retrieval()(None, e), Retrieval()(None, shuffled(e))
    for a, b in zip(before, after, strict=True):
        assert (a.name, a.n) == (b.name, b.n)
        assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high))
    assert all(score.low < score.value < score.high for score in before)


def test_retrieval_limits():
    random = two_modalities(400, noise=100.0)
    found = values(Retrieval(query="audio", key="text", ks=[1, 100])(None, random))
    assert found["audio->text/R@1"] < 0.05
    assert abs(found["audio->text/R@100"] - 0.25) < 0.1
    collapsed = two_modalities()
    collapsed.z["audio"] = torch.ones(40, 8)
    collapsed.z["text"] = torch.ones(40, 8)
    assert values(Retrieval(ks=[1, 5])(None, collapsed))["text->audio/R@5"] == 0.0


def test_retrieval_within_a_group_ranks_each_value_by_itself():
    e = two_modalities(noise=1.0)
    within = values(Retrieval(query="audio", key="text", within="speaker", ks=[1])(None, e))
    hits, ranks = [], []
    for i, sample in enumerate(e.index["audio"].tolist()):
        mine = [j for j in range(40) if j // 4 == sample // 4]
        similarity = torch.nn.functional.normalize(e.z["text"][mine], dim=1) @ e.z["audio"][i]
        place = 1 + sum(float(x) > float(similarity[mine.index(sample)]) for x in similarity)
        hits.append(place == 1), ranks.append(1 / place)
    assert within["audio->text/R@1"] == pytest.approx(np.mean(hits))
    assert within["audio->text/MRR"] == pytest.approx(np.mean(ranks))
    e.groups["speaker"] = torch.where(torch.arange(40) < 8, -1, e.groups["speaker"])
    [one, *_] = Retrieval(query="audio", key="text", within="speaker", ks=[1])(None, e)
    assert one.n == int((e.index["audio"] >= 8).sum())


def test_retrieval_in_pools_of_candidates():
    e = two_modalities(noise=1.0)
    score = {s.name: s for s in Retrieval(query="audio", key="text", pool=16, ks=[1, 16])(None, e)}
    assert score["audio->text/R@16"].value == 1.0 and 0 < score["audio->text/R@1"].value < 1
    assert score["audio->text/R@1"].n < 40  # the samples beyond two blocks of 16 are left out
    whole = values(Retrieval(query="audio", key="text", pool=40)(None, e))
    assert whole == values(Retrieval(query="audio", key="text")(None, e))
    with pytest.raises(CounterpointError, match="41 candidates asked for; the test has 40 samples"):
        Retrieval(query="audio", key="text", pool=41)(None, e)
    with pytest.raises(ComponentError, match="pool is at least 2"):
        Retrieval(pool=1)


def test_retrieval_within_a_modality_by_group_leaves_unknown_rows_out():
    e = two_modalities()
    e.z["text"] = torch.eye(10).repeat_interleave(4, 0)  # one direction a speaker
    by_speaker = Retrieval(query="text", key="text", by="speaker", ks=[1])
    assert {(s.name, s.value, s.n) for s in by_speaker(None, e)} == {(name, 1.0, 40) for name in ("R@1", "MRR", "mAP")}
    e.groups["speaker"][:7] = -1  # the speaker of sample 7 has no second row left
    assert {s.n for s in by_speaker(None, e)} == {32}
    assert (
        not by_speaker.crosses
        and not Retrieval(by="speaker").crosses
        and Retrieval().crosses
        and by_speaker.needs() == {"speaker"}
    )


# --- geometry -------------------------------------------------------------------------------------------------------


def test_alignment_and_uniformity_are_the_formulas():
    a, b = (torch.nn.functional.normalize(normal(20, 4, seed=s), dim=1).double() for s in (0, 1))
    assert float(alignment(3 * a, b)) == pytest.approx(np.mean([float((x - y) @ (x - y)) for x, y in zip(a, b)]))
    assert float(alignment(a, b, alpha=1)) == pytest.approx(np.mean([float((x - y).norm()) for x, y in zip(a, b)]))
    pairs = [float((a[i] - a[j]) @ (a[i] - a[j])) for i in range(20) for j in range(i)]
    assert float(uniformity(5 * a)) == pytest.approx(math.log(np.mean(np.exp(-2 * np.array(pairs)))))
    assert float(uniformity(a, t=500)) > -500 * max(pairs)  # far below what exp can hold
    assert float(uniformity(a)) == pytest.approx(float(uniformity(a, chunk=3 * 20 + 1)))


def test_effective_rank_is_the_entropy_of_the_singular_values():
    for shape in ((50, 8), (8, 50)):
        h = normal(*shape) * torch.linspace(0.01, 3, shape[1])
        p = torch.linalg.svdvals(h.double())
        p = p / p.sum()
        assert float(effective_rank(h)) == pytest.approx(float((-p * p.log()).sum().exp()))
        assert float(effective_rank(h, chunk=3 * 8)) == pytest.approx(float(effective_rank(h)))
    assert float(effective_rank(torch.eye(6))) == pytest.approx(6)
    assert float(effective_rank(normal(30, 2) @ normal(2, 9, seed=1))) < 2 + 1e-6


def test_geometry_of_constants_is_finite():
    constant = torch.full((12, 5), 0.3)
    for x in (constant, 0 * constant):
        assert float(alignment(x, x)) == 0 and float(uniformity(x)) == pytest.approx(0, abs=1e-9)
    assert float(effective_rank(constant)) == pytest.approx(1, abs=1e-6)
    assert float(effective_rank(0 * constant)) == 0


@pytest.mark.parametrize("by", ["index", "speaker"])
def test_geometry_evaluator_aligns_every_positive_pair(by):
    e = two_modalities(noise=0.5)
    e.groups["speaker"][-6:] = -1
    found = {score.name: score for score in Geometry(by=by)(None, e)}
    speaker = torch.where(e.groups["speaker"] < 0, 1000 + torch.arange(40), e.groups["speaker"])
    ids = {m: index if by == "index" else speaker[index] for m, index in e.index.items()}
    for a, b, name in (("text", "text", "text"), ("audio", "audio", "audio"), ("text", "audio", "text~audio")):
        same = ids[a][:, None] == ids[b]
        left, right = (same.triu(1) if a == b else same).nonzero(as_tuple=True)
        if not len(left):
            assert f"{name}/alignment" not in found
            continue
        score = found[f"{name}/alignment"]
        assert score.value == pytest.approx(float(alignment(e.z[a][left], e.z[b][right])))
        assert score.n == len(left) and not score.higher_is_better and math.isnan(score.low)
    assert found["text/uniformity"].value == pytest.approx(float(uniformity(e.z["text"])))
    assert found["audio/effective_rank"].value == pytest.approx(float(effective_rank(e.h["audio"])))


def test_geometry_looks_at_a_fixed_choice_of_rows():
    e = embeddings(normal(600, 4))
    whole, part, again = (values(Geometry(rows=n)(None, x)) for n, x in ((600, e), (200, e), (200, shuffled(e))))
    assert part == pytest.approx(again)
    name = "uniformity"
    assert part[name] != whole[name] and part[name] == pytest.approx(whole[name], abs=0.2)


# --- bootstrap ------------------------------------------------------------------------------------------------------


def test_interval_is_the_normal_one_for_many_queries():
    hit = (torch.arange(900) % 3 == 0)[:, None]
    low, high = bootstrap.interval(bootstrap.means(hit), torch.arange(900))
    half = 1.96 * math.sqrt(1 / 3 * 2 / 3 / 900)
    assert float(low) == pytest.approx(1 / 3 - half, abs=0.004) and float(high) == pytest.approx(
        1 / 3 + half, abs=0.004
    )


def test_interval_covers_a_known_proportion():
    draws = torch.rand(200, 60, generator=torch.Generator().manual_seed(0)) < 0.4
    ends = torch.stack(
        [torch.cat(bootstrap.interval(bootstrap.means(x[:, None]), torch.arange(60), 200)) for x in draws]
    )
    covered = ((ends[:, 0] <= 0.4) & (ends[:, 1] >= 0.4)).double().mean()
    assert 0.88 <= covered <= 0.99


def test_resamples_are_a_pure_function_and_chunks_do_not_matter():
    cluster = torch.tensor([5, 5, -3, 9, 9, 9])
    whole = torch.cat(list(bootstrap.resamples(cluster, 50, seed=3)))
    parts = torch.cat(list(bootstrap.resamples(cluster, 50, seed=3, chunk=7 * 6 + 1)))
    assert torch.equal(whole, parts)
    assert not torch.equal(whole, torch.cat(list(bootstrap.resamples(cluster, 50, seed=4))))
    assert torch.equal(whole[:, 0], whole[:, 1]) and torch.equal(whole[:, 3], whole[:, 5])
    assert torch.equal(whole[:, 0] + whole[:, 2] + whole[:, 3], torch.full((50,), 3.0).double())


def test_recordings_of_one_patient_widen_the_interval():
    patient = torch.arange(400) // 4
    hit = (patient % 2 == 0)[:, None]  # a patient is right in all recordings, or in none
    widths = []
    for cluster in (torch.arange(400), patient):
        low, high = bootstrap.interval(bootstrap.means(hit), cluster)
        widths.append(float(high - low))
    assert widths[1] == pytest.approx(widths[0] * 2, rel=0.15)


@pytest.mark.parametrize("make", [KNN, LinearProbe])
def test_evaluators_resample_clusters(make):
    patient = torch.arange(80) // 8
    make = partial(make, l2=0.1) if make is LinearProbe else make
    fit, test = clustered(80, spread=3, seed=1, patient=patient), clustered(80, spread=3, seed=2, patient=patient)
    # the rows of a patient are copies of one: 10 independent queries, not 80
    for column in (test.h["signal"], test.labels["label"]):
        column[:] = column[patient * 8]
    alone, whole = (make(label="label", cluster=cluster)(fit, test)[0] for cluster in (None, "patient"))
    assert make(label="label", cluster="patient").needs() == {"label", "patient"}
    assert whole.high - whole.low > 1.5 * (alone.high - alone.low)


def test_one_cluster_has_no_interval():
    low, high = bootstrap.interval(bootstrap.means(torch.ones(5, 1)), torch.zeros(5).long())
    assert low.isnan().all() and high.isnan().all()


# --- the user's mistakes --------------------------------------------------------------------------------------------


def empty():
    return embeddings(torch.zeros(0, 4), label=torch.zeros(0, dtype=torch.int64))


def nothing_known():
    return embeddings(normal(10, 4), label=torch.full((10,), -1))


def one_class():
    return embeddings(normal(10, 4), label=torch.zeros(10, dtype=torch.int64))


def broken():
    e = clustered(20, width=4)
    e.h["signal"][3, 0] = torch.nan
    e.z = e.h
    return e


def unnamed():
    return embeddings(normal(10, 4), diagnosis=integers(2, 10))


@pytest.mark.parametrize("make", [KNN, LinearProbe])
@pytest.mark.parametrize(
    "data, says",
    [
        (empty, "none among 0"),
        (nothing_known, "none among 10"),
        (one_class, "two classes"),
        (broken, "1 of 20"),
        (unnamed, "diagnosis"),
    ],
)
def test_classifiers_name_what_is_wrong(make, data, says):
    with pytest.raises(CounterpointError, match=says):
        make(label="label", modality="signal")(data(), data())


@pytest.mark.parametrize(
    "evaluator", [KNN(label="label", modality="sginal"), Geometry(modality="sginal"), Retrieval(query="sginal")]
)
def test_a_misspelt_modality_is_answered_with_the_nearest(evaluator):
    with pytest.raises(CounterpointError, match="did you mean 'signal'"):
        evaluator(clustered(20), clustered(20))


@pytest.mark.parametrize(
    "evaluator, data, says",
    [
        (Retrieval(), empty, "none among 0"),
        (Retrieval(), one_class, "name a label or group as `by`"),
        (Retrieval(by="label"), nothing_known, "none among 10"),
        (Retrieval(by="label"), broken, "1 of 20"),
        (Geometry(), empty, "there is no row"),
        (Geometry(), broken, "1 of 20"),
        (LinearProbe(label="label"), one_class, "expected a fit set"),
        (
            Retrieval(),
            lambda: Embeddings(
                {}, {"a": torch.arange(5), "b": torch.arange(5)}, {"a": normal(5, 3), "b": normal(5, 4)}
            ),
            "one width",
        ),
        (KNN(label="value"), lambda: embeddings(normal(9, 4), value=normal(9)), "use linear_probe"),
        (KNN(label="label"), lambda: embeddings(normal(9, 4)), "neither a label nor a group"),
    ],
)
def test_evaluators_name_what_is_wrong(evaluator, data, says):
    with pytest.raises(CounterpointError, match=says):
        evaluator(None, data())


@pytest.mark.parametrize(
    "make",
    [
        lambda: KNN(label="y", k=0),
        lambda: KNN(label="y", temperature=0.0),
        lambda: KNN(label="y", metric="manhattan"),
        lambda: LinearProbe(label="y", l2=0.0),
        lambda: LinearProbe(label="y", max_iter=0),
        lambda: Retrieval(ks=[]),
        lambda: Retrieval(ks=[0]),
        lambda: Geometry(rows=1),
        lambda: Geometry(t=0),
    ],
)
def test_parameters_out_of_range_are_refused(make):
    with pytest.raises(ComponentError, match=r"must|at least"):
        make()


def test_plain_functions_refuse_what_has_no_value():
    for call in (
        lambda: alignment(torch.zeros(0, 3), torch.zeros(0, 3)),
        lambda: uniformity(torch.zeros(1, 3)),
        lambda: effective_rank(torch.zeros(0, 3)),
    ):
        with pytest.raises(CounterpointError, match="expected"):
            call()


def test_evaluators_import_nothing_heavy():
    for path in Path(bootstrap.__file__).parent.glob("*.py"):
        found = re.findall(r"^\s*(?:import|from) (\w+)", path.read_text(), re.MULTILINE)
        assert not {"sklearn", "scipy", "pandas", "lightning", "torchmetrics"} & set(found), path
