"""Stages: where each begins, what it looks at of those before it, and what is left in the end."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import normalize

import counterpoint
from counterpoint.errors import RecipeError, RunError, Stopped
from counterpoint.fit.assembly import assemble
from counterpoint.fit.initial_weights import Finished, fill_earlier
from counterpoint.fit.run import fit
from counterpoint.fit.scoring import finish
from counterpoint.recipe import load
from counterpoint.refresh.kmeans import KMeans
from counterpoint.runs.run import Run
from counterpoint.towers.building import build_tower
from counterpoint.towers.loading import load_towers
from counterpoint.towers.storing import read_tensors

BASE = """
data:      {use: toy.pairs, size: 24, modalities: [signal]}
loader:    {batch: 12, workers: 0}
encoders:  {signal: {use: toy.conv_bn, width: 8}}
heads:     {signal: {use: mlp, dim: 4}}
views:     {signal: [{use: copies, n: 2}, {use: toy.noise, sigma: 0.1}]}
objective: nt_xent
optimizer: {use: adamw, lr: 0.01}
schedule:  constant
trainer:   {max_epochs: 1, accelerator: cpu}
loggers:   []
"""
THREE = """
evaluate:  [{use: knn, label: kind, k: 1}, {use: retrieval, by: kind}]
callbacks: [toy.chaos]
concatenate: true
stages:
  - name: first
  - name: second
    start: afresh
    teacher: {stage: first}
    refresh: {cluster: {use: kmeans, clusters: 2, every: null, by: [first]}}
    objective: {mcl: {use: mcl_multistage}, keep: {use: selfdistill_fpt}}
    trainer: {max_epochs: 2, accelerator: cpu}
  - name: third
    start: {stage: first}
    refresh: {cluster: {use: kmeans, clusters: 2, every: null, by: [first, second]}}
    objective: mcl_multistage
"""


def read(folder, *more):
    (folder / "recipe.yaml").write_text("".join(more))
    return load(folder / "recipe.yaml")


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    recipe = read(folder, BASE, THREE)
    return recipe, fit(recipe, root=folder / "runs")


def weights(run):
    return {path.name: read_tensors(path) for path in [run.weights, *run.folder.glob("stages/*.safetensors")]}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name, tensors in a.items():
        assert tensors.keys() == b[name].keys()
        different = [key for key, tensor in tensors.items() if not torch.equal(tensor, b[name][key])]
        assert not different, (name, different)


# --- stopped and gone on with ----------------------------------------------------------------------------------------


@pytest.mark.fault("R1")
@pytest.mark.parametrize("lost", [False, True], ids=["at a step", "before its first checkpoint"])
def test_a_run_stopped_in_a_stage_ends_as_if_it_had_not_been(lost, straight, tmp_path, monkeypatch):
    recipe, expected = straight
    monkeypatch.setenv("TOY_STEP", "3")  # of the second stage: the first has two
    monkeypatch.setenv("TOY_SIGNAL", "SIGTERM")
    with pytest.raises(Stopped) as stopped:
        fit(recipe, root=tmp_path)
    monkeypatch.delenv("TOY_STEP")
    run = Run(stopped.value.run)
    assert run.facts()["stages_done"] == ["first"]
    if lost:
        shutil.rmtree(run.folder / "checkpoints/second")
    resumed = fit(load(run.recipe), root=tmp_path, run=Run(run.folder))
    assert_same(weights(resumed), weights(expected))


# --- where a stage begins --------------------------------------------------------------------------------------------


def test_afresh_is_another_start_that_seed_and_name_tell(tmp_path):
    recipe = read(tmp_path, BASE, THREE)
    made = lambda r, stage: build_tower(dict(r.stage_recipes())[stage], "signal", {"channels": 2}).state_dict()  # noqa: E731
    first, second, again = made(recipe, "first"), made(recipe, "second"), made(recipe, "second")
    renamed = made(
        read(tmp_path, BASE, THREE.replace("name: second", "name: other").replace("second]", "other]")), "other"
    )
    learnt = [name for name, tensor in first.items() if tensor.ndim > 1]
    assert all(torch.equal(second[name], again[name]) for name in second)
    assert not any(torch.equal(second[name], other[name]) for name in learnt for other in (first, renamed))


STILL = BASE.replace("lr: 0.01", "lr: 0.0").replace("conv_bn", "conv")  # nothing moves: a run ends where it began


def test_a_stage_begins_where_it_says(tmp_path):
    recipe = read(
        tmp_path, STILL,
        "stages: [{name: a, optimizer: {use: adamw, lr: 0.01}}, {name: b, start: afresh}, {name: c}, {name: d, start: {stage: a}}]",
    )  # fmt: skip
    found = weights(fit(recipe, root=tmp_path / "runs"))
    assert_same({"": found["b.safetensors"]}, {"": found["c.safetensors"]})
    assert_same({"": found["a.safetensors"]}, {"": found["encoder.safetensors"]})
    assert not torch.equal(found["a.safetensors"]["signal.head.stack.0.weight"], found["b.safetensors"]["signal.head.stack.0.weight"])  # fmt: skip


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A run to start from."""
    folder = tmp_path_factory.mktemp("other")
    return fit(read(folder, STILL, "seed: 3\nname: other\n"), root=folder / "runs")


def test_a_run_begins_with_what_fits_of_another_and_says_the_rest(other, tmp_path, capsys):
    recipe = read(tmp_path, STILL.replace("dim: 4", "dim: 6"), f"start: {{run: {other.folder}}}")
    run = fit(recipe, root=tmp_path / "runs")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "starts from" in line]
    assert line == (
        f"the run starts from {other.folder}: 6 of 8 tensors; not taken: signal.head.stack.2.weight ((4, 8) there, (6, 8) here), "
        "signal.head.stack.2.bias ((4,) there, (6,) here)"
    )
    theirs, mine = read_tensors(other.weights), read_tensors(run.weights)
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == [
        "signal.head.stack.2.bias", "signal.head.stack.2.weight"
    ]  # fmt: skip
    assert run.facts()["start"]["train"]["run"] == str(other.folder)


def test_what_a_run_started_from_may_go_once_it_has_begun(other, tmp_path, monkeypatch):
    source = Run(shutil.copytree(other.folder, tmp_path / "source"))
    text = BASE + "callbacks: [toy.chaos]\nstages: [{name: a}, {name: b, start: {run: SOURCE}}]".replace("SOURCE", str(source.folder))  # fmt: skip
    monkeypatch.setenv("TOY_SIGNAL", "SIGTERM")
    monkeypatch.setenv("TOY_STEP", "1")
    with pytest.raises(Stopped) as stopped:  # in stage a
        fit(read(tmp_path, text), root=tmp_path / "runs")
    run = Run(stopped.value.run)
    with pytest.raises(Stopped):  # and in stage b: it has begun
        fit(load(run.recipe), root=tmp_path / "runs", run=Run(run.folder))
    begun = shutil.copytree(run.folder, tmp_path / "begun")
    monkeypatch.delenv("TOY_STEP")
    shutil.rmtree(run.folder / "checkpoints/b")
    changed = read_tensors(source.weights)
    save_file({name: tensor + 1 for name, tensor in changed.items()}, source.weights, metadata={"sha256": "0" * 64})
    with pytest.raises(RunError, match="are not those that the run was begun for"):
        fit(load(run.recipe), root=tmp_path / "runs", run=Run(run.folder))
    shutil.rmtree(source.folder)
    assert fit(load(begun / "recipe.yaml"), root=tmp_path / "runs", run=Run(begun)).weights.is_file()


MISTAKES = {
    "stages: [{name: a}, {name: b, start: {stage: c}}]": "stages[1].start.stage: 'c' is not an earlier stage; valid: a",
    "stages: [{name: first, teacher: {stage: first}}]": "stages[0].teacher.stage: 'first' is not an earlier stage; there is none before it",
    "stages: [{name: first}, {name: b, start: {stage: frist}}]": "'frist' is not an earlier stage; did you mean 'first'?",
    "stages: [{name: a}, {name: b, start: fresh}]": "stages[1].start: expected afresh, {stage: ...} or {run: ...}; got 'fresh'",
    "start: {run: a, stage: b}": "start: expected either {run: ...} or {stage: ...}",
    "teacher: {}": "teacher: expected either {run: ...} or {stage: ...}",
    "concatenate: true": "concatenate: expected two stages or more under `stages`, whose encoders it joins",
    "start: {run: nowhere}": "start.run: nowhere: no run there",
    "stages: [{name: a}, {name: b, refresh: {c: {use: kmeans, clusters: 2, by: [aa]}}}]": "stages[1].refresh.c: by: 'aa' is not an earlier stage; did you mean 'a'?",
    "refresh: {c: {use: kmeans, clusters: 2, by: [teacher]}}": "refresh.c: by: 'teacher' is not an earlier stage; there is none",
    "tune: {signal: {head: [stak.*]}}": "tune.signal.head: no parameter matches 'stak.*'; there are: stack.0.weight",
}


@pytest.mark.parametrize("written", MISTAKES)
def test_a_mistake_is_one_line_with_the_choices(written, tmp_path):
    with pytest.raises(RecipeError) as error:
        fit(read(tmp_path, BASE, written), root=tmp_path / "runs")
    (line,) = str(error.value).splitlines()
    assert MISTAKES[written] in line
    assert not (tmp_path / "runs").exists()


def test_a_run_of_which_nothing_fits_is_refused_before_anything_is_trained(other, tmp_path):
    recipe = read(tmp_path, BASE.replace("signal", "words").replace("conv_bn", "bag").replace("noise, sigma", "drop, rate"), f"start: {{run: {other.folder}}}")  # fmt: skip
    with pytest.raises(RecipeError, match=r"none of the 8 tensors of .* fits .* it has the modalities signal$"):
        fit(recipe, root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


# --- what a stage sees of those before it ----------------------------------------------------------------------------


def test_a_stage_sees_the_towers_that_an_earlier_one_ended_with(straight):
    recipe, run = straight
    second = assemble(dict(recipe.stage_recipes())["second"])
    fill_earlier(second, Finished(run))
    assert second.teacher is second.earlier["first"] is second.seen_by["first"]
    kept = read_tensors(run.stage("first"))
    for name, tensor in second.teacher["signal"].state_dict().items():
        assert torch.equal(tensor, kept[f"signal.{name}"])


def test_clusters_of_several_stages_are_digits_of_one_label():
    rule = KMeans(clusters=3, by=["a", "b", "c"])
    columns = [torch.tensor(column) for column in ([0, 2, 1, 1], [1, 2, -1, 0], [2, 0, 0, 1])]
    assert rule.joined(columns).tolist() == [0 * 9 + 1 * 3 + 2, 2 * 9 + 2 * 3 + 0, -1, 1 * 9 + 0 * 3 + 1]
    assert rule.identities == 27 and rule.lacking(9) is None


# --- the encoders of all stages as one -------------------------------------------------------------------------------


def test_the_concatenated_encoder_gives_what_those_of_the_stages_give_side_by_side(straight):
    recipe, run = straight
    whole, x = counterpoint.load(run.folder), torch.randn(5, 2, 64)
    towers, view = load_towers(run), counterpoint.batch.View("signal", x, torch.arange(5))
    seen, parts = towers["signal"].eval()(view, 0), []
    for name, stage in recipe.stage_recipes()[:2]:
        part = build_tower(stage, "signal", {"channels": 2}).eval()
        part.load_state_dict({k.removeprefix("signal."): v for k, v in read_tensors(run.stage(name)).items()})
        parts.append(part(view, 0))
    for name in ("h", "z"):
        expected = torch.cat([normalize(getattr(e, name), dim=1) for e in parts], 1)
        torch.testing.assert_close(getattr(seen, name)[:, : expected.shape[1]], expected)
    torch.testing.assert_close(whole(x), seen.h)
    assert seen.h.shape == (5, whole.width) == (5, 24) and seen.z.shape == (5, 12)


def test_it_is_what_the_run_is_scored_by(straight):
    recipe, run = straight
    finish(run, recipe)
    names = {(r["evaluator"], r["representation"]) for r in json.loads((run.folder / "scores.json").read_text())}
    assert {who for _, who in names} == {"trained encoder", "untrained encoder", "raw input"}
    run.note(state="trained")


# --- modalities aligned one after another ----------------------------------------------------------------------------

ALIGNED = """
data:
  use: manifest
  path: TABLE
  inputs: {image: image, text: text, sound: sound}
  readers: {image: {use: text, tokenizer: bytes}, text: {use: text, tokenizer: bytes}, sound: {use: text, tokenizer: bytes}}
loader:    {batch: 24, workers: 0}
encoders:  {image: {use: toy.bag, width: 24}, text: {use: toy.bag, width: 24}, sound: {use: toy.bag, width: 24}}
heads:     {image: HEAD, text: HEAD, sound: HEAD}
objective: oneencoder
optimizer: {use: adamw, lr: 0.02}
trainer:   {max_epochs: 60, accelerator: cpu}
evaluate:  [{use: retrieval, query: sound, key: image, ks: [1]}]
loggers:   []
stages:
  - name: image-text
    objective: {use: oneencoder, modalities: [image, text]}
    tune:
      image: {train: none}
      text:  {train: none}
      sound: {train: none, head: [stack.*]}
  - name: sound
    objective: {use: oneencoder, modalities: [text, sound], anchor: text}
    tune:
      image: {train: none, head: none}
      text:  {train: none, head: none}
      sound: {train: none, head: [align.*, modality]}
""".replace("HEAD", "{use: oneencoder, dim: 16, depth: 1, heads: 2, dropout: 0.0}")


def table(path, kinds=12, times=1):
    """Three words a kind, one a modality: in training an image or a sound comes with a text, never with each other."""
    word = lambda start, kind: 3 * chr(start + kind)  # noqa: E731
    image, text, sound = ([word(start, kind) for kind in range(kinds)] for start in (65, 97, 0xC0))
    train = [(i, t, "") for i, t in zip(image, text)] + [("", t, s) for t, s in zip(text, sound)]
    rows = [(*row, "train") for row in train * times] + [(*row, "test") for row in zip(image, text, sound)]
    path.write_text("\n".join(["image,text,sound,split", *map(",".join, rows)]))


def test_modalities_that_were_never_seen_together_meet_through_the_one_that_both_were_aligned_with(tmp_path):
    table(tmp_path / "table.csv")
    recipe = read(tmp_path, ALIGNED.replace("TABLE", str(tmp_path / "table.csv")))
    run = fit(recipe, root=tmp_path / "runs")
    before, after = read_tensors(run.stage("image-text")), read_tensors(run.weights)
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert moved == {"sound.head.align.weight", "sound.head.align.bias", "sound.head.modality"}
    finish(run, recipe)
    found = {r["representation"]: r["value"] for r in run.scores() if r["metric"] == "sound->image/R@1"}
    assert found["trained encoder"] > 0.6 > 0.3 > found["untrained encoder"]


# --- what the guide shows --------------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[1] / "docs/stages.md").read_text(encoding="utf-8")
ANY = "data: toy.pairs\nencoders: {" + ", ".join(f"{m}: toy.bag" for m in ("image", "text", "sound", "audio")) + "}\n"


@pytest.mark.parametrize("shown", re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.S))
def test_the_recipes_of_the_page_are_recipes(shown, tmp_path):
    recipe = read(tmp_path, ANY, "" if re.search("^objective:", shown, re.M) else "objective: nt_xent\n", shown)
    assert len(recipe.stage_recipes()) >= 2
    (tmp_path / "again.yaml").write_text(recipe.as_yaml())
    assert load(tmp_path / "again.yaml") == recipe
