"""`counterpoint doctor`: every check finds the fault that is planted for it, and says nothing of what is sound."""

import csv
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from counterpoint.batch import View
from counterpoint.cli import main
from counterpoint.doctor import chance, data, negatives, run, views
from counterpoint.doctor.look import look, sketch
from counterpoint.fit.assembly import assemble
from counterpoint.recipe import load

SAMPLES, LENGTH = 60, 64


def table(folder, rows):
    """A manifest of arrays that are written beside it: rows of (array, split, columns)."""
    folder.mkdir(exist_ok=True)
    names = ["file", "split", *next((columns for *_, columns in rows if columns), {})]
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for i, (array, split, columns) in enumerate(rows):
            np.save(folder / f"{i}.npy", array)
            writer.writerow({"file": f"{i}.npy", "split": split} | columns)


def healthy(seed=0):
    """Two recordings of a person, nobody in both splits."""
    rng = np.random.default_rng(seed)
    return [
        (
            rng.normal(size=(1, LENGTH)),
            "test" if i % SAMPLES >= 48 else "train",
            {"person": f"p{i // 2}", "kind": "ab"[i % 2]},
        )
        for i in range(SAMPLES)
    ]


def recipe(folder, **sections):
    arrays = {"use": "arrays", "constant": True}
    whole = {
        "data": {"use": "manifest", "path": str(folder / "table.csv"), "inputs": {"wave": "file"}, "groups": ["person"],
                 "labels": ["kind"], "readers": {"wave": arrays}},
        "loader": {"batch": 16, "sampler": {"use": "by_group", "by": "person", "per_group": 2}},
        "encoders": {"wave": {"use": "ecg.resnet1d", "width": 4, "blocks": [1], "norm": "group"}},
        "views": {"wave": [{"use": "copies", "n": 2}, {"use": "ecg.noise", "sigma": 0.1}]},
        "objective": {"use": "info_nce", "positives": "person"},
        "trainer": {"max_epochs": 1},
        "evaluate": [{"use": "linear_probe", "label": "kind", "cluster": "person"}],
    } | sections  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(whole))
    return folder / "recipe.yaml"


def looked(folder, rows=None, **sections):
    table(folder, rows or healthy())
    return look(load(recipe(folder, **sections)))


def told(findings):
    return [str(finding) for finding in findings]


def by_person(**changes):
    return {"loader": {"batch": 16, "sampler": {"use": "shuffle"}}} | changes


def test_nothing_is_found_in_what_is_sound(tmp_path, capsys):
    table(tmp_path, healthy())
    assert main(["doctor", str(recipe(tmp_path))]) == 0
    assert capsys.readouterr().out.endswith("48 of 48 samples of 'train', 12 of 12 samples of 'test': no findings\n")


def test_a_group_in_both_splits_is_found_with_the_setting_that_mends_it(tmp_path, capsys):
    rows = [(x, "test" if i % 5 == 0 else "train", columns) for i, (x, _, columns) in enumerate(healthy())]
    table(tmp_path, rows)
    path = recipe(tmp_path, **by_person())
    assert main(["doctor", str(path)]) == 1
    text = capsys.readouterr().out
    assert "data: 12 of 12 groups 'person' of the test split are in the training split, too\n    " in text
    assert "data.split_column=null data.holdout_by=person" in text
    mended = look(load(path, ["data.split_column=null", "data.holdout_by=person"]))
    assert not told(data.leaking_groups(mended))


def test_groups_that_scores_are_about_are_in_both_splits_on_purpose(tmp_path):
    rows = [(x, "test" if i % 2 else "train", columns) for i, (x, _, columns) in enumerate(healthy())]
    asked = by_person(evaluate=[{"use": "knn", "label": "person"}])
    assert not told(data.leaking_groups(looked(tmp_path, rows, **asked)))


def test_copies_across_the_splits_are_found_to_the_bit_and_nearly(tmp_path):
    rows = healthy()
    rows[50] = (rows[3][0], *rows[50][1:])
    rows[51] = (rows[4][0] * 1.7 + 0.02 * np.random.default_rng(5).normal(size=(1, LENGTH)), *rows[51][1:])
    exact, near = told(data.copies_across(looked(tmp_path, rows)))
    assert "1 of 12 test samples are in the training split, to the bit: 2" in exact
    assert "1 of 12 test samples are nearly those of the training split in 'wave': 3" in near


def test_sketches_keep_the_cosine_of_what_is_close():
    rng = torch.Generator().manual_seed(0)
    for size in ((1, 300), (3, 20_000), (1, 2, 40, 50)):
        x = torch.randn(size, generator=rng)
        for noise, least, most in ((0.05, 0.998, 0.9994), (0.3, 0.94, 0.98)):
            y = 2 * x + 5 + 2 * noise * torch.randn(size, generator=rng)
            assert least - 0.02 < float(sketch(x) @ sketch(y)) < most + 0.01
        assert abs(float(sketch(x) @ sketch(torch.randn(size, generator=rng)))) < 0.4
        assert not sketch(torch.full(size, 0.1)).any()


def test_constant_and_unreadable_samples_are_found(tmp_path):
    rows = healthy()
    rows[7] = (np.full((1, LENGTH), 0.3), *rows[7][1:])
    seen = looked(tmp_path, rows)
    assert "1 of 48 samples of 'train' have one value all over in 'wave': 7" in told(data.constant(seen))[0]
    (tmp_path / "9.npy").write_bytes((tmp_path / "9.npy").read_bytes()[:-8])
    bad = looked_again(seen)
    assert "1 of 48 samples of 'train' cannot be read: 9" in told(data.unreadable(bad))[0] and len(bad.train) == 47


def looked_again(seen):
    from counterpoint.doctor.look import Data, part_of

    return Data(seen.recipe, part_of(seen.train.dataset, "train", 2048), None)


@pytest.mark.parametrize(("missing", "serious"), [(0.3, False), (0.8, True)])
def test_samples_without_a_partner_are_counted(missing, serious):
    hashes = np.arange(100)
    part = Sized({"a": hashes, "b": np.where(hashes < 100 * missing, -1, hashes)})
    found = list(data.unpaired(fake(part, ("a", "b"))))
    assert found[0].serious == serious and f"{missing:.0%} of the samples have no second modality" in found[0].what
    assert not list(data.unpaired(fake(Sized({"a": hashes, "b": hashes}), ("a", "b"))))


class Sized:
    """What was seen of a split, without a data set."""

    def __init__(self, hashes):
        self.hashes, self.index = hashes, np.arange(100)

    def __len__(self):
        return 100


def fake(part, modalities):
    return SimpleNamespace(
        train=part,
        test=None,
        recipe=SimpleNamespace(encoders=dict.fromkeys(modalities), loader=SimpleNamespace(batch=16)),
    )


def test_one_large_class_is_found(tmp_path):
    kinds = lambda i: "rare" if i == 0 else "usual"  # noqa: E731
    rows = [(x, split, columns | {"kind": kinds(i)}) for i, (x, split, columns) in enumerate(healthy())]
    (found,) = data.uneven(looked(tmp_path, rows))
    assert not found.serious and "of label 'kind' has 47 samples, the smallest 1" in found.what
    assert not list(data.uneven(looked(tmp_path)))


def test_negatives_of_ones_own_group_are_found(tmp_path):
    person = lambda i: f"p{i % 4}" if i % SAMPLES < 48 else "other"  # noqa: E731
    rows = [(x, split, columns | {"person": person(i)}) for i, (x, split, columns) in enumerate(healthy())]
    seen = looked(tmp_path, rows, **by_person(objective={"use": "nt_xent"}))
    (found,) = [f for f in negatives.false_negatives(seen, assemble(seen.recipe)) if "group" in f.what]
    assert found.serious and "of the negatives in a batch share the anchor's group 'person'" in found.what
    assert 0.18 < float(found.what.partition("%")[0]) / 100 < 0.3  # 11 of the 47 others are of the anchor's
    made = load(tmp_path / "recipe.yaml", ["objective=info_nce", "objective.positives=person"])
    seen.recipe = made
    assert not [f for f in negatives.false_negatives(seen, assemble(made)) if "group" in f.what]


def test_negatives_of_a_frequent_class_are_noted(tmp_path):
    kinds = lambda i: "abc"[max(0, i % 8 - 5)]  # noqa: E731
    rows = [(x, split, columns | {"kind": kinds(i)}) for i, (x, split, columns) in enumerate(healthy())]
    seen = looked(tmp_path, rows)
    (found,) = negatives.false_negatives(seen, assemble(seen.recipe))
    assert not found.serious and "share the anchor's label 'kind'" in found.what


def test_the_same_content_in_several_samples_is_a_false_negative(tmp_path):
    rows = healthy()
    rows = [(rows[0][0] if i % 2 else x, *rest) for i, (x, *rest) in enumerate(rows)]
    (found,) = negatives.equal_contents(looked(tmp_path, rows))
    assert found.serious and "27% of the pairs of training samples have the same 'wave'" in found.what
    assert not list(negatives.equal_contents(looked(tmp_path)))


def test_positives_that_never_meet_are_found(tmp_path):
    seen = looked(tmp_path, **by_person(loader={"batch": 4, "sampler": {"use": "shuffle"}}))
    (found,) = negatives.lonely_positives(seen, assemble(seen.recipe))
    assert found.serious and "by: person, per_group: 2" in found.remedy
    alone = [(x, split, columns | {"person": str(i)}) for i, (x, split, columns) in enumerate(healthy())]
    seen = looked(tmp_path, alone)
    assert "48 of 48 samples have none" in next(negatives.lonely_positives(seen, assemble(seen.recipe))).what


@pytest.mark.parametrize(
    ("steps", "what"),
    [
        ([{"use": "copies", "n": 2}], "views 0 and 1 are the same for 48 of 48 samples"),
        ([{"use": "copies", "n": 2}, {"use": "ecg.time_mask", "fraction": [1.0, 1.0]}], "has one value all over"),
        ([{"use": "copies", "n": 2}, {"use": "ecg.scale", "sigma": 1e300}], "NaN or infinite"),
    ],
)
def test_views_that_ask_nothing_are_found(tmp_path, steps, what):
    seen = looked(tmp_path, views={"wave": steps})
    (found, *_) = views.check(seen, assemble(seen.recipe))
    assert found.serious and what in found.what


def test_an_encoder_that_gives_one_point_is_found():
    view = View("wave", torch.randn(8, 1, 16), torch.arange(8))
    tower = lambda scale: Point(scale).train()  # noqa: E731
    assert "one h for 8 different samples" in next(views.one_point("wave", view, [view], tower(1e-7))).what
    assert not list(views.one_point("wave", view, [view], tower(1.0)))


class Point(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, view, number):
        return SimpleNamespace(h=1 + self.scale * view.data[:, 0])


# A run


@pytest.fixture
def trained(tmp_path):
    """A run folder as `fit` leaves it, with the series that a test writes into metrics.csv."""
    table(tmp_path, healthy())
    whole = load(recipe(tmp_path, objective={"use": "info_nce", "temperature": 0.1, "learnable": True}))
    folder = tmp_path / "runs/wave-1"
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(whole.as_yaml())
    given = {"wave": {"size": 48, "channels": 1, "length": LENGTH}}
    (folder / "run.json").write_text(json.dumps({"state": "done", "given": given}))
    ours = {
        "loss": np.linspace(2.7, 1.0, 20), "temperature": np.full(20, 0.08), "data_wait": np.full(20, 0.1),
        "uniformity/wave": np.full(20, -1.5), "effective_rank/wave": np.full(20, 9.0),
    }  # fmt: skip

    def findings(scores=(), state="done", **series):
        steps = [
            (10 * (i + 1), name, value) for name, values in (ours | series).items() for i, value in enumerate(values)
        ]
        lines = ["step,epoch,name,value", *(f"{step},0,{name},{value:.6g}" for step, name, value in steps), "210,0,lo"]
        (folder / "metrics.csv").write_text("\n".join(lines))
        (folder / "scores.json").write_text(json.dumps(list(scores)))
        (folder / "run.json").write_text(json.dumps({"state": state, "given": given, "error": "out of memory"}))
        from counterpoint.runs.run import Run

        return list(run.check(Run(folder)))

    return findings


def test_nothing_is_found_in_a_sound_run(trained):
    assert trained() == []


@pytest.mark.parametrize(
    ("series", "where", "what"),
    [
        ({"loss": np.full(20, np.log(16) + 0.01)}, "loss", "loss has stayed at ln(batch) = 2.77"),
        ({"uniformity/wave": np.full(20, -0.01)}, "collapse", "nearly one point at step 200"),
        ({"effective_rank/wave": np.linspace(20, 1.2, 20)}, "collapse", "1.2 effective directions"),
        ({"temperature": np.full(20, 0.01)}, "temperature", "its bound 0.01"),
        ({"temperature": np.linspace(0.1, 3.0, 20)}, "temperature", "risen to 3"),
        ({"data_wait": np.full(20, 0.6)}, "data", "the device waits for data 60% of the time"),
    ],
)
def test_a_fault_of_a_run_is_found(trained, series, where, what):
    (found,) = trained(**series)
    assert found.where == where and what in found.what and found.remedy


def test_the_first_steps_are_not_judged(trained):
    assert trained(loss=np.full(4, np.log(16))) == []


def test_a_failed_run_and_scores_that_training_has_not_raised_are_found(trained):
    score = {"evaluator": "knn", "metric": "accuracy", "low": 0.4, "high": 0.6, "higher_is_better": True}
    scores = [
        score | {"representation": name, "value": v}
        for name, v in (("trained encoder", 0.5), ("untrained encoder", 0.5))
    ]
    assert "0.500 with the trained encoder, 0.500 with the untrained" in trained(scores)[0].what
    assert "out of memory" in trained(state="failed")[0].what


@pytest.mark.parametrize(
    ("objective", "count"),
    [("info_nce", 16), ("nt_xent", 31), ("clip", 16), ("ntxent_multiview", 31), ("moco", None), ("vicreg", None)],
)
def test_the_loss_of_chance_is_asked_of_the_objective(tmp_path, objective, count):
    table(tmp_path, healthy())
    made = load(recipe(tmp_path, objective={"use": objective}))
    found = chance.chances(made, {"wave": {"size": 48, "channels": 1, "length": LENGTH}})
    assert found.keys() == ({"loss"} if count else set())
    assert not count or found["loss"][1] == pytest.approx(np.log(count), rel=1e-3)


def test_mistakes_and_help(tmp_path, capsys):
    assert (
        main(["doctor", str(tmp_path / "none.yaml")]) == 2 and main(["doctor", "latest", "--runs", str(tmp_path)]) == 2
    )
    assert main(["doctor", "x", "--samples", "0"]) == 2
    code = (
        "import sys; from counterpoint.cli import main; main(['doctor', '--help']); assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
    capsys.readouterr()
