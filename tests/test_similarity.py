"""Similarities that are no cosine: their formulas, their chunks, and that retrieval ranks by them.

Dimensions: N, M rows, L, K tokens, D width.
"""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from counterpoint.batch import Features, View
from counterpoint.by_hand.outputs import outputs
from counterpoint.errors import ComponentError, CounterpointError, RecipeError
from counterpoint.evaluate import table
from counterpoint.evaluate.embed import attach, embed
from counterpoint.evaluate.evaluator import Embeddings
from counterpoint.evaluate.retrieval import Retrieval
from counterpoint.fit import scoring
from counterpoint.fit.assembly import assemble
from counterpoint.fit.run import fit
from counterpoint.heads.projection import MLP, Identity, Linear, Several, Tokens
from counterpoint.kernels import by_rows as chunks
from counterpoint.objectives import symile
from counterpoint.objectives.clip import CLIP
from counterpoint.objectives.filip import FILIP
from counterpoint.objectives.gram import GRAM
from counterpoint.objectives.mechanisms.learned_similarity import load_similarity, save_similarity
from counterpoint.objectives.mechanisms.similarity import LateInteraction, Product, Side, Similarity, Volume
from counterpoint.objectives.multi_view import MVDHEL, MVInfoNCE
from counterpoint.objectives.symile import Symile
from counterpoint.recipe import load
from counterpoint.runs.run import Run
from counterpoint.towers.tower import Tower
from counterpoint.views.pipeline import Pipeline
from objectives.scenes import scene
from objectives.similarities import one_way

torch.set_num_threads(1)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tokens_of(n, length, seed):
    """A Side of n rows, whose last token is padding in every other row."""
    mask = torch.ones(n, length, dtype=torch.bool)
    mask[1::2, -1] = False
    return Side(normal(n, 4, seed=seed), normal(n, length, 4, seed=seed + 50), mask)


def real(side, row):
    return [t for t, there in zip(side.tokens[row], side.mask[row]) if there]


@pytest.mark.parametrize("soft", [None, 0.07])
def test_late_interaction_is_the_plain_loop_over_tokens_in_both_directions(soft):
    a, b = tokens_of(5, 3, 1), tokens_of(4, 6, 2)
    forward, backward = LateInteraction(soft)(a, [b])
    for i in range(5):
        for j in range(4):
            torch.testing.assert_close(forward[i, j], one_way(real(a, i), real(b, j), soft))
            torch.testing.assert_close(backward[i, j], one_way(real(b, j), real(a, i), soft))
    assert not torch.allclose(forward, backward)


@pytest.mark.parametrize("make", [LateInteraction, lambda: LateInteraction(0.1), Volume, Product])
def test_chunks_change_neither_value_nor_gradient(make, monkeypatch):
    def found():
        one, others = tokens_of(7, 3, 1), [tokens_of(6, 4, seed) for seed in (2, 3)]
        others = others[:1] if isinstance(make(), LateInteraction) else others
        leaves = [t.requires_grad_() for s in (one, *others) for t in (s.z, s.tokens)]
        forward, backward = make()(one, others)
        loss = (forward * normal(7, 6, seed=8) + backward * normal(7, 6, seed=9)).sum()
        return [forward, backward, *torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)]

    whole = found()
    monkeypatch.setattr(chunks, "HELD", 1)
    for a, b in zip(found(), whole):
        torch.testing.assert_close(a, b)


def test_a_row_without_tokens_is_like_nothing_and_widths_must_agree():
    a, b = tokens_of(3, 2, 1), tokens_of(3, 2, 2)
    a.mask[0] = False
    for soft in (None, 0.07):
        forward, backward = LateInteraction(soft)(a, [b])
        assert not forward[0].any() and not backward[0].any() and forward[1:].all()
    with pytest.raises(ComponentError, match=r"tokens of 4 and 3 numbers .*head: {use: tokens}"):
        LateInteraction()(a, [replace(b, tokens=b.tokens[:, :, :3])])
    with pytest.raises(ComponentError, match="no tokens"):
        LateInteraction()(a, [replace(b, tokens=None)])


def test_volume_is_the_determinant_and_stays_finite_where_all_agree():
    a, others = Side(normal(3, 8)), [Side(normal(4, 8, seed=s)) for s in (1, 2, 3)]
    volumes = -Volume()(a, others)[0]
    for i in range(3):
        for j in range(4):
            x = normalize(torch.stack([a.z[i], *(o.z[j] for o in others)]), dim=1)
            torch.testing.assert_close(volumes[i, j], torch.linalg.det(x @ x.T).sqrt())
    same = torch.randn(1, 64).expand(3, -1).clone().requires_grad_()
    near = Volume()(Side(same), [Side(same), Side(same + 1e-6)])[0]
    assert near.abs().max() < 2e-3
    assert torch.autograd.grad(near.sum(), same)[0].isfinite().all()
    cosine = normalize(a.z, dim=1) @ normalize(others[0].z, dim=1).T
    torch.testing.assert_close(-Volume()(a, others[:1])[0], (1 - cosine**2).sqrt())


def pair(n=6, d=5):
    return normal(n, d, seed=3).requires_grad_(), normal(n, d, seed=4).requires_grad_()


@pytest.mark.parametrize(
    "make", [lambda t: Symile(temperature=t), lambda t: Symile(temperature=t, negatives="n_squared")]
)
def test_symile_of_two_modalities_is_clip_whichever_negatives_it_draws(make):
    a, b = pair()
    theirs = CLIP(temperature=0.3).double()(outputs({"x": a, "y": b}))[0]
    torch.testing.assert_close(make(0.3).double()(outputs({"x": a, "y": b}))[0], theirs)


def test_filip_with_one_token_a_row_is_clip():
    o = scene("two modalities")
    single = [replace(e, tokens=e.z[:, None], mask=None) for e in o.student]
    torch.testing.assert_close(FILIP().double()(replace(o, student=single))[0], CLIP().double()(o)[0])


def test_all_tuples_in_chunks_are_all_tuples_at_once(monkeypatch):
    found = []
    for size in (1 << 16, 7):
        monkeypatch.setattr(symile.Symile, "CHUNK", size)
        o, m = scene("three modalities"), Symile(negatives="n_squared").double()
        loss = m(o)[0]
        found.append([loss, *torch.autograd.grad(loss, [e.z for e in o.student])])
    torch.testing.assert_close(*found)


def test_orders_of_symile_are_permutations_that_follow_the_samples():
    ids = torch.tensor([40, 10, 20, 30, 50])
    order, turn = symile.shuffle(ids, 5), torch.tensor([3, 0, 4, 1, 2])
    assert sorted(order.tolist()) == [0, 1, 2, 3, 4]
    assert torch.equal(ids[turn][symile.shuffle(ids[turn], 5)], ids[order][turn])
    assert not torch.equal(order, symile.shuffle(ids, 6))


def test_two_views_of_the_multi_view_losses_are_the_closed_forms():
    a, b = pair()
    x, y, tau = normalize(a, dim=1), normalize(b, dim=1), 0.2
    off = lambda s: (s / tau).masked_fill(torch.eye(6, dtype=torch.bool), -torch.inf)  # noqa: E731
    pos = (x * y).sum(1) / tau
    dhel = (off(x @ x.T).logsumexp(1) + off(y @ y.T).logsumexp(1) - pos).mean()
    torch.testing.assert_close(MVDHEL().double()(outputs(a, b))[0], dhel)
    z = torch.cat([x, y])
    both = (z @ z.T / tau).masked_fill(torch.eye(12, dtype=torch.bool), -torch.inf).logsumexp(1).view(2, 6)
    torch.testing.assert_close(
        MVInfoNCE().double()(outputs(a, b))[0], (both.logsumexp(0) - pos - torch.tensor(2.0).log()).mean()
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FILIP(top=0), "top is at least 1"),
        (lambda: GRAM(anchor="imge", modalities=["image", "text"]), "did you mean 'image'"),
        (lambda: FILIP()(outputs({"image": torch.randn(2, 3), "text": torch.randn(2, 3)})), "'image' gives no tokens"),
        (lambda: Several(heads={"a": Linear(width=4)}, z="b"), "z names one of the heads; got 'b'"),
        (lambda: Several(heads={"a": Tokens(width=4, token_width=4)}, z="a"), "more than one output"),
        (lambda: Several(heads={"tokens": Linear(width=4)}, z="tokens"), "cannot be the name"),
    ],
)
def test_mistakes_are_explained(make, message):
    with pytest.raises(ComponentError, match=message):
        make()


# --- heads ------------------------------------------------------------------------------------------------------------


class Words(nn.Module):
    """An encoder of three tokens a row."""

    width, token_width = 6, 5

    def forward(self, data):
        return Features(data[:, :6], data[:, :15].unflatten(1, (3, 5)))


def test_heads_may_see_tokens_and_give_several_outputs():
    view = View("words", torch.randn(4, 15), torch.arange(4))
    encoded = Tower("words", Words(), Tokens(width=6, token_width=5, dim=7))(view, 0)
    assert encoded.z.shape == (4, 7) and encoded.tokens.shape == (4, 3, 7) and not encoded.heads
    several = Several(heads={"common": MLP(width=6, dim=3), "salient": Linear(width=6, dim=2)}, z="common")
    encoded = Tower("words", Words(), several)(view, 0)
    assert several.dim == 3 and set(several.gives) == {"common", "salient"}
    assert encoded.z is encoded.heads["common"] and encoded.heads["salient"].shape == (4, 2)
    assert encoded.tokens.shape == (4, 3, 5)
    plain = Tower("words", nn.Linear(15, 6), Tokens(width=6, token_width=6))
    with pytest.raises(ComponentError, match="returns h alone"):
        plain(view, 0)


# --- retrieval --------------------------------------------------------------------------------------------------------


def recall_at_1(table, relevant):
    """Ties count against: a relevant key must be strictly the nearest of all that are not."""
    hits = [table[i][relevant[i]].max() > table[i][~relevant[i]].max() for i in range(len(table))]
    return sum(map(float, hits)) / len(hits)


def of_tokens(n=9):
    """Two modalities, whose tokens agree only in part."""
    a = tokens_of(n, 3, 1)
    b = Side(normal(n, 4, seed=5), torch.cat([a.tokens + 0.9 * normal(n, 3, 4, seed=6), normal(n, 2, 4, seed=7)], 1))
    b = replace(b, mask=torch.ones(n, 5, dtype=torch.bool))
    sides = {"image": a, "text": b}
    index = {m: torch.arange(n) for m in sides}
    tokens, masks = {m: s.tokens for m, s in sides.items()}, {m: s.mask for m, s in sides.items()}
    return Embeddings({}, index, {m: s.z for m, s in sides.items()}, tokens=tokens, masks=masks), a, b


@pytest.mark.parametrize("similarity", [LateInteraction(), LateInteraction(0.07, both_ways=True)])
def test_retrieval_scores_token_sets_as_a_plain_loop_does(similarity):
    embeddings, a, b = of_tokens()
    attach(similarity, {"trained": embeddings}, ["trained"])
    found = {s.name: s.value for s in Retrieval(ks=[1])(None, embeddings)}
    way = lambda x, i, y, j: one_way(real(x, i), real(y, j), similarity.soft)  # noqa: E731
    for name, x, y in (("image->text", a, b), ("text->image", b, a)):
        table = torch.tensor([[way(x, i, y, j) for j in range(9)] for i in range(9)])
        if similarity.both_ways:
            table = (table + torch.tensor([[way(y, j, x, i) for j in range(9)] for i in range(9)])) / 2
        assert found[f"{name}/R@1"] == pytest.approx(recall_at_1(table, torch.eye(9, dtype=torch.bool)))
    assert 0.2 < found["image->text/R@1"] < 1
    cosine = {s.name: s.value for s in Retrieval(ks=[1], similarity="cosine")(None, embeddings)}
    assert cosine == {s.name: s.value for s in Retrieval(ks=[1])(None, replace(embeddings, similarity=None))}
    assert cosine != found


def test_the_evaluator_ranks_by_what_the_objective_contrasts():
    """The first key is the one with the largest logit of the objective's own table, row by row."""
    o, m = scene("two modalities"), FILIP().double()
    a, b = (replace(e, z=e.z.detach(), tokens=e.tokens.detach()) for e in o.student)
    forward, backward = m.similarity(Side(a.z, a.tokens, a.mask), [Side(b.z, b.tokens, b.mask)])
    embeddings = Embeddings(
        {}, {"image": a.row, "text": b.row}, {"image": a.z, "text": b.z},
        tokens={"image": a.tokens, "text": b.tokens}, masks={"image": a.mask, "text": b.mask}, similarity=m.similarity,
    )  # fmt: skip
    found = {s.name: s.value for s in Retrieval(ks=[1, 2])(None, embeddings)}
    own = torch.eye(5, dtype=torch.bool)
    assert found["image->text/R@1"] == pytest.approx(recall_at_1(forward, own))
    assert found["text->image/R@1"] == pytest.approx(recall_at_1(backward.T, own))


def three(missing=True):
    """Three modalities; samples 1 and 4 lack one, and sample 2 has two texts."""
    z = {m: normal(8, 5, seed=s) for s, m in enumerate(("image", "text", "ecg"))}
    index = {"image": torch.arange(8), "text": torch.tensor([0, 1, 2, 2, 3, 5, 6, 7]), "ecg": torch.arange(8)}
    if missing:
        index["ecg"], z["ecg"] = torch.tensor([0, 2, 3, 4, 5, 6, 7]), z["ecg"][:7]
    return Embeddings({}, index, z)


@pytest.mark.parametrize("objective", [Symile(), GRAM(anchor="text")])
def test_all_modalities_take_part_in_retrieval_and_only_whole_samples(objective):
    e, baseline = three(), three()
    attach(objective.similarity, {"trained": e, "baseline": baseline}, ["trained"])
    assert e.complete.tolist() == [0, 2, 3, 5, 6, 7] and baseline.similarity is None
    scores = {s.name: s for s in Retrieval(ks=[1])(None, e)}
    counted = {s.name: s.n for s in Retrieval(ks=[1])(None, baseline)}
    assert counted == {name: s.n for name, s in scores.items()}
    row = lambda m, sample: normalize(e.z[m][e.index[m].tolist().index(sample)], dim=0)  # noqa: E731
    whole, texts = e.complete.tolist(), [r for r, s in enumerate(e.index["text"].tolist()) if s in e.complete]
    table = torch.zeros(len(whole), len(texts))
    for i, s in enumerate(whole):
        for j, r in enumerate(texts):
            vectors = torch.stack([row("image", s), row("ecg", s), normalize(e.z["text"][r], dim=0)])
            is_product = isinstance(objective, Symile)
            table[i, j] = vectors.prod(0).sum() if is_product else -torch.linalg.det(vectors @ vectors.T).sqrt()
    relevant = torch.tensor(whole)[:, None] == e.index["text"][texts]
    assert scores["image->text/R@1"].value == pytest.approx(recall_at_1(table, relevant))
    if not is_product:  # the product's query is always the larger side
        assert scores["text->image/R@1"].value == pytest.approx(recall_at_1(table.T, relevant.T))


def test_without_a_whole_sample_retrieval_says_so():
    e = three()
    e.index["ecg"] = e.index["ecg"] + 100
    attach(Product(), {"trained": e}, ["trained"])
    with pytest.raises(CounterpointError, match="no sample of the test has all; set similarity: cosine"):
        Retrieval()(None, e)


class _Sentences(torch.utils.data.Dataset):
    groups, labels = {}, {}

    def __len__(self):
        return 5

    def __getitem__(self, i):
        from counterpoint.data.dataset import Sample

        return Sample({"words": torch.arange(i + 2)})


class Table(nn.Module):
    width = 3

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(9, 3)

    def forward(self, data, mask=None):
        return Features(self.table(data).mean(1), self.table(data), mask)


def test_tokens_are_kept_when_asked_padded_to_the_longest():
    models = {"trained": {"words": Tower("words", Table(), Identity(width=3))}}
    pipelines, data = {"words": Pipeline("words", [], [])}, _Sentences()
    assert not embed(models, pipelines, data, batch=2)["trained"].tokens
    seen = embed(models, pipelines, data, batch=2, keep=frozenset({"tokens"}))["trained"]
    assert seen.tokens["words"].shape == (5, 6, 3) and seen.masks["words"].sum(1).tolist() == [2, 3, 4, 5, 6]
    torch.testing.assert_close(
        seen.tokens["words"][1, :3], models["trained"]["words"].encoder.table.weight[:3].detach()
    )


class LearnedSimilarity(Similarity):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))


def test_what_a_similarity_has_learned_is_kept_with_the_run(tmp_path):
    run, objective = Run(tmp_path), nn.Module()
    objective.similarity = LearnedSimilarity()
    with torch.no_grad():
        objective.similarity.weight += 2
    save_similarity({"nce": nn.Module(), "own": objective}, run)
    again = nn.Module()
    again.similarity = LearnedSimilarity()
    assert torch.equal(load_similarity(run, {"own": again}).weight, objective.similarity.weight)
    other = Run(tmp_path / "other")
    save_similarity({"own": FILIP()}, other)  # nothing is learned, and nothing is written
    assert not other.similarity.exists() and isinstance(load_similarity(other, {"own": FILIP()}), LateInteraction)
    assert load_similarity(other, {"own": CLIP()}) is None


RECIPE = """
data:      {use: toy.pairs, size: 24, missing: 0.3}
loader:    {batch: 8, workers: 0}
encoders:
  signal:  {use: toy.conv}
  words:   {use: text_transformer, width: 8, depth: 1, heads: 2}
heads:     {signal: {use: mlp, dim: 8}, words: {use: mlp, dim: 8}}
objective: {use: gram, anchor: words}
trainer:   {max_epochs: 1, accelerator: cpu}
evaluate:  [{use: retrieval, ks: [1, 5]}]
name: small
"""
WORDS = (
    "data={use: toy.pairs, size: 24, modalities: [words]}",
    "encoders={words: {use: text_transformer, width: 8, depth: 1, heads: 2}}",
    "views={words: [{use: copies, n: 2}, {use: toy.drop, rate: 0.2}]}",
    "evaluate=[{use: retrieval, by: kind, ks: [1]}]",
)
SEVERAL = "{use: several, z: common, heads: {common: {use: mlp, dim: 8}, salient: {use: linear, dim: 8}}}"


@pytest.mark.parametrize(
    ("changes", "similarity"),
    [
        ((), Volume),
        (("objective={use: symile}",), Product),
        ((*WORDS, "objective={use: filip}", "heads={words: {use: tokens, dim: 6}}"), LateInteraction),
        ((*WORDS, f"heads={{words: {SEVERAL}}}", "objective={use: sepclr, label: kind}"), type(None)),
        ((*WORDS, f"heads={{words: {SEVERAL}}}", "objective={use: amcl, heads: [common, salient]}"), type(None)),
    ],
)
def test_a_recipe_trains_and_is_scored_by_its_objective_s_similarity(changes, similarity, tmp_path, monkeypatch):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    recipe, seen = load(tmp_path / "recipe.yaml", list(changes)), {}
    score = lambda evaluators, fit, test: seen.update(test) or table.score(evaluators, fit, test)  # noqa: E731
    monkeypatch.setattr(scoring, "table", SimpleNamespace(**vars(table) | {"score": score}))
    run = fit(recipe, root=tmp_path / "runs")
    scoring.finish(run, recipe)
    assert {r["representation"] for r in run.scores()} >= {table.TRAINED, table.UNTRAINED}
    assert isinstance(seen[table.TRAINED].similarity, similarity)
    assert (seen[table.TRAINED].complete is not None) == (similarity in (Volume, Product))
    assert bool(seen[table.TRAINED].tokens) == (similarity is LateInteraction)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            (*WORDS, "heads={words: {use: mlp}}", "objective={use: sepclr, label: kind}"),
            "needs heads that also give common, salient; they give: z alone",
        ),
        (("objective={use: filip}",), "needs tokens from the encoders"),
        (("objective={use: gram, anchor: wrods}",), "did you mean 'words'"),
        ((f"heads.words={SEVERAL.replace('z: common', 'z: commn')}",), "did you mean 'common'"),
    ],
)
def test_what_a_recipe_lacks_is_said_before_it_trains(changes, problem, tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    with pytest.raises(RecipeError, match=problem):
        assemble(load(tmp_path / "recipe.yaml", list(changes)))
