"""Soups: averages of runs, chosen without the test split, and runs that do not fit each other."""

import json

import pytest
import torch
from safetensors.torch import load_file

import counterpoint
from building import pipelines, towers
from counterpoint.fit.batch_statistics import recomputed
from counterpoint.fit.merging import Soup, average, greedy
from counterpoint.recipe import load as load_recipe
from counterpoint_toy.parts import Pairs
from test_fit import QUESTIONS, RECIPE, command

pytestmark = pytest.mark.xdist_group("merge")  # what they share is made once


def test_the_average_is_taken_in_double_precision_and_keeps_counts():
    one = {"w": torch.tensor([1.0, 2.0], dtype=torch.bfloat16), "n": torch.tensor(3)}
    two = {"w": torch.tensor([2.0, 4.0], dtype=torch.bfloat16), "n": torch.tensor(9)}
    mean = average([one, two, two])
    assert torch.equal(mean["w"], torch.tensor([5 / 3, 10 / 3], dtype=torch.bfloat16)) and int(mean["n"]) == 3


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_greedy_soup_takes_from_the_best_down_what_does_no_harm(sign):
    alone = [
        Soup("a", (0,), sign * 0.5),
        Soup("b", (1,), sign * 0.9),
        Soup("c", (2,), sign * 0.7),
        Soup("d", (3,), sign * 0.6),
    ]
    scores = {(1, 2): 0.8, (1, 3): 0.9, (1, 3, 0): 0.95}
    tried = []

    def score(members):
        tried.append(members)
        return sign * scores[members]

    soup = greedy(alone, score, sign)
    assert tried == [(1, 2), (1, 3), (1, 3, 0)]  # c harms, d is as good, a helps
    assert soup.members == (1, 3, 0) and soup.value == sign * 0.95


def test_batch_statistics_are_those_of_the_training_views(tmp_path):
    """The plain mean over batches, of both views, whatever they were before; what rests stays."""
    (tmp_path / "r.yaml").write_text(RECIPE)
    recipe, data = load_recipe(tmp_path / "r.yaml"), Pairs(size=32, modalities=["signal"])
    found = []
    for start in (0.0, 5.0):
        made = towers(("signal",), norm=True)
        layer = made["signal"].encoder.last[0]
        layer.running_mean += start
        recomputed(made, pipelines(("signal",)), data, recipe)
        assert not any(m.training for m in made["signal"].modules()) and layer.momentum == 0.1
        assert int(layer.num_batches_tracked) == 4  # two batches of 16, two views
        found.append((layer.running_mean.clone(), layer.running_var.clone()))
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])
    assert found[0][0].abs().max() > 0
    made["signal"].requires_grad_(False)
    layer.running_mean.fill_(7.0)
    recomputed(made, pipelines(("signal",)), data, recipe)
    assert (layer.running_mean == 7.0).all()


SHORT = RECIPE.replace("max_epochs: 4", "max_epochs: 2").replace("callbacks: [toy.chaos]\n", "")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three runs from one start by different rates, and one of another encoder."""
    folder = tmp_path_factory.mktemp("merge")
    (folder / "recipe.yaml").write_text(SHORT)
    changes = (
        ["optimizer.lr=0.001"],
        ["optimizer.lr=0.01", "views.signal[1].sigma=0.3"],
        ["objective.nce.temperature=0.5"],
    )
    for words in (*changes, ["encoders.signal.width=12", "name=other"]):
        done = command(folder, "fit", "recipe.yaml", *words)
        assert done.returncode == 0, done.stderr
    return folder


def test_soups_of_runs_that_differ_in_how_they_were_trained(folder):
    done = command(folder, "merge", "pairs-1", "pairs-2", "pairs-3")
    assert done.returncode == 0, done.stderr
    run = folder / "runs/pairs-soup-1"
    merged = json.loads((run / "run.json").read_text())["merged"]
    scores = merged["scores"]
    assert list(scores) == ["runs/pairs-1", "runs/pairs-2", "runs/pairs-3", "uniform", "greedy"]
    assert merged["by"] == "knn kind/accuracy" or merged["by"].endswith("accuracy")
    assert scores["greedy"] >= max(scores[f"runs/pairs-{k}"] for k in (1, 2, 3))
    assert "training samples" in done.stdout and "trained encoder" in done.stdout and "kept: greedy" in done.stdout
    encoder = counterpoint.load(run, "signal")
    assert encoder(torch.randn(3, 2, 64)).shape == (3, 16)
    assert " done " in command(folder, "runs").stdout
    assert command(folder, "evaluate", "pairs-soup-1").stdout.split("\n\n")[0] in done.stdout


def test_the_uniform_soup_is_the_mean_with_statistics_of_its_own(folder):
    done = command(folder, "merge", "pairs-1", "pairs-2", "--soup", "uniform", "--name", "mean")
    assert done.returncode == 0, done.stderr
    one, two, soup = (
        load_file(folder / f"runs/{name}/encoder.safetensors") for name in ("pairs-1", "pairs-2", "mean-1")
    )
    for name, tensor in soup.items():
        if "running" in name:
            assert not torch.equal(tensor, (one[name] + two[name]) / 2)
        elif tensor.is_floating_point():
            torch.testing.assert_close(tensor, (one[name] + two[name]) / 2)


MISTAKES = {
    "one run": (["pairs-1"], "two runs or more, each once"),
    "twice": (["pairs-1", "pairs-1"], "two runs or more, each once"),
    "no such run": (["pairs-1", "pears-2"], "pears-2: no run there"),
    "another encoder": (
        ["pairs-1", "other-1"],
        "does not fit runs/pairs-1: encoders.signal is toy.conv_bn {'width': 12}",
    ),
    "no such score": (["pairs-1", "pairs-2", "--by", "acuracy"], "'acuracy' is not a score"),
}


@pytest.mark.parametrize("words,said", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line(folder, words, said):
    before = sorted((folder / "runs").iterdir())
    done = command(folder, "merge", *words)
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert sorted((folder / "runs").iterdir()) == before


def test_a_validation_split_judges_where_there_is_one(tmp_path):
    words = ["ant", "bee", "cow", "dog", "elk", "fly", "gnu", "hen"]
    splits = ["train", "train", "train", "valid", "test"]
    rows = [f"where is the {a} {i},the {a} {i} is here,{splits[i % 5]}" for i, a in enumerate(words * 5)]
    (tmp_path / "pairs.csv").write_text("\n".join(["question,answer,split", *rows]))
    (tmp_path / "recipe.yaml").write_text(QUESTIONS.split("baselines:")[0] + "name: questions")
    for rate in (0.001, 0.002):
        done = command(tmp_path, "fit", "recipe.yaml", f"optimizer.lr={rate}")
        assert done.returncode == 0, done.stderr
    done = command(tmp_path, "merge", "questions-1", "questions-2", "--by", "question->answer/R@1")
    assert done.returncode == 0, done.stderr
    assert "judged on split 'valid'" in done.stdout
    kept = {path.name for path in (tmp_path / "runs/questions-1").glob("*.tokenizer.json")}
    assert kept and kept == {path.name for path in (tmp_path / "runs/questions-soup-1").glob("*.tokenizer.json")}
