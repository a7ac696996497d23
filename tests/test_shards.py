"""Samples in tar archives: what they hold is what files hold, damage is named, and runs on them go on exactly."""

import io
import itertools
import json
import os
import shutil
import tarfile
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch

from counterpoint.data.loader import Loader
from counterpoint.data.plan import Order, Plan, shuffle
from counterpoint.data.shards.archives import find
from counterpoint.data.shards.shards import shards
from counterpoint.data.shards.tar import read_tar, split_name
from counterpoint.data.text import Text
from counterpoint.errors import DataError
from counterpoint.testing.datasets import checks
from faults import ROUNDS
from forked import server
from mutations import damaged
from tars import npy, sample, shards_of, write
from test_fit import same
from victim import told_by_child

SIZES = [9, 5, 12, 8]
INPUTS = {"signal": "npy", "words": "txt"}


def opened(folder, readers=True, **options):
    options = {"inputs": INPUTS, "groups": ["patient"], "labels": ["cls", "age"]} | options
    return shards(path=str(folder), readers={"words": Text()} if readers else None, **options)


@pytest.mark.parametrize("suffixes", [(".tar",), (".tar.gz",), (".tgz", ".tar")])
def test_a_sample_is_what_its_files_hold(tmp_path, suffixes):
    data = opened(shards_of(tmp_path / "s", SIZES, suffixes), holdout=0.0)
    assert data.spec.size == len(data) == 34 and data.spec.splits == ("train",)
    assert data.spec.groups == {"patient": 12} and data.spec.labels == {"cls": 3, "age": None}
    assert data.spec.modalities["signal"]["channels"] == 2 and data.spec.modalities["signal"]["length"] is None
    patients = sorted({f"P{i // 3}" for i in range(34)})
    for i in [0, 33, 8, 9, 26, 25, 3]:
        found = data[i]
        assert torch.equal(found.inputs["signal"], torch.tensor(np.load(io.BytesIO(sample(i)[1]["npy"]))))
        assert ("words" in found.inputs) == (i % 4 > 0) == ("words" in found.fields)
        assert found.fields.get("words", f"number {i} of {i % 3}") == f"number {i} of {i % 3}"
        assert found.groups == {"patient": patients.index(f"P{i // 3}")} and found.labels == {
            "cls": i % 3,
            "age": i + 0.5,
        }
        assert data.told(i).endswith(f"/{i:05d}")
    assert [Path(f).name for f in data.files()] == [f"s-{i:03d}{suffixes[i % len(suffixes)]}" for i in range(4)]
    for check in checks(data):
        check(data)


def test_a_plain_and_a_compressed_archive_are_one(tmp_path):
    a, b = (opened(shards_of(tmp_path / name, SIZES, (name,))) for name in (".tar", ".tgz"))
    assert len(a) == len(b)
    for i in range(len(a)):
        assert torch.equal(a[i].inputs["signal"], b[i].inputs["signal"]) and a[i].groups == b[i].groups


def test_identities_are_held_out_whole_and_splits_may_be_named(tmp_path):
    folder = shards_of(tmp_path / "s", SIZES)
    train, test = (opened(folder, split=split) for split in ("train", "test"))
    assert len(train) + len(test) == 34 and not set(train.groups["patient"]) & set(test.groups["patient"])
    assert train.spec.groups == test.spec.groups == {"patient": 12}
    ages = sorted([*train.labels["age"], *test.labels["age"]])
    assert ages == [i + 0.5 for i in range(34)]
    for part in (train, test):
        assert [part[i].labels["age"] for i in range(len(part))] == part.labels["age"].tolist()
        numbers = [np.load(io.BytesIO(sample(int(age))[1]["npy"])) for age in part.labels["age"]]
        assert all(torch.equal(part[i].inputs["signal"], torch.tensor(x)) for i, x in enumerate(numbers))
    alone = opened(folder, groups=None, split="test")
    assert 0 < len(alone) < 34 and opened(folder, groups=None, holdout_by="patient", split="test").labels["age"].tolist() == test.labels["age"].tolist()  # fmt: skip
    named = {"train": f"{folder}/s-{{000..002}}.tar", "val": f"{folder}/s-003.tar"}
    first, last = (shards(path=named, inputs={"signal": "npy"}, split=split) for split in ("train", "val"))
    assert (len(first), len(last)) == (26, 8) and first.spec.splits == ("train", "val")


def test_a_tokenizer_is_learnt_from_the_training_split_and_kept(tmp_path):
    folder = shards_of(tmp_path / "s", SIZES)
    reader = Text(tokenizer="characters", vocabulary=300)
    data = shards(path=str(folder), inputs=INPUTS, readers={"words": reader}, holdout=0.0)
    assert "words.tokenizer.json" in data.assets() and data.spec.modalities["words"]["vocabulary"] > 10
    assert len(data[1].inputs["words"]) == len("number 1 of 1")


def test_patterns_name_archives(tmp_path):
    folder = shards_of(tmp_path / "s", [1] * 12)
    names = lambda pattern: [Path(p).name for p in find(f"{folder}/{pattern}")]  # noqa: E731
    assert names("s-{008..010}.tar") == ["s-008.tar", "s-009.tar", "s-010.tar"]
    assert names("s-01*.tar") == ["s-010.tar", "s-011.tar"] and len(names("")) == 12
    assert names("s-000.tar") == ["s-000.tar"]


def test_names_in_an_archive_lead_nowhere(tmp_path):
    write(tmp_path / "x.tar", [("../../../out", {"npy": npy(np.eye(2))}), ("/abs/olute", {"npy": npy(np.eye(2))})])
    data = shards(path=str(tmp_path / "x.tar"), inputs={"signal": "npy"}, holdout=0.0)
    before = sorted(p for p in tmp_path.parent.rglob("*"))
    assert len(data) == 2 and data[0].inputs["signal"].shape == (2, 2)
    assert sorted(p for p in tmp_path.parent.rglob("*")) == before


def test_directories_links_and_hidden_files_are_no_samples(tmp_path):
    path = write(tmp_path / "x.tar", [sample(1), sample(2)])
    with tarfile.open(path, "a") as archive:
        for name, kind in (("d", tarfile.DIRTYPE), ("00009.npy", tarfile.SYMTYPE), (".hidden.npy", tarfile.REGTYPE), ("readme", tarfile.REGTYPE)):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "00001.npy"
            archive.addfile(info)
    assert [record.key for record in read_tar(str(path), frozenset())] == ["00001", "00002"]


def refuse(said, folder, **options):
    with pytest.raises(DataError, match=said):
        opened(folder, **options)


@pytest.mark.fault("R8")
def test_mistakes_are_said_with_what_there_is(tmp_path):
    folder = shards_of(tmp_path / "s", SIZES)
    refuse(r"inputs.signal: no file ends in .npz; did you mean 'npy'\?; endings: npy \(34\)", folder, inputs={"signal": "npz"})  # fmt: skip
    refuse(r"no sample has 'patent', neither in its .json nor as a file; did you mean 'patient'\?", folder, groups=["patent"])  # fmt: skip
    refuse(r"inputs.words: no reader for '.json' files here; readable: .txt", folder, inputs={"words": "json"})
    refuse(r"readers.words: 'words' is not a modality", folder, inputs={"signal": "npy"})
    refuse(r"no such file", tmp_path / "nothing-*.tar")
    refuse(r"nothing.tar: no such file", tmp_path / "nothing.tar")
    refuse(r"sample of split 'val'|no sample is in split 'val'", folder, split="val")
    (tmp_path / "empty").mkdir()
    refuse(r"empty: no file in it ends in .tar, .tar.gz, .tgz", tmp_path / "empty")
    (tmp_path / "x.zip").write_bytes(b"PK")
    refuse(r"x.zip: expected one of .tar, .tar.gz, .tgz", tmp_path / "x.zip")


@pytest.mark.fault("R8")
@pytest.mark.parametrize(
    "samples,said",
    [
        ([sample(1), sample(2), sample(1)], "the files of '00001' are not next to each other; write it with tar --sort=name"),
        ([("a", {"npy": npy([1, 2]), "NPY": npy([1, 2])})], "x.tar/a.npy: there are two of that name"),
        ([("a", {"npy": npy([1, 2]), "json": b"{"})], "x.tar/a.json: no JSON"),
        ([("a", {"npy": npy([1, 2]), "json": b"[1]"})], "x.tar/a.json: expected an object with fields; got a list"),
        ([("a", {"npy": npy([1, 2]), "json": b'{"patient": [1]}'})], "'patient' is a list, expected a text or a number"),
        ([("a", {"npy": npy([1, 2]), "patient": b"\xff\xfe"})], "x.tar/a.patient: not utf-8 text"),
    ],
)  # fmt: skip
def test_what_an_archive_may_not_hold_is_named(tmp_path, samples, said):
    write(tmp_path / "x.tar", samples)
    refuse(said, tmp_path / "x.tar", inputs={"signal": "npy"}, labels=None, readers=False, holdout=0.0)


@pytest.mark.fault("R8")
@pytest.mark.parametrize("suffix", [".tar", ".tgz"])
def test_a_bad_file_names_archive_and_sample(tmp_path, suffix):
    samples = [sample(i) for i in range(40)]
    samples[35] = ("00035", samples[35][1] | {"npy": npy([[1.0, np.nan], [2.0, 3.0]])})
    samples[36] = ("00036", samples[36][1] | {"npy": b"\x93NUMPY"})
    samples[37] = ("00037", samples[37][1] | {"npy": npy(np.eye(3))})
    data = opened(write(tmp_path / f"x{suffix}", samples), holdout=0.0)
    for i, said in ((35, "1 of 4 values are NaN"), (36, "expected 8 bytes got 6"), (37, "3 channels")):
        with pytest.raises(DataError, match=rf"^sample {i} x{suffix}/000{i}\.npy: .*{said}"):
            data[i]
    assert data[38].inputs["signal"].shape == (2, 40)


@pytest.mark.fault("R8")
@pytest.mark.parametrize("suffix", [".tar", ".tgz"])
def test_an_archive_cut_off_anywhere_is_named(tmp_path, suffix, record_property):
    """Also between two files, where nothing but the missing end tells."""
    whole = write(tmp_path / f"x{suffix}", [sample(i) for i in range(3)])
    size, path = whole.stat().st_size, tmp_path / f"cut{suffix}"
    data = whole.read_bytes()
    used = size if suffix == ".tgz" else len(data.rstrip(b"\0")) // 512 * 512 + 512
    for count, end in enumerate(range(1, used, 97 if suffix == ".tgz" else 256), 1):
        path.write_bytes(data[:end])
        with pytest.raises(DataError, match=rf"cut{suffix}: truncated or damaged"):
            list(read_tar(str(path), frozenset()))
        record_property("survived", count)
    path.write_bytes(data[:1024].ljust(2048, b"\0") + data)
    with pytest.raises(DataError, match="cut"):  # two archives, one after the other
        list(read_tar(str(path), frozenset()))


@pytest.mark.fault("R9")
@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_damage_to_an_archive_is_read_or_refused_in_a_line(tmp_path, suffix, record_property):
    whole = write(tmp_path / f"good{suffix}", [sample(i) for i in range(6)]).read_bytes()
    path = tmp_path / f"x{suffix}"

    def work(number: int) -> str:
        path.write_bytes(damaged(whole, number)[1])
        try:
            data = opened(path, holdout=0.0)
            found = [data[i].inputs for i in range(len(data))]
        except DataError as error:
            lines = str(error).splitlines()
            return "refused" if all(path.name in line and len(line) < 900 for line in lines) else f"WRONG {lines}"
        good = all(torch.isfinite(x).all() for inputs in found for x in inputs.values())
        return "read" if good else "WRONG numbers"

    said = told_by_child(work, 20 * ROUNDS)
    assert set(said) <= {"read", "refused"}, [text for text in said if text not in ("read", "refused")][:3]
    record_property("survived", len(said))


@pytest.mark.fault("R15")
@pytest.mark.parametrize("suffix", [".tar", ".tgz"])
def test_an_archive_that_changes_under_a_run_is_named(tmp_path, suffix):
    path = write(tmp_path / f"x{suffix}", [sample(i) for i in range(5)])
    data = opened(path, holdout=0.0)
    write(path, [sample(i) for i in range(4)])
    os.utime(path, ns=(1, 1))
    with pytest.raises(DataError, match=f"x{suffix}: it has changed since its samples were counted"):
        data[1]
    path.unlink()
    with pytest.raises(DataError, match=f"x{suffix}: no such file"):
        opened(tmp_path / path.name)


def test_batches_are_the_same_with_any_workers_and_from_any_batch(tmp_path):
    data = opened(shards_of(tmp_path / "s", SIZES, (".tar", ".tgz")), window=8)

    def read(workers, start=0):
        plan = Plan(shuffle(), Order.of(data, 5), 3)
        plan.position = lambda: start
        batches = Loader(data, 3, batch_sampler=plan, workers=workers)
        return [(b.index.tolist(), b.inputs["signal"].data.tolist(), b.groups["patient"].tolist()) for b in batches]

    straight = read(0)
    assert sorted(i for index, *_ in straight for i in index) == list(range(len(data)))
    assert read(2) == straight and read(1, 3) == straight[3:]


def test_names_are_cut_as_paths_are():
    names = ["".join(letters) for n in range(1, 6) for letters in itertools.product("aB./", repeat=n)]
    for name in (name for name in names if not name.endswith(("/", "/."))):  # no file's
        path = PurePosixPath(name)
        stem, _, ending = path.name.partition(".")
        assert split_name(name) == ((str(path.parent / stem), ending.lower()) if stem and ending else None), name


# --- whole runs ------------------------------------------------------------------------------------------------------

RECIPE = """
data:      {use: shards, path: s, inputs: {signal: npy, words: txt}, readers: {words: {use: text}}, labels: [cls], window: 8, holdout: 0.2}
loader:    {batch: 6}
encoders:  {signal: {use: toy.conv_bn, width: 8}, words: {use: toy.bag, width: 8}}
heads:     {signal: {use: mlp, dim: 4}, words: {use: mlp, dim: 4}}
views:     {signal: [{use: copies, n: 2}, {use: toy.noise}], words: [{use: toy.drop}]}
objective: {moco: {use: moco, queue: 11, momentum: 0.9}, sog: {use: sogclr}}
trainer:   {max_epochs: 2, accelerator: cpu, accumulate_grad_batches: 2, log_every_n_steps: 2}
evaluate:  [{use: knn, label: cls, k: 1, modality: signal}]
loggers:   []
name: streamed
"""
SAVING = ["save_at_every_step"]


@pytest.fixture(scope="module")
def forked():
    return server()


@pytest.fixture(scope="module")
def straight(forked, tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    shards_of(folder / "s", SIZES, (".tar", ".tgz"))
    (folder / "recipe.yaml").write_text(RECIPE)
    done = forked("fit", "recipe.yaml", "loader.workers=0", cwd=folder, first=[SAVING])
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.xdist_group("forked")
@pytest.mark.fault("R1")
def test_a_run_on_shards_killed_at_any_step_ends_as_the_one_that_was_not(forked, straight, tmp_path, record_property):
    draw = np.random.default_rng(2)
    expected = (straight / "runs/streamed-1/encoder.safetensors").read_bytes()
    for number in range(2 * ROUNDS):
        here = tmp_path / str(number)
        here.mkdir()
        shutil.copytree(straight / "s", here / "s", copy_function=shutil.copy2)
        (here / "recipe.yaml").write_text(RECIPE)
        before, after = (2, 0) if number % 2 else (0, 1)
        step = int(draw.integers(1, 8))
        killed = forked("fit", "recipe.yaml", f"loader.workers={before}", cwd=here, first=[SAVING, ["at_step", step]])
        assert killed.returncode == -9
        done = forked("fit", "--resume", "latest", f"loader.workers={after}", cwd=here, first=[SAVING])
        if "there is no run in" in done.stderr:
            done = forked("fit", "recipe.yaml", cwd=here, first=[SAVING])
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
        assert (here / "runs/streamed-1/encoder.safetensors").read_bytes() == expected
        last = [max((f / "runs/streamed-1").glob("checkpoints/**/*.ckpt")) for f in (straight, here)]
        assert not (different := same(*(torch.load(p, weights_only=True) for p in last))), different[:5]
        record_property("survived", number + 1)


@pytest.mark.slow
@pytest.mark.xdist_group("forked")
@pytest.mark.fault("R1")
def test_two_processes_on_shards_killed_and_gone_on_with(forked, straight, tmp_path, record_property):
    """One of them, with and without reading workers of its own."""
    runs, draw = [], np.random.default_rng(3)
    for number in range(1 + ROUNDS):
        here = tmp_path / str(number)
        here.mkdir()
        shutil.copytree(straight / "s", here / "s", copy_function=shutil.copy2)
        (here / "recipe.yaml").write_text(RECIPE)
        begin = ("fit", "recipe.yaml", "trainer.devices=2", f"loader.workers={number % 3}")
        kill = [["at_step", int(draw.integers(2, 8)), "SIGKILL", 1, number % 2]] if number else []
        done = forked(*begin, cwd=here, first=[SAVING, ["fork_ranks", *begin], *kill], linger=60)
        assert (done.returncode == 0) == (not kill), done.stderr
        if kill:
            again = ("fit", "--resume", "runs/streamed-1", f"loader.workers={(number + 1) % 3}")
            done = forked(*again, cwd=here, first=[SAVING, ["fork_ranks", *again]], linger=60)
            assert done.returncode == 0, done.stderr
        runs.append(here / "runs/streamed-1")
        first, last = (
            torch.load(max(run.glob("checkpoints/**/*.ckpt")), weights_only=True) for run in (runs[0], runs[-1])
        )
        assert not (different := same(first, last)), different[:5]
        assert (runs[0] / "metrics.csv").read_bytes() == (runs[-1] / "metrics.csv").read_bytes()
        record_property("survived", number)


@pytest.mark.xdist_group("forked")
@pytest.mark.fault("R15")
def test_shards_changed_under_a_run_are_named_on_resume(forked, straight, tmp_path):
    shutil.copytree(straight / "s", tmp_path / "s", copy_function=shutil.copy2)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    killed = forked("fit", "recipe.yaml", "loader.workers=0", cwd=tmp_path, first=[SAVING, ["at_step", 5]])
    assert killed.returncode == -9
    write(tmp_path / "s/s-002.tar", [sample(i) for i in range(14, 25)] + [sample(40)])
    again = forked("fit", "--resume", "latest", cwd=tmp_path)
    assert again.returncode == 2 and "the data have changed since the run began" in again.stderr, again.stderr
    assert "s-002.tar" in again.stderr and "Traceback" not in again.stderr
    assert json.loads((tmp_path / "runs/streamed-1/run.json").read_text())["state"] == "training"
