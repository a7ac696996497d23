"""A run is gone on with on its own recipe and data, or the difference is shown: row R15 of the table."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import get_type_hints

import numpy as np
import pytest

from bad_files import dataset, good_file, manifest
from counterpoint.data import fingerprint
from counterpoint.data.dataset import Dataset
from counterpoint.data.fingerprint import differences
from counterpoint.errors import RunError
from counterpoint.packs.registry import installed
from counterpoint.recipe import load
from counterpoint.runs.resuming import DATA, check_data, configuration, note_data, resume
from counterpoint.runs.run import Run
from formats import FORMATS

RECIPE = "data: {use: toy.pairs, modalities: [signal]}\nencoders: {signal: toy.conv}\nviews: {signal: [{use: copies, n: 2}]}\nobjective: nt_xent\noptimizer: {use: adamw, lr: 0.001}\n"  # fmt: skip


@pytest.fixture
def run(tmp_path):
    (tmp_path / "own.yaml").write_text(RECIPE)
    recipe = load(tmp_path / "own.yaml")
    (tmp_path / "pairs-1").mkdir()
    run = Run(tmp_path / "pairs-1")
    run.write("recipe.yaml", recipe.as_yaml())
    run.note(configuration=configuration(recipe))
    return run


# --- the recipe ------------------------------------------------------------------------------------------------------


@pytest.mark.fault("R15")
def test_a_change_is_shown_and_needs_a_word(run):
    with pytest.raises(RunError) as refused:
        resume(run, ["optimizer.lr=0.0003"], False)
    assert str(refused.value) == f"{run.folder}: optimizer.lr 0.001 -> 0.0003; pass --allow-changes to go on with it"
    assert resume(run, ["optimizer.lr=0.0003"], True).optimizer.params["lr"] == 0.0003
    assert resume(run, [], False).optimizer.params["lr"] == 0.0003  # it is the run's own from now on


@pytest.mark.fault("R15")
def test_an_edited_recipe_is_a_change_too(run):
    run.write("recipe.yaml", run.recipe.read_text().replace("lr: 0.001", "lr: 0.5").replace("seed: 0", "seed: 3"))
    with pytest.raises(RunError, match=r"seed 0 -> 3: this does not fit the weights of the run; start a new one"):
        resume(run, [], True)
    run.write("recipe.yaml", run.recipe.read_text().replace("seed: 3", "seed: 0"))
    with pytest.raises(RunError, match=r"optimizer\.lr 0\.001 -> 0\.5; pass --allow-changes"):
        resume(run, [], False)


@pytest.mark.fault("R15")
@pytest.mark.parametrize("override,told", [("encoders.signal.width=8", "encoders.signal.width 16 -> 8"), ("data.size=52", "data.size 48 -> 52"), ("loader.batch=8", None), ("loader.workers=3", "free")])  # fmt: skip
def test_what_can_be_changed(run, override, told):
    if told == "free":
        assert resume(run, [override], False).loader.workers == 3
        return
    with pytest.raises(RunError, match=told or "pass --allow-changes"):
        resume(run, [override], told is not None)


# --- the data --------------------------------------------------------------------------------------------------------


class OnFiles:
    """Files, and two columns."""

    def __init__(self, folder, labels=(0, 1, 0)):
        self.folder, self.groups, self.labels = folder, {"who": np.arange(3)}, {"kind": np.array(labels)}

    def files(self):
        return sorted(str(path) for path in self.folder.iterdir())


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for name in "abcdefgh":
        (folder / f"{name}.wav").write_bytes(name.encode() * 300_000)
    return folder


def told(then, dataset):
    return differences(json.loads(json.dumps(then)), dataset)


@pytest.mark.fault("R15")
def test_files_that_changed_are_named(files):
    then = fingerprint.fingerprint(OnFiles(files))
    assert told(then, OnFiles(files)) == []
    (files / "b.wav").write_bytes(b"b" * 299_999)
    data = bytearray((files / "c.wav").read_bytes())
    data[-5] ^= 1
    (files / "c.wav").write_bytes(data)
    (files / "a.wav").unlink()
    (files / "new.wav").write_bytes(b"x")
    assert told(then, OnFiles(files)) == ["missing: a.wav", "new: new.wav", "changed: b.wav, c.wav"]


@pytest.mark.fault("R15")
def test_files_that_were_moved_or_touched_are_the_same(files, tmp_path):
    then = fingerprint.fingerprint(OnFiles(files))
    for path in files.iterdir():
        os.utime(path, (1, 1))
    assert told(then, OnFiles(files.rename(tmp_path / "elsewhere"))) == []


@pytest.mark.fault("R15")
def test_of_many_files_only_some_are_read(files, monkeypatch):
    monkeypatch.setattr(fingerprint, "HASHED", 3)
    then = fingerprint.fingerprint(OnFiles(files))
    hashed = [name for name, line in then["files"].items() if line[2]]
    assert hashed == ["a.wav", "d.wav", "g.wav"]
    os.utime(files / "a.wav", (1, 1))
    os.utime(files / "b.wav", (1, 1))  # nothing is known of what is in it
    assert told(then, OnFiles(files)) == ["changed: b.wav"]
    monkeypatch.setattr(fingerprint, "LISTED", 4)
    assert len(fingerprint.fingerprint(OnFiles(files))["files"]) == 4


@pytest.mark.fault("R15")
def test_a_message_names_a_few(files):
    then = fingerprint.fingerprint(OnFiles(files))
    for path in files.iterdir():
        path.write_bytes(b"")
    assert told(then, OnFiles(files)) == ["changed: a.wav, b.wav, c.wav, d.wav, e.wav and 3 more"]


@pytest.mark.fault("R15")
def test_a_run_says_what_changed_and_goes_on_only_when_told_to(files, tmp_path):
    given = {"signal": {"size": 3}}
    run, before = Run(tmp_path), SimpleNamespace(given=given, dataset=OnFiles(files))
    run.note(given=given)
    check_data(run, before.dataset, before.given)  # a run from before there was such a file
    note_data(run, before.dataset)
    check_data(run, before.dataset, before.given)
    after = SimpleNamespace(given=given, dataset=OnFiles(files, labels=(0, 1, 1)))
    with pytest.raises(
        RunError, match=r"the data have changed since the run began \(other values: label kind\); put them back"
    ):
        check_data(run, after.dataset, after.given)
    check_data(run, after.dataset, after.given, allow_changes=True)
    with pytest.raises(RunError, match=r"\(signal.size 3 -> 4\); start a new run"):
        check_data(run, after.dataset, {"signal": {"size": 4}}, allow_changes=True)
    (tmp_path / DATA).write_text("{")
    with pytest.raises(RunError, match=r"data\.json is damaged"):
        check_data(run, before.dataset, before.given)


@pytest.mark.fault("R15")
def test_a_table_is_part_of_the_data(tmp_path):
    from counterpoint.data.manifest import manifest

    table = tmp_path / "table.csv"
    make = lambda: manifest(path=str(table), inputs={"q": "q"}, readers={"q": _text()})  # noqa: E731
    table.write_text("q,kind\n" + "".join(f"word {i},{i % 2}\n" for i in range(20)))
    then = fingerprint.fingerprint(make())
    assert told(then, make()) == []
    table.write_text("q,kind\n" + "".join(f"ward {i},{i % 2}\n" for i in range(20)))
    assert told(then, make()) == ["other values: text q"]


def _text():
    from counterpoint.data.text import Text

    return Text(tokenizer="bytes")


# --- two runs in one folder ------------------------------------------------------------------------------------------

HOLDS = "import sys, time; from pathlib import Path; from counterpoint.runs.run import Run; run = Run(Path(sys.argv[1])).lock(); print(1, flush=True); time.sleep(60)"


@pytest.mark.fault("R15")
def test_two_runs_in_one_folder_are_refused(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"1\n"
        with pytest.raises(RunError, match="another process is training in this run"):
            Run(tmp_path).lock()
    finally:
        other.kill()
        other.wait()
    Run(tmp_path).lock()


# --- what a dataset says that it reads -------------------------------------------------------------------------------

OPENED: list[str] | None = None  # while somebody listens


def _hear(event: str, arguments: tuple) -> None:
    if OPENED is not None and event == "open" and isinstance(arguments[0], str | os.PathLike):
        OPENED.append(os.path.abspath(arguments[0]))


sys.addaudithook(_hear)


def opened(read) -> set[str]:
    """The files that `read` opens, as far as python is asked to."""
    global OPENED
    OPENED = []
    try:
        read()
        return set(OPENED)
    finally:
        OPENED = None


@pytest.mark.fault("R15")
@pytest.mark.parametrize("name", FORMATS)
def test_every_file_that_reading_opens_is_known(name, tmp_path):
    """Signals beside their header, slices in a folder: a byte changed in any of them is a change of the data."""
    one = FORMATS[name]
    data = dataset(one, manifest(one, tmp_path, good_file(one, tmp_path).name))
    data[0]  # whatever reading imports has been
    files = {os.path.abspath(path) for path in data.files()}
    assert all(os.path.isfile(path) for path in files)
    assert {path for path in opened(lambda: data[0]) if path.startswith(str(tmp_path))} <= files
    then = fingerprint.fingerprint(data)
    for path in files:
        content = bytearray(Path(path).read_bytes())
        content[-1] ^= 1
        Path(path).write_bytes(content)
        os.utime(path, (1, 1))
        assert os.path.basename(path) in "".join(told(then, data)), path
        content[-1] ^= 1
        Path(path).write_bytes(content)
    assert told(then, data) == []


@pytest.mark.fault("R15")
def test_a_dataset_made_of_others_changes_with_them(tmp_path):
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(0).normal(size=(2, 30)).astype("f4"))
    (tmp_path / "t.csv").write_text("file,words\na.npy,one\nb.npy,two\n")
    (tmp_path / "gone.txt").write_text("1\n")
    inner = f"{{use: manifest, path: {tmp_path}/t.csv, inputs: {{x: file, words: words}}, readers: {{words: {{use: text}}}}, holdout: 0}}"
    for outer, more in (
        ("without", f"samples: {tmp_path}/gone.txt"),
        ("planted", "modality: words"),
        ("mixture", None),
    ):
        of = f"of: [{inner}, {inner}]" if more is None else f"of: {inner}, {more}"
        (tmp_path / "r.yaml").write_text(
            f"data: {{use: {outer}, {of}}}\nencoders: {{x: toy.conv, words: toy.bag}}\nobjective: clip\n"
        )
        build = load(tmp_path / "r.yaml").data.build
        then = fingerprint.fingerprint(build())
        assert {"a.npy", "b.npy"} <= then["files"].keys() and told(then, build()) == []
        (tmp_path / "t.csv").write_text("file,words\na.npy,another\nb.npy,two\n")
        assert "other values: text words of part 1" in told(then, build())[0]
        (tmp_path / "t.csv").write_text("file,words\na.npy,one\nb.npy,two\n")
        assert told(then, build()) == []
        if more and "gone" in more:
            (tmp_path / "gone.txt").write_text("1\n\n")
            assert told(then, build()) == ["changed: gone.txt"]


def test_every_dataset_that_is_installed_knows_its_files():
    """Those of classes of their own: the others are `Files`, or streams of them."""
    for component in installed().components("dataset"):
        made = component.load()
        kind = made if isinstance(made, type) else get_type_hints(made)["return"]
        made_of_others, made_up = "of" in component.parameters(), kind.__module__.startswith("counterpoint_toy")
        assert kind.files is not Dataset.files or made_of_others or made_up, component.name
