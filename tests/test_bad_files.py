"""Files of every format that are not what they should be, read by every pack's recipe for its user's own files."""

import os
import shutil

import numpy as np
import pytest
import torch

from bad_files import BAD, SAMPLES, cut, dataset, good_file, manifest, picture_as, recipe_of, text_as
from counterpoint.data.collate import collate
from counterpoint.data.folder import folder as by_folder
from counterpoint.data.guard import Skipped
from counterpoint.data.plan import Seeded
from counterpoint.errors import DataError
from counterpoint.fit.run import fit
from counterpoint.recipe import load
from formats import FORMATS, CannotHold
from own_files import PACKS

pytestmark = pytest.mark.fault("R8")

# What every pack makes of a file in place of a good one: the fault -> a part of what it says of it.
FILES = {
    "empty": "empty file (0 bytes)",
    "text": "",
    "gif": "",
    "cut": "",
    "directory": "",
    "missing": "no such file",
    "pipe": "not a regular file",
    "loop": "symbolic links",
}
CONTENTS = {
    "nan": "NaN|missing|infinite",
    "inf": "NaN|infinite|float32",
    "constant": "constant|flat|no area",
    "short": "too short|2 or more|2 voxels or more|one picture|holds",
    "channels": "channels|leads|colours",
}
# What is no fault in a domain: silence is a sound, and a picture that stands still a film; other rates and channels of
# sounds are brought to one; a text file holds text, whatever is in it.
ALLOWED = {
    "audio_text": {"constant", "channels"},
    "video": {"constant"},
    "code_search": {"text", "cut"},
}
# What nothing in the file could tell: a format without counts that is cut at a line, a stream that may end anywhere.
SILENT = {"points.obj": {"cut"}, "points.xyz": {"cut"}, "points.csv": {"cut"}, "video.mpg": {"cut", "short"}}


def spoil(one, folder, what):
    """The name of a file that has the fault; CannotHold when the format cannot."""
    path = folder / f"bad_{what}{one.suffix}"
    if what in CONTENTS:
        one.write(path, what)
    elif what == "empty":
        path.touch()
    elif what == "directory":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "loop":
        path.symlink_to(path)
    elif what != "missing":
        {"text": text_as, "gif": picture_as}.get(what, lambda p: cut(good_file(one, folder), p))(path)
    return path.name


def read_all(data, epoch: int = 0) -> tuple[list[int], list[str]]:
    """Positions of what the loader keeps of an epoch, and what it says of the rest; every value is finite."""
    batch = collate([Seeded(data, 0)[epoch, i] for i in range(len(data))])
    assert all(torch.isfinite(view.data.float()).all() for view in batch.inputs.values())
    return batch.index.tolist(), batch.fields.get("skipped", [])


def faults_of(one, folder):
    for what in (*FILES, *CONTENTS):
        try:
            yield what, spoil(one, folder, what)
        except CannotHold:
            continue


@pytest.mark.parametrize("name", FORMATS)
def test_a_bad_file_is_named_with_its_sample(name, tmp_path, record_property):
    """In one table beside good ones: each by the number of its sample, the good ones whole, again the same."""
    one, survived = FORMATS[name], 0
    good = good_file(one, tmp_path).name
    faults = dict(faults_of(one, tmp_path))
    cells = [*faults.values(), *[good] * (len(faults) + 2)]
    path = manifest(one, tmp_path, good, cells=cells)
    data = dataset(one, path, "data.strict=false")
    kept, told = read_all(data)
    by_number = {int(line.split()[1]): line for line in told}
    allowed = ALLOWED.get(one.pack, set()) | SILENT.get(name, set())
    for i, (what, file) in enumerate(faults.items()):
        if what in allowed and i not in by_number:
            survived += 1
            continue
        line = by_number.pop(i)
        assert line.startswith(f"sample {i} {tmp_path / file}"), line
        assert "\n" not in line and line.isprintable() and len(line) < 500, line
        assert any(word in line for word in {**FILES, **CONTENTS}[what].split("|")), line
        survived += 1
    assert not by_number and set(range(len(faults), len(cells))) <= set(kept)
    assert read_all(data)[1] == told  # deterministic
    record_property("survived", survived)


@pytest.mark.parametrize("name", [next(n for n, one in FORMATS.items() if one.pack == pack) for pack in PACKS])
def test_all_bad_files_are_told_at_once_before_anything_is_trained(name, tmp_path, record_property):
    one = FORMATS[name]
    good = good_file(one, tmp_path).name
    wrong = [spoil(one, tmp_path, what) for what in ("empty", "missing", "pipe", "loop", "directory")]
    path = manifest(one, tmp_path, good, cells=[*[good] * 3, *wrong])
    with pytest.raises(DataError) as caught:
        dataset(one, path)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(wrong)
    for number, (line, file) in enumerate(zip(lines, wrong), 5):  # line 1 is the header, 2 to 4 are good
        assert line.startswith(f"{path}:{number}: {one.modality}: {tmp_path / file}: ")
    record_property("survived", len(wrong))


@pytest.mark.parametrize("letters", ["größe 心 ✓", "a\tb", "-rf *", "caf\udce9", "x" * 200])
@pytest.mark.parametrize("pack", PACKS)
def test_any_name_of_a_file_is_read_or_refused_in_a_line(pack, letters, tmp_path, record_property):
    """Letters beyond ASCII, white space, what a shell would take, bytes that are no UTF-8, and very long ones."""
    one = next(one for one in FORMATS.values() if one.pack == pack)
    odd = tmp_path / f"{letters}{one.suffix}"
    shutil.copy(good_file(one, tmp_path), odd)
    folder = tmp_path / "by folder"
    folder.mkdir()
    for i in range(2):
        shutil.copy(good_file(one, tmp_path), folder / f"{letters}{i}{one.suffix}")
    reader = dataset(one, manifest(one, tmp_path, good_file(one, tmp_path).name)).readers[one.modality]
    data = by_folder(path=str(folder), modality="x", reader=reader, holdout=0.0)
    assert len(read_all(data)[0]) == 2
    if "\udce9" not in letters and "\t" not in letters:  # a table is UTF-8
        data = dataset(one, manifest(one, tmp_path, odd.name))
        assert len(read_all(data)[0]) == SAMPLES
    os.truncate(folder / f"{letters}1{one.suffix}", 0)
    kept, (told,) = read_all(by_folder(path=str(folder), modality="x", reader=reader, holdout=0.0, strict=False))
    assert kept == [0] and told.isprintable() and told.encode() and "empty file" in told
    record_property("survived", 3)


def test_a_file_without_permission_is_named(tmp_path_factory):
    """Root may read everything: the files are then read by a child that is nobody."""
    folder = tmp_path_factory.mktemp("locked")
    one = FORMATS["ecg.npy"]
    good = good_file(one, folder)
    (folder / "locked.npy").write_bytes(good.read_bytes())
    (folder / "locked.npy").chmod(0)
    data = dataset(one, manifest(one, folder, "locked.npy"), "data.strict=false")
    for parent in (folder, *list(folder.parents)[:-2]):
        if os.geteuid() == 0:
            parent.chmod(parent.stat().st_mode | 0o055)
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            kept, told = read_all(data)
            wanted = [f"sample {BAD} {folder}/locked.npy: no permission to read it"]
            os._exit(0 if told == wanted and len(kept) == SAMPLES - 1 else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("name", FORMATS)
def test_a_hundred_times_too_long_is_cut_or_kept_within_bounds(name, tmp_path):
    one = FORMATS[name]
    if one.suffix in (".parquet", ".csv", ".tsv", ".txt") or name == "medical.dcm":
        return  # as the other arrays; a single image is left as it is
    one.write(tmp_path / f"long{one.suffix}", "long")
    kept, told = read_all(dataset(one, manifest(one, tmp_path, f"long{one.suffix}", samples=8)))
    assert len(kept) == 8 and not told


# ---- the manifest itself ----

TABLES = {
    "empty": b"", "header alone": b"file,patient,diagnosis\n", "no column": b"a,b\n1,2\n",
    "binary": bytes(range(256)) * 8, "utf-16": "file,patient,diagnosis\ne.npy,P,x\n".encode("utf-16"),
    "latin-1": "file,patient,diagnosis\ne\xe9.npy,P,x\n".encode("latin-1"), "nul": b"file,patient,diagnosis\ne\0.npy,P,x\n",
    "ragged": b"file,patient,diagnosis\ne.npy,P\n", "open quote": b'file,patient,diagnosis\n"e.npy,P,x\n',
    "two columns alike": b"file,file,patient,diagnosis\ne,e,P,x\n", "a cell of 1 MB": b"file,patient,diagnosis\n" + b"e" * 10**6 + b",P,x\n",
    "escape": b"file,patient,diagnosis\n\x1b[31me.npy,P,x\n",
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".xlsx"])
def test_a_bad_table_is_named_in_lines(suffix, tmp_path, record_property):
    one = FORMATS["ecg.npy"]
    for number, (what, content) in enumerate(TABLES.items(), 1):
        path = tmp_path / f"table{suffix}"
        path.write_bytes(content.replace(b",", b"\t") if suffix == ".tsv" else content)
        with pytest.raises(DataError) as caught:
            dataset(one, path)
        lines = str(caught.value).splitlines()
        assert lines and all(str(path) in line and line.isprintable() and len(line) < 700 for line in lines), what
        record_property("survived", number)


# ---- through a whole run ----


def fit_of(pack, tmp_path, monkeypatch, *overrides):
    monkeypatch.chdir(tmp_path)
    small = PACKS[pack](tmp_path)
    return fit(load(f"{pack}/from_manifest", [*small, *overrides]), root=tmp_path / "runs")


SHORT = ("trainer.max_epochs=1", "trainer.accelerator=cpu", "loader.batch=6", "loader.micro_batch=null", "data.strict=false", "data.holdout=0", "data.split_column=null", "evaluate=[]")  # fmt: skip


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("pack", ["ecg", *(pytest.param(p, marks=pytest.mark.slow) for p in PACKS if p not in ("ecg", "code_search"))])  # fmt: skip
def test_a_run_stops_at_a_bad_file_or_counts_it(pack, workers, tmp_path, monkeypatch, capfd, record_property):
    """Stopped: the error alone, no weights. Skipped: counted once, named in skipped.txt, and weights that are finite."""
    from safetensors.torch import load_file

    def broken(folder):
        small = written(folder)
        files = sorted(p for p in folder.iterdir() if p.suffix not in (".csv",))
        files[BAD].write_bytes(files[BAD].read_bytes()[:40])
        return small

    written = PACKS[pack]
    monkeypatch.setitem(PACKS, pack, broken)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match=r"^sample \d+ \S") as caught:
        fit_of(pack, tmp_path / "a", monkeypatch, *SHORT, f"loader.workers={workers}")
    assert "\n" not in str(caught.value) and not list((tmp_path / "a").glob("runs/*/encoder.safetensors"))
    run = fit_of(
        pack,
        tmp_path / "b",
        monkeypatch,
        *SHORT,
        f"loader.workers={workers}",
        "loader.on_bad=skip",
        "trainer.max_epochs=2",
    )
    skipped = (run.folder / "skipped.txt").read_text().splitlines()
    assert len(skipped) == 1 and skipped[0].startswith("sample ")
    assert all(weight.isfinite().all() for weight in load_file(run.weights).values() if weight.is_floating_point())
    record_property("survived", 2)


def test_what_may_be_skipped_is_bounded():
    skipped = Skipped(size=SAMPLES, limit=0.1)
    batch = lambda i: collate([(i, DataError(f"sample {i} /x: bad"))])  # noqa: E731
    skipped(batch(1))
    with pytest.raises(DataError, match="more than the 10% that may be skipped"):
        skipped(batch(2))


def test_a_flat_lead_beside_others_is_data_and_an_array_of_one_value_is_not(tmp_path):
    """What is constant: a lead that fell off belongs to its recording; a sample without a single change says nothing."""
    one = FORMATS["ecg.npy"]
    x = np.random.default_rng(0).normal(size=(2, 800)).astype(np.float32)
    x[1] = 0.0
    np.save(tmp_path / "flat.npy", x)
    kept, told = read_all(dataset(one, manifest(one, tmp_path, "flat.npy")))
    assert len(kept) == SAMPLES and not told
    assert recipe_of(one, tmp_path / "table.csv").loader.on_bad == "raise"  # the default
