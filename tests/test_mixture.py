"""Datasets made of others: repeated real data beside generated ones, and how a recipe nests them."""

import json

import numpy as np
import pytest
import torch

from counterpoint.data.dataset import Spec
from counterpoint.data.derived.mixture import Mixture
from counterpoint.errors import DataError
from counterpoint.fit.assembly import build_dataset
from counterpoint.fit.run import fit
from counterpoint.fit.scoring import evaluate
from counterpoint.recipe import load
from test_matrix import recipe_of
from test_planted import Paired


def test_a_recipe_wraps_one_dataset_in_another(tmp_path, monkeypatch):
    """Planted in a mixture: each is built with the split that it asks for, trained on and scored."""
    monkeypatch.chdir(tmp_path)
    recipe = {key: value for key, value in recipe_of("code_search", "pair", tmp_path).items() if value is not None}
    mixture = {"use": "mixture", "of": [recipe["data"], recipe["data"]], "repeat": [2, 1]}
    recipe["data"] = {"use": "planted", "of": mixture, "modality": "code", "target": 1, "share": 0.2}
    recipe["evaluate"] = [{"use": "attack_success"}, {"use": "retrieval", "within": "planted", "ks": [1]}]
    recipe["objective"] = {"use": "clip"}
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe), encoding="utf-8")
    checked = load(path)
    written = tmp_path / "again.yaml"
    written.write_text(checked.as_yaml(), encoding="utf-8")
    assert load(written).data == checked.data
    train, test, first = build_dataset(checked), build_dataset(checked, "test"), load(path).data.params["of"].build()
    assert len(train) == len(first) and len(test) % 2 == 1 and test.spec.groups["sample"] == len(test) // 2
    run = fit(checked, root=tmp_path / "runs")
    scores = evaluate(run, checked)
    assert {s["metric"] for s in scores if s["representation"] == "trained encoder"} == {
        "code->first/attack_success@1", "code->first/clean R@1", "code->first/R@1", "code->first/MRR", "first->code/R@1",
        "first->code/MRR",
    }  # fmt: skip
    assert {s["n"] for s in scores} == {len(test) // 2}


def mixed(split="train", **options):
    generated = lambda split: Paired("test", 100)  # noqa: E731
    return Mixture(of=[Paired, generated], split=split, **{"repeat": [3, 1]} | options)


def test_a_mixture_repeats_each_dataset_and_knows_which_copies_are_one_sample():
    data, real, made = mixed(), Paired(), Paired("test", 100)
    assert len(data) == data.spec.size == 3 * 240 + 100 and data.spec.groups == {"who": 240, "sample": 340}
    for place in (0, 7, 240 + 7, 480 + 239):
        sample = data[place]
        assert torch.equal(sample.inputs["picture"], real[place % 240].inputs["picture"])
        assert sample.groups == {"who": place % 240, "sample": place % 240} and sample.labels["age"] == place % 240
    last = data[720 + 9]
    assert torch.equal(last.inputs["signal"], made[9].inputs["signal"])
    assert last.groups == {"who": -1, "sample": 249} and np.isnan(last.labels["age"])
    counts = np.bincount(data.groups["sample"])
    assert (counts[:240] == 3).all() and (counts[240:] == 1).all()
    assert len(mixed("test")) == 240 and torch.equal(
        mixed("test")[3].inputs["picture"], Paired("test")[3].inputs["picture"]
    )
    assert len(mixed(repeat=None)) == 340


def test_a_mixture_of_unlike_data_is_refused():
    class Other(Paired):
        def __init__(self, **facts):
            super().__init__()
            self.spec = Spec(240, {"picture": {"channels": 1} | facts}, splits=("train", "test"))

    with pytest.raises(DataError, match=r"picture\.channels is 1 in the first data set and 3 in another"):
        Mixture(of=[Paired, lambda split: Other(channels=3)])
    with pytest.raises(DataError, match="'signal' is in a later data set and not in the first, which has: picture"):
        Mixture(of=[lambda split: Other(), Paired])
    with pytest.raises(DataError, match=r"for each of 2 data sets; got \[3\]"):
        mixed(repeat=[3])
