"""Manifest and folder: a table or a tree of one's own files becomes typed samples, or one error with every problem."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from counterpoint.data.arrays import Arrays
from counterpoint.data.collate import collate
from counterpoint.data.files import encode_labels
from counterpoint.data.folder import folder
from counterpoint.data.manifest import manifest
from counterpoint.data.split import hold_out, select
from counterpoint.data.text import Text
from counterpoint.errors import DataError

torch.set_num_threads(1)
rng = np.random.default_rng(0)


def message(fn, *args, **options) -> str:
    with pytest.raises(DataError) as caught:
        fn(*args, **options)
    return str(caught.value)


def table(path: Path, header: str, rows: list[str]) -> str:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture
def recordings(tmp_path):
    """30 recordings (2, 50) of 10 patients, a second modality for every third, and notes."""
    (tmp_path / "data").mkdir()
    rows = []
    for i in range(30):
        np.save(tmp_path / f"data/e{i}.npy", rng.normal(size=(2, 50)))
        np.save(tmp_path / f"data/p{i}.npy", rng.normal(size=20 + i).astype("float32"))
        rows.append(f"r{i},data/e{i}.npy,{'' if i % 3 else f'data/p{i}.npy'},p{i // 3},{i % 2},{i / 4},note {i} 心")
    return table(tmp_path / "recordings.csv", "id,ecg,ppg,patient,rhythm,age,note", rows)


# ---- the split ----


def test_an_identity_is_in_one_split_whatever_the_order():
    identities = [f"p{i // 5}" for i in range(500)]
    test = hold_out(identities, 0.2)
    of = {name: test[[i for i, x in enumerate(identities) if x == name]] for name in set(identities)}
    assert all(len(set(held)) == 1 for held in of.values())
    assert 0.1 < test.mean() < 0.3
    order = np.random.default_rng(0).permutation(500)
    assert np.array_equal(hold_out([identities[i] for i in order], 0.2), test[order])
    grown = hold_out(identities + [f"new{i}" for i in range(100)], 0.2)
    assert np.array_equal(grown[:500], test)


@pytest.mark.parametrize("fraction", [1e-9, 0.2, 0.5, 1 - 1e-9])
def test_neither_split_is_empty(fraction):
    for n in range(2, 8):
        test = hold_out([f"x{i}" for i in range(n)], fraction)
        assert test.any() and not test.all()
    assert not hold_out(["a", "b"], 0.0).any() and len(hold_out(["a"], fraction)) == 1


def test_splits_are_disjoint_and_complete():
    identities = list(range(40))
    parts = [select(name, None, identities, 0.3, "x")[0] for name in ("train", "test")]
    assert sorted(np.concatenate(parts)) == identities
    chosen, splits = select("dev", ["test", "train", "dev", "dev"], [], 0.2, "x")
    assert chosen.tolist() == [2, 3] and splits == ("train", "dev", "test")
    assert message(select, "tset", None, identities, 0.3, "x.csv") == (
        "x.csv: no sample is in split 'tset'; did you mean 'test'?"
    )
    assert "nothing is held out" in message(select, "test", None, identities, 0.0, "x")
    assert "holdout is a fraction in [0, 1); got 1.5" in message(select, "train", None, identities, 1.5, "x")


# ---- the manifest ----


def test_the_shortest_recipe_reads_what_the_table_names(recordings):
    data = manifest(
        path=recordings, groups=["patient"], labels=["rhythm", "age"], holdout=0.0, readers={"ecg": Arrays(rate=100.0)}
    )
    assert data.spec.modalities == {
        "ecg": {"channels": 2, "dimensions": 2, "length": 50, "rate": 100.0},
        "ppg": {"channels": 1, "dimensions": 2, "length": None},
    }
    assert data.spec.groups == {"patient": 10} and data.spec.labels == {"rhythm": 2, "age": None}
    assert len(data) == data.spec.size == 30 and data.spec.splits == ("train",) and not data.spec.in_memory
    for i in range(30):
        sample = data[i]
        saved = np.load(Path(recordings).parent / f"data/e{i}.npy")
        assert torch.equal(sample.inputs["ecg"], torch.from_numpy(saved).float())
        assert ("ppg" in sample.inputs) == (i % 3 == 0)
        assert sample.groups["patient"] == i // 3 and sample.labels == {"rhythm": i % 2, "age": i / 4}
    assert data[3].inputs["ppg"].shape == (1, 23)
    batch = collate([(i, data[i]) for i in range(9)])
    assert batch.inputs["ppg"].row.tolist() == [0, 3, 6] and batch.inputs["ppg"].mask.sum(1).tolist() == [20, 23, 26]
    assert batch.inputs["ecg"].mask is None and batch.labels["age"].dtype == torch.float32


def test_a_patient_is_never_in_both_splits_and_ids_agree(recordings):
    splits = [manifest(path=recordings, groups=["patient"], labels=["rhythm"], split=s) for s in ("train", "test")]
    patients = [{data[i].groups["patient"] for i in range(len(data))} for data in splits]
    assert patients[0] and patients[1] and not patients[0] & patients[1]
    assert sum(len(data) for data in splits) == 30
    assert splits[0].spec.groups == splits[1].spec.groups and splits[0].classes == splits[1].classes == {
        "rhythm": [0, 1]
    }


def test_text_is_bytes_and_itself(recordings, tmp_path):
    data = manifest(path=recordings, inputs={"report": "note"}, readers={"report": Text()}, holdout=0.0)
    facts = {"vocabulary": 259, "length": None, "mask_token": 2, "special_tokens": [0, 1, 2], "tokenizer": "bytes"}
    assert data.spec.modalities == {"report": facts}
    assert data[4].fields == {"report": "note 4 心"} and data[4].inputs["report"].max() < 259
    (tmp_path / "a.txt").write_text("from a file")
    path = table(tmp_path / "t.csv", "x", ["a.txt", '"two\nlines"'])
    data = manifest(path=path, inputs={"x": "x"}, readers={"x": Text()}, holdout=0.0)
    assert [data[i].fields["x"] for i in range(2)] == ["from a file", "two\nlines"]
    path = table(tmp_path / "t.csv", "x", ["b.txt"])
    assert (
        message(manifest, path=path, inputs={"x": "x"}, readers={"x": Text()})
        == f"{path}:2: x: {tmp_path}/b.txt: no such file"
    )


def test_a_bad_text_is_shown_and_not_taken_for_a_file(tmp_path):
    path = table(tmp_path / "t.csv", "x,y", ['"<empty>",1', "fine,2"])
    data = manifest(path=path, inputs={"x": "x"}, readers={"x": Strict()}, holdout=0.0)
    assert message(data.__getitem__, 0) == "sample 0 '<empty>': holds no word" and data[1].inputs["x"].shape == (4,)


class Strict(Text):
    def ids(self, text):
        if not text.isalpha():
            raise ValueError("holds no word")
        return super().ids(text)


def test_layout_is_never_guessed(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(24.0).reshape(8, 3))
    path = table(tmp_path / "m.csv", "ecg", ["x.npy"])
    said = message(manifest, path=path)
    assert said.startswith(f"{path}:2: ecg: {tmp_path}/x.npy: 8 channels of length 3; say layout: time_first")
    first = manifest(path=path, readers={"ecg": Arrays(layout="channels_first")})
    last = manifest(path=path, readers={"ecg": Arrays(layout="time_first")})
    assert first.spec.modalities["ecg"] == {"channels": 8, "dimensions": 2, "length": 3}
    assert last.spec.modalities["ecg"] == {"channels": 3, "dimensions": 2, "length": 8}
    assert torch.equal(first[0].inputs["ecg"], last[0].inputs["ecg"].T) and last[0].inputs["ecg"].shape == (3, 8)


@pytest.mark.parametrize("kind", ["tsv", "parquet", "semicolons"])
def test_other_tables_say_the_same(recordings, tmp_path, kind):
    lines = Path(recordings).read_text().splitlines()
    path = tmp_path / ("m.csv" if kind == "semicolons" else f"m.{kind}")
    if kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        names, *rows = [line.split(",") for line in lines]
        columns = {n: [cell or None for cell in column] for n, column in zip(names, zip(*rows))}
        columns["rhythm"] = [int(cell) for cell in columns["rhythm"]]
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table(columns), path)
    else:
        mark = "\t" if kind == "tsv" else ";"
        path.write_text("\ufeff" + "\r\n".join(lines).replace(",", mark), encoding="utf-8")
    options = {
        "inputs": {"ecg": "ecg", "ppg": "ppg", "note": "note"},
        "groups": ["patient"],
        "labels": ["rhythm", "age"],
        "readers": {"note": Text()},
    }
    data, same = manifest(path=recordings, **options), manifest(path=str(path), **options)
    assert data.spec == same.spec
    for i in range(len(data)):
        a, b = data[i], same[i]
        assert (a.groups, a.labels, a.fields) == (b.groups, b.labels, b.fields)
        assert all(torch.equal(a.inputs[m], b.inputs[m]) for m in {*a.inputs, *b.inputs})


def test_every_mistake_of_a_table_at_once(tmp_path):
    np.save(tmp_path / "a.npy", rng.normal(size=(2, 9)))
    (tmp_path / "b.npy").touch()
    (tmp_path / "c.zzz").write_text("x")
    rows = ["1,a.npy,train", "1,a.npy,", "2,,train", "3,none.npy,test", "4,b.npy,test", "5,c.zzz,test", "6,.,test"]
    path = table(tmp_path / "m.csv", "id,ecg,split", [*rows, "7,a.npy", "8,a.npy,train"])
    assert message(manifest, path=path, inputs={"ecg": "ecg"}) == f"{path}:9: 2 cells, the header has 3"
    path = table(tmp_path / "m.csv", "id,ecg,split", [*rows, "8,a.npy,train"])
    assert message(manifest, path=path, inputs={"ecg": "ecg"}).splitlines() == [
        f"{path}:3: id '1' is also on line 2",
        f"{path}:3: split is empty",
        f"{path}:4: no input: ecg is empty",
        f"{path}:5: ecg: {tmp_path}/none.npy: no such file",
        f"{path}:6: ecg: {tmp_path}/b.npy: empty file (0 bytes)",
        f"{path}:7: ecg: {tmp_path}/c.zzz: no reader for '.zzz' files here; readable: .csv, .npy, .npz, .parquet, "
        ".tsv, .txt",
        f"{path}:8: ecg: {tmp_path}/.: is a directory, not a file",
    ]
    path = table(tmp_path / "m.csv", "ecg", [f"n{i}.npy" for i in range(50)])
    lines = message(manifest, path=path, inputs={"ecg": "ecg"}).splitlines()
    assert len(lines) == 21 and lines[-1] == "... and 30 more"


def test_columns_that_are_not_there(recordings):
    said = message(
        manifest, path=recordings, inputs={"x": "egc"}, groups=["patients"], labels=["zzz"], holdout_by="paitent"
    )
    assert said.splitlines() == [
        f"{recordings}: inputs.x: there is no column 'egc'; did you mean 'ecg'?",
        f"{recordings}: groups: there is no column 'patients'; did you mean 'patient'?",
        f"{recordings}: labels: there is no column 'zzz'; valid: age, ecg, id, note, patient, ppg, rhythm",
        f"{recordings}: holdout_by: there is no column 'paitent'; did you mean 'patient'?",
    ]
    assert "split_column: there is no column 'fold'" in message(manifest, path=recordings, split_column="fold")
    assert message(manifest, path=recordings, readers={"eeg": Arrays()}).endswith(
        "readers.eeg: 'eeg' is not a modality; did you mean 'ecg'?"
    )
    assert "say readers: {x: {use: text}}" in message(manifest, path=recordings, inputs={"x": "note"})
    assert "root: FOLDER" in message(manifest, path=recordings, root="/nowhere")


def test_tables_that_are_none(tmp_path):
    said = {
        "ecg\n": "has no rows",
        "": "empty file (0 bytes)",
        "a,b,a\n1,2,3\n": ":1: two columns are called 'a'",
        'a\n"x\ny\n': ":3: unexpected end of data",
    }
    path = tmp_path / "m.csv"
    for text, end in said.items():
        path.write_text(text)
        assert message(manifest, path=str(path)) in (f"{path}: {end}", f"{path}{end}")
    path.write_bytes(b"a\n\xff\n")
    assert message(manifest, path=str(path)) == f"{path}: not utf-8 text (byte 0xff at 2)"
    assert message(manifest, path=str(tmp_path)) == f"{tmp_path}: is a directory, not a file"
    assert message(manifest, path=str(tmp_path / "no.csv")) == f"{tmp_path}/no.csv: no such file"
    (tmp_path / "m.xlsx").write_text("x")
    assert "a manifest is one of .csv, .tsv, .parquet; got '.xlsx'" in message(manifest, path=str(tmp_path / "m.xlsx"))
    (tmp_path / "m.parquet").write_text("PAR1 and then nothing")
    assert message(manifest, path=str(tmp_path / "m.parquet")).startswith(f"{tmp_path}/m.parquet: ")


def test_bad_files_stop_the_start_or_are_left_to_the_loader(recordings):
    top = Path(recordings).parent / "data"
    (top / "e3.npy").write_bytes((top / "e3.npy").read_bytes()[:-5])
    np.save(top / "e6.npy", rng.normal(size=(3, 50)))
    (top / "e9.npy").unlink()
    broken = rng.normal(size=(2, 50))
    broken[0, 1] = np.nan
    np.save(top / "e12.npy", broken)
    np.save(top / "e15.npy", np.zeros((2, 50)))
    np.save(top / "e18.npy", np.full((2, 50), 1e300))
    options = {"path": recordings, "inputs": {"ecg": "ecg"}, "holdout": 0.0}
    assert message(manifest, **options) == f"{recordings}:11: ecg: {top}/e9.npy: no such file"
    np.save(top / "e9.npy", rng.normal(size=(2, 2000)))
    assert message(manifest, **options).splitlines() == [
        f"{recordings}:5: ecg: {top}/e3.npy: truncated: shorter than its header says",
        f"{recordings}:8: ecg: {top}/e6.npy: channels 3, most files have channels 2",
    ]
    (top / "e21.npy").unlink()
    data = manifest(**options, strict=False, readers={"ecg": Arrays(max_length=1000)})
    assert data.spec.modalities["ecg"] == {"channels": 2, "dimensions": 2, "length": None}
    said = {
        3: "truncated: shorter than its header says",
        6: "3 channels, expected 2 (shape (3, 50))",
        9: "too long: length 2000, expected at most 1000",
        12: "1 of 100 values are NaN or infinite, the first at [0, 1]",
        15: "constant: all 100 values are 0.0",
        18: "100 of 100 values are NaN or infinite, the first at [0, 0]",
        21: "no such file",
    }
    items = []
    for i in range(30):
        try:
            items.append((i, data[i]))
        except DataError as error:
            items.append((i, error))
    batch = collate(items)
    assert batch.fields["skipped"] == [f"sample {i} {top}/e{i}.npy: {why}" for i, why in said.items()]
    assert batch.index.tolist() == [i for i in range(30) if i not in said] and batch.inputs["ecg"].data.isfinite().all()
    assert manifest(**options, strict=False, readers={"ecg": Arrays(constant=True)})[15].inputs["ecg"].eq(0).all()


@pytest.mark.parametrize("kind", ["npz", "csv", "parquet"])
def test_keys_choose_the_array_of_a_file(tmp_path, kind):
    pyarrow = pytest.importorskip("pyarrow")
    a, b = rng.normal(size=(2, 30))
    for i in range(2):
        path = tmp_path / f"x{i}.{kind}"
        if kind == "npz":
            np.savez(path, a=a, b=b)
        elif kind == "csv":
            path.write_text("\n".join(["a,b", *(f"{x:.17g},{y:.17g}" for x, y in zip(a, b))]))
        else:
            pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table({"a": a, "b": b}), path)
    path = table(tmp_path / "m.csv", "s,n", [f"x0.{kind},1", f"x1.{kind},2"])
    data = manifest(path=path, readers={"s": Arrays(key="b")}, holdout=0.0)
    assert torch.equal(data[1].inputs["s"], torch.from_numpy(b[None]).float())
    assert data.spec.modalities["s"] == {"channels": 1, "dimensions": 2, "length": None if kind == "csv" else 30}
    assert "s: " in message(manifest, path=path, readers={"s": Arrays(key="c")})


def test_a_split_column_rules(tmp_path):
    np.save(tmp_path / "x.npy", rng.normal(size=(1, 9)))
    path = table(tmp_path / "m.csv", "f,fold,split", ["x.npy,0,test", "x.npy,1,train", "x.npy,1,dev"])
    assert manifest(path=path).spec.splits == ("train", "dev", "test") and len(manifest(path=path, split="dev")) == 1
    assert len(manifest(path=path, split_column="fold", split="1")) == 2
    assert manifest(path=path, split_column=None).spec.splits == ("train", "test")
    assert message(manifest, path=path, split="tset") == f"{path}: no sample is in split 'tset'; did you mean 'test'?"


def test_labels_are_classes_or_values():
    ids, names = encode_labels(["b", "", "a", "b"])
    assert ids.tolist() == [1, -1, 0, 1] and names == ["a", "b"]
    ids, names = encode_labels(["10", "9.0", "", "nan"])
    assert ids.tolist() == [1, 0, -1, -1] and names == [9, 10] and ids.dtype == np.int64
    values, names = encode_labels(["0.5", "2", ""])
    assert names is None and values[:2].tolist() == [0.5, 2.0] and np.isnan(values[2])


def test_a_dataset_travels_to_workers_and_holds_no_file_open(recordings):
    data = manifest(
        path=recordings, groups=["patient"], inputs={"ecg": "ecg", "note": "note"}, readers={"note": Text()}
    )
    copy = pickle.loads(pickle.dumps(data))
    opened = lambda: len(list(Path("/proc/self/fd").iterdir()))  # noqa: E731
    before = opened()
    for i in range(len(data)):
        a, b = data[i], copy[i]
        assert a.groups == b.groups and all(torch.equal(a.inputs[m], b.inputs[m]) for m in a.inputs)
    assert opened() == before and copy.spec == data.spec


def test_damaged_files_of_a_manifest_give_finite_numbers_or_a_named_error(tmp_path):
    names, rng, changed = [], np.random.default_rng(4), np.random.default_rng(3)
    for i in range(60):
        path = tmp_path / f"x{i}.{('npy', 'npz', 'csv')[i % 3]}"
        array = rng.normal(size=(2, 16))
        {"npy": np.save, "npz": lambda p, a: np.savez(p, x=a), "csv": lambda p, a: np.savetxt(p, a, delimiter=",")}[
            path.suffix[1:]
        ](path, array)
        if i > 2:
            data = np.frombuffer(path.read_bytes(), np.uint8).copy()
            data[changed.integers(len(data), size=2)] ^= np.uint8(1 << changed.integers(8))
            path.write_bytes(data[: int(changed.integers(1, len(data) + 1))].tobytes() if i % 2 else data.tobytes())
        names.append(path.name)
    dataset = manifest(path=table(tmp_path / "m.csv", "ecg", names), holdout=0.0, strict=False)
    good = 0
    for i, name in enumerate(names):
        try:
            x = dataset[i].inputs["ecg"]
            assert x.isfinite().all() and x.dtype == torch.float32 and x.shape[0] == 2
            good += 1
        except DataError as error:
            assert str(error).startswith(f"sample {i} {tmp_path / name}: ") and "\n" not in str(error)
    assert 3 <= good < 40


# ---- the folder ----


@pytest.fixture
def tree(tmp_path):
    for name in ("sinus/p2_a.npy", "sinus/p1_b.npy", "atrial/p1_c.npy", "atrial/p10_ü.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.save(tmp_path / name, rng.normal(size=(1, 12)))
    (tmp_path / ".hidden").write_text("x")
    return tmp_path


def test_folder_names_are_classes(tree):
    data = folder(path=str(tree), modality="ecg", groups={"patient": r"(p\d+)_"}, holdout=0.0, reader=Arrays(rate=50.0))
    assert data.cells["ecg"] == [
        f"{tree}/{n}" for n in ("atrial/p10_ü.npy", "atrial/p1_c.npy", "sinus/p1_b.npy", "sinus/p2_a.npy")
    ]
    assert data.classes == {"class": ["atrial", "sinus"]} and data.spec.labels == {"class": 2}
    assert [data[i].labels["class"] for i in range(4)] == [0, 0, 1, 1]
    assert [data[i].groups["patient"] for i in range(4)] == [1, 0, 0, 2] and data.spec.groups == {"patient": 3}
    assert data.spec.modalities == {"ecg": {"channels": 1, "dimensions": 2, "length": 12, "rate": 50.0}}
    assert folder(path=str(tree), modality="ecg", label=None).spec.labels == {}


def test_folders_called_train_and_test_are_the_splits(tree):
    for split in ("train", "test"):
        (tree / split).mkdir()
        for kind in ("sinus", "atrial"):
            (tree / split / kind).mkdir()
            np.save(tree / split / kind / "x.npy", rng.normal(size=(1, 12)))
    for name in ("sinus", "atrial"):
        for path in (tree / name).iterdir():
            path.rename(tree / "train" / name / path.name)
    data = folder(path=str(tree), modality="ecg", split="test")
    assert data.spec.splits == ("train", "test") and len(data) == 2 and data.spec.labels == {"class": 2}


def test_text_folders(tmp_path):
    (tmp_path / "b.txt").write_text("hello")
    data = folder(path=str(tmp_path), modality="note", reader=Text())
    assert data[0].fields == {"note": "hello"} and data[0].labels == {} and data[0].inputs["note"].shape == (5,)


def test_mistakes_of_a_folder(tree):
    build = lambda **options: message(folder, **{"path": str(tree), "modality": "ecg"} | options)  # noqa: E731
    assert build(path="/none") == "/none: no such file"
    assert build(pattern="*.zip") == f"{tree}: no file matches pattern '*.zip'"
    assert "no regular expression" in build(groups={"p": "("})
    assert "must have one parenthesis" in build(groups={"p": "p[0-9]+"})
    assert build(groups={"p": "(q)"}).splitlines()[0] == f"{tree}/atrial/p10_ü.npy: groups.p: '(q)' is not in it"
    assert "there is no group 'b'" in build(holdout_by="b", groups={"a": "(p)"})
    (tree / "sinus" / "notes.md").write_text("x")
    assert build().startswith(
        f"{tree}: 1 of 5 files are not .npy (1 .md); say which to take, as in pattern: '**/*.npy'"
    )
    (tree / "sinus" / "p1_b.npy").write_bytes(b"")
    assert build(pattern="**/*.npy") == f"{tree}/sinus/p1_b.npy: empty file (0 bytes)"
    data = folder(path=str(tree), modality="ecg", pattern="**/*.npy", holdout=0.0, strict=False)
    assert message(data.__getitem__, 2) == f"sample 2 {tree}/sinus/p1_b.npy: empty file (0 bytes)"
