"""The reading guard, the readers and collate: what is read is exact, what is bad is named, and nothing else happens."""

import io
import os
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from counterpoint.batch import Batch, View
from counterpoint.data.collate import collate
from counterpoint.data.dataset import Dataset, Sample, Spec
from counterpoint.data.guard import Skipped, check_array, check_file, reading
from counterpoint.data.numbers import read, shape_of
from counterpoint.data.plan import Seeded
from counterpoint.data.text import BYTE_OFFSET, read_text, text_ids
from counterpoint.errors import CounterpointError, DataError

torch.set_num_threads(1)
parquet = pytest.importorskip("pyarrow.parquet")
SERIES = np.random.default_rng(0).normal(size=(40, 3))
KINDS = (".npy", ".npz", ".csv", ".tsv", ".txt", ".parquet")


def write(path, array=SERIES):
    """`array` (rows, columns) in the format of the path's extension."""
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez_compressed(path, x=array)
    elif path.suffix == ".parquet":
        import pyarrow

        columns = {f"c{i}": column for i, column in enumerate(array.T)}
        parquet.write_table(pyarrow.table(columns), path, write_page_checksum=True)
    else:
        mark = {".csv": ",", ".tsv": "\t", ".txt": " "}[path.suffix]
        lines = [mark.join(f"{value:.17g}" for value in row) for row in array]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def message(fn, *args, **options) -> str:
    with pytest.raises(DataError) as caught:
        fn(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- the guard ----


@pytest.mark.parametrize(
    "error", [ValueError("odd\nthing"), EOFError(), StopIteration(), KeyError("x"), OSError(5, "io")]
)
def test_any_error_of_a_reader_names_sample_and_file(tmp_path, error):
    path = write(tmp_path / "grün 心.npy")

    def fail():
        with reading(path, 37):
            raise error

    with pytest.raises(DataError, match=r"^sample 37 ") as caught:
        fail()
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.__cause__ is error


@pytest.mark.fault("R8")
def test_what_is_wrong_with_the_file_itself_comes_first(tmp_path):
    (tmp_path / "empty.npy").touch()
    faults = {
        tmp_path / "none.npy": "no such file",
        tmp_path: "is a directory, not a file",
        tmp_path / "empty.npy": "empty file (0 bytes)",
        tmp_path / "empty.npy" / "x": "no such file (a part of the path is a file)",
    }
    for path, fault in faults.items():
        assert message(check_file, path, 3) == f"sample 3 {path}: {fault}"

        def fail(path=path):
            with reading(path, 3):
                Path(path).read_text() or int("")

        assert message(fail) == f"sample 3 {path}: {fault}"


@pytest.mark.fault("R8")
def test_a_pipe_and_a_huge_file_are_refused_before_reading(tmp_path):
    os.mkfifo(tmp_path / "pipe.npy")
    assert message(read, tmp_path / "pipe.npy").endswith("not a regular file")  # opening it would wait for ever
    path = write(tmp_path / "x.npy")
    size = path.stat().st_size
    assert message(read, path, max_bytes=100).endswith(f"too large: {size:,} bytes, expected at most 100")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(tmp_path):
    path = write(tmp_path / "x.npy")
    path.chmod(0)
    assert message(read, path) == f"{path}: no permission to read it"


def test_a_name_that_is_no_text_is_printable():
    text = message(check_file, os.fsencode("/no/caf") + b"\xe9\n.npy", 1)
    assert text == "sample 1 /no/caf\\udce9\\n.npy: no such file"
    text.encode()


def test_a_data_error_gains_the_sample_once(tmp_path):
    def nested(error):
        with reading("/outer", 5), reading("/inner", 5):
            raise error

    assert message(nested, DataError("/x.wav: truncated")) == "sample 5 /x.wav: truncated"
    assert message(nested, DataError("sample 9 /x.wav: truncated")) == "sample 9 /x.wav: truncated"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), CounterpointError("install pyarrow")])
def test_what_is_not_the_files_fault_passes(error):
    with pytest.raises(type(error)) as caught, reading("/x", 1):
        raise error
    assert caught.value is error


def test_check_array_says_what_is_wrong():
    good = np.random.default_rng(1).normal(size=(2, 50)).astype("float32")
    assert check_array(good, "/x", 4, shape=(2, None)) is good
    tensor = torch.from_numpy(good)
    assert check_array(tensor, "/x") is tensor
    holed = good.copy()
    holed[1, 7], holed[1, 9] = np.nan, -np.inf
    cases = [
        ("2 of 100 values are NaN or infinite, the first at [1, 7]", holed, {}),
        ("constant: all 100 values are 2.0", np.full((2, 50), 2.0), {}),
        ("2 channels, expected 12 (shape (2, 50))", good, {"shape": (12, None)}),
        ("shape (2, 50), expected (any, 40)", good, {"shape": (None, 40)}),
        ("shape (2, 50), expected (2, any, any)", good, {"shape": (2, None, None)}),
        ("too short: length 50, expected at least 60 (shape (2, 50))", good, {"min_length": 60}),
        ("too short: length 0, expected at least 1 (shape (2, 0))", good[:, :0], {}),
        ("too long: length 50, expected at most 40", good, {"max_length": 40}),
        ("too large: 400 bytes, expected at most 399", good, {"max_bytes": 399}),
        ("holds object, expected real numbers", np.array([None]), {}),
        ("holds complex128, expected real numbers", good * 1j + good.astype("float64"), {}),
    ]
    for said, x, options in cases:
        assert message(check_array, x, "/x", 4, **options) == f"sample 4 /x: {said}"
    assert check_array(holed, "/x", finite=False) is holed
    check_array(np.full((2, 50), 2.0), "/x", constant=True)
    check_array(np.full(3, np.finfo("float32").max, dtype="float32"), "/x", constant=True)  # the sum alone is infinite


@pytest.mark.fault("R8")
def test_skipped_counts_every_sample_once_and_ends_the_run_at_the_limit():
    batch = lambda *messages: Batch({}, torch.tensor([]), fields={"skipped": list(messages)})  # noqa: E731
    skipped = Skipped(size=20, limit=0.1)
    assert skipped(Batch({}, torch.tensor([0]))) == []
    assert skipped(batch("sample 3 /a: bad at 1", "sample 1 /b: bad")) == ["sample 3 /a: bad at 1", "sample 1 /b: bad"]
    assert skipped(batch("sample 3 /a: bad at 2")) == [] and len(skipped) == 2
    with pytest.raises(
        DataError, match=r"^3 of 20 samples cannot be read, more than the 10% .*:\nsample 3 /a: bad at 1\n"
    ):
        skipped(batch("sample 4 /c: bad"))
    assert message(Skipped(size=20, limit=0.0), batch("sample 4 /c: bad")) == "sample 4 /c: bad"


# ---- collate ----


def plain_collate(items):
    """The same rows one number at a time: modality -> (data, row, mask, part)."""
    samples = [sample for _, sample in items if not isinstance(sample, DataError)]
    found = {}
    for modality in {m for sample in samples for m in sample.inputs}:
        rows = []
        for i, sample in enumerate(samples):
            value = sample.inputs.get(modality, [])
            rows += [(i, p, x) for p, x in enumerate(value if isinstance(value, list) else [value])]
        longest = max(x.shape[-1] for _, _, x in rows)
        data = torch.zeros(len(rows), *rows[0][2].shape[:-1], longest)
        mask = torch.zeros(len(rows), longest, dtype=torch.bool)
        for n, (_, _, x) in enumerate(rows):
            for at in range(x.shape[-1]):
                data[n, ..., at] = x[..., at]
                mask[n, at] = True
        found[modality] = (data, torch.tensor([i for i, _, _ in rows]), mask, torch.tensor([p for _, p, _ in rows]))
    return found


def test_collate_equals_the_plain_version():
    g = torch.Generator().manual_seed(0)
    signal = lambda: torch.randn(2, int(torch.randint(1, 9, (), generator=g)), generator=g)  # noqa: E731
    items = []
    for index in range(30):
        inputs = {"fixed": torch.randn(3, 4, generator=g)} if index % 3 else {}
        inputs["ragged"] = [signal() for _ in range(index % 4)] if index % 2 else signal()
        items.append((index * 7, DataError(f"/f{index}: bad") if index % 5 == 4 else Sample(inputs)))
    batch = collate(items)
    plain = plain_collate(items)
    assert set(batch.inputs) == set(plain)
    for modality, (data, row, mask, part) in plain.items():
        view = batch.inputs[modality]
        assert isinstance(view, View) and view.modality == modality and view.role == "raw"
        assert torch.equal(view.data, data) and torch.equal(view.row, row)
        assert mask.all() if view.mask is None else torch.equal(view.mask, mask)
        assert not part.any() if "part" not in view.meta else torch.equal(view.meta["part"], part)
    assert batch.inputs["fixed"].mask is None and "part" not in batch.inputs["fixed"].meta
    assert batch.inputs["ragged"].mask is not None and "part" in batch.inputs["ragged"].meta
    assert batch.index.tolist() == [i for i, s in items if isinstance(s, Sample)]
    assert batch.fields["skipped"] == [f"sample {i * 7} /f{i}: bad" for i in range(4, 30, 5)]


class InMemory(Dataset):
    """Two modalities in types that collate changes, with columns of every type."""

    def __init__(self):
        g = torch.Generator().manual_seed(0)
        self.wave, self.image = torch.randn(9, 2, 5, generator=g, dtype=torch.float64), torch.arange(9 * 4).byte()
        self.groups = {"patient": np.arange(9, dtype=np.int32) - 1}
        self.labels = {"kind": np.arange(9) % 3, "age": np.linspace(20, 80, 9)}
        self.spec = Spec(9, {"wave": {}, "image": {}}, {"patient": 8}, {"kind": 3, "age": None}, in_memory=True)

    def inputs_of(self, index):
        return {"wave": self.wave[index], "image": self.image.view(9, 2, 2)[index]}


class Shaken(InMemory):
    """Of a reading with chance, which no one must overlook because the class it derives from reads many at once."""

    def inputs(self, index):
        return {"wave": self.wave[index] + torch.randn(5) + np.random.rand()}


def state_of(dataset, places):
    """The batch as the loader makes it, and the next number of each generator."""
    made = Seeded(dataset, 3)
    batch = collate(made.__getitems__(places))
    return batch, (random.random(), np.random.rand(), torch.rand(()).item())


@pytest.mark.parametrize("places", [[(0, 3)], [(2, 8), (2, 0), (2, 5)], [(1, 4), (1, 4)]])
def test_many_samples_read_at_once_are_those_read_one_by_one(places):
    batch, after = state_of(InMemory(), places)
    assert isinstance(Seeded(InMemory(), 3).__getitems__(places), Batch)
    one_by_one = Seeded(InMemory(), 3)
    plain = collate([one_by_one[place] for place in places])
    assert after == (random.random(), np.random.rand(), torch.rand(()).item())
    assert list(batch.inputs) == list(plain.inputs) and batch.fields == plain.fields == {}
    for modality, view in plain.inputs.items():
        got = batch.inputs[modality]
        assert got.data.dtype == view.data.dtype and torch.equal(got.data, view.data) and torch.equal(got.row, view.row)
    for mine, theirs in (
        (batch.groups, plain.groups),
        (batch.labels, plain.labels),
        ({"": batch.index}, {"": plain.index}),
    ):
        assert list(mine) == list(theirs)
        assert all(mine[n].dtype == theirs[n].dtype and torch.equal(mine[n], theirs[n]) for n in mine)


def test_a_class_that_reads_otherwise_than_the_one_it_derives_from_is_read_one_by_one():
    places = [(0, 3), (0, 1)]
    made = Seeded(Shaken(), 3).__getitems__(places)
    assert isinstance(made, list) and all(type(sample) is Sample for _, sample in made)
    alone = Seeded(Shaken(), 3)[0, 1][1].inputs["wave"]
    assert torch.equal(made[1][1].inputs["wave"], alone), "whatever was read before it"


def test_the_order_of_samples_only_orders_the_batch():
    items = [(i, Sample({"x": torch.arange(float(i + 1))}, {"p": i % 3}, {"y": i})) for i in range(6)]
    batch, turned = collate(items), collate(items[::-1])
    assert torch.equal(batch.index, turned.index.flip(0)) and torch.equal(batch.groups["p"], turned.groups["p"].flip(0))
    assert torch.equal(batch.inputs["x"].data, turned.inputs["x"].data.flip(0))
    assert torch.equal(batch.inputs["x"].mask, turned.inputs["x"].mask.flip(0))


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_any_one_dimension_may_vary(dim):
    shapes = [[2, 3, 4], [2, 3, 4]]
    shapes[0][dim] = 5
    rows = [torch.ones(shape, dtype=torch.int32) for shape in shapes]
    view = collate([(i, Sample({"x": x})) for i, x in enumerate(rows)]).inputs["x"]
    assert view.data.dtype == torch.int64 and view.data.shape[1 + dim] == 5 and view.mask.shape == (2, 5)
    for row, mask, x in zip(view.data, view.mask, rows):
        assert mask.sum() == x.shape[dim] and row.sum() == x.numel()
        assert torch.equal(row.movedim(dim, 0)[mask].movedim(0, dim), x.long())


def test_types():
    given = {torch.float64: torch.float32, torch.float32: torch.float32, torch.float16: torch.float16}
    given |= {torch.int16: torch.int64, torch.uint8: torch.uint8, torch.bool: torch.bool}
    for before, after in given.items():
        batch = collate([(0, Sample({"x": torch.ones(2, dtype=before)}))])
        assert batch.inputs["x"].data.dtype == after
        assert batch.inputs["x"].row.dtype == batch.index.dtype == torch.int64


def test_rows_that_do_not_fit_are_named():
    pair = lambda a, b: [(0, Sample({"x": a})), (1, Sample({"x": b}))]  # noqa: E731
    assert message(collate, pair(torch.ones(2, 3), torch.ones(4, 5))) == (
        "modality 'x': rows differ in more than one dimension: (2, 3), (4, 5)"
    )
    assert "(2, 1), (2,)" in message(collate, pair(torch.ones(2), torch.ones(2, 1)))
    assert "torch.float32, torch.int64" in message(collate, pair(torch.ones(2), torch.ones(2, dtype=torch.int64)))


def test_columns_that_a_sample_lacks_are_unknown():
    batch = collate(
        [
            (0, Sample({}, {"p": 4}, {"c": 2, "v": 0.5}, {"box": torch.ones(2), "name": "a"})),
            (1, Sample({}, {}, {}, {"box": torch.zeros(2)})),
        ]
    )
    assert batch.groups["p"].tolist() == [4, -1] and batch.labels["c"].tolist() == [2, -1]
    assert batch.labels["v"].dtype == torch.float32 and batch.labels["v"][1].isnan()
    assert batch.fields["name"] == ["a", None] and batch.fields["box"].shape == (2, 2)
    assert "skipped" not in batch.fields and batch.inputs == {}


@pytest.mark.parametrize("items", [[], [(8, DataError("/x: bad"))]])
def test_a_batch_without_samples_is_empty(items):
    batch = collate(items)
    assert len(batch) == 0 and batch.index.dtype == torch.int64 and batch.inputs == {} and batch.groups == {}
    assert batch.fields == ({"skipped": ["sample 8 /x: bad"]} if items else {})


def test_an_empty_list_of_rows_is_no_row():
    batch = collate([(0, Sample({"x": []})), (1, Sample({"x": [torch.ones(2)]})), (2, Sample({"y": []}))])
    assert batch.inputs["x"].row.tolist() == [1] and "y" not in batch.inputs


# ---- readers ----


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_what_was_written(tmp_path, kind):
    path = write(tmp_path / f"ü{kind}")
    assert np.array_equal(read(path), SERIES) and shape_of(path) == SERIES.shape
    single = write(tmp_path / f"one{kind}", SERIES[:, :1])
    assert np.array_equal(read(single).ravel(), SERIES[:, 0]) and shape_of(single) == read(single).shape


@pytest.mark.parametrize("dtype", [">f4", "<i2", "bool", "<f2", ">u4"])
def test_numbers_come_in_native_order(tmp_path, dtype):
    array = np.asfortranarray(np.arange(6).reshape(2, 3).astype(dtype))
    np.save(tmp_path / "x.npy", array)
    found = read(tmp_path / "x.npy")
    assert np.array_equal(found, array) and found.dtype.isnative
    torch.from_numpy(np.ascontiguousarray(found, dtype=np.float32))


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,2\n3,4\n",
        "1,2\n3,4",
        '\ufeff"a";"b"\r\n"1";"2"\r\n3;4\r\n',
        ",a,b\n0,1,2\n1,3,4\n",
        "# by me\n\na,b\n1,2\n\n3,4\n",
    ],
)
def test_tables_as_people_write_them(tmp_path, text):
    (tmp_path / "x.csv").write_bytes(text.encode())
    assert read(tmp_path / "x.csv").tolist() == [[1, 2], [3, 4]]
    if "a" in text.splitlines()[0]:
        assert read(tmp_path / "x.csv", "b").tolist() == [2, 4]


def test_an_array_of_many_must_be_named(tmp_path):
    np.savez(tmp_path / "x.npz", ecg=SERIES, ppg=SERIES[:5])
    assert read(tmp_path / "x.npz", "ppg").shape == shape_of(tmp_path / "x.npz", "ppg") == (5, 3)
    assert message(read, tmp_path / "x.npz") == f"{tmp_path}/x.npz: holds 2 arrays, name one of: ecg, ppg"
    assert message(read, tmp_path / "x.npz", "pgp").endswith("holds no array 'pgp'; did you mean 'ppg'?")
    assert message(read, write(tmp_path / "x.npy"), "a").endswith(
        "a .npy holds one array without a name; 'a' was asked for"
    )
    assert message(read, write(tmp_path / "x.parquet"), "d1").endswith("holds no column 'd1'; valid: c0, c1, c2")


@pytest.mark.fault("R8")
def test_bad_tables_name_the_line(tmp_path):
    cases = {
        "a,b\n1,2\n3,x\n": "line 3: 'x' is not a number",
        "a,b\n1,2\n3\n": "line 3 has 1 columns, the lines before have 2",
        "1,2\n\n3,\n": "line 3: '' is not a number",
        "a,b\n": "holds no numbers",
        " \n\n": "holds no numbers",
        "dear diary\nnothing\n": "line 2: 'nothing' is not a number",
    }
    for text, said in cases.items():
        (tmp_path / "x.csv").write_text(text)
        assert message(read, tmp_path / "x.csv").endswith(said)
    (tmp_path / "x.csv").write_bytes(b"1,2\n\xff,3\n")
    assert message(read, tmp_path / "x.csv").endswith("not utf-8 text (byte 0xff at 4)")


@pytest.mark.fault("R8")
def test_bad_files_say_why(tmp_path):
    path = write(tmp_path / "x.npy")
    path.write_bytes(path.read_bytes()[:-1])
    assert message(read, path) == f"{path}: truncated: shorter than its header says"
    path.write_bytes(path.read_bytes() + b"..")
    assert "damaged: 1089 bytes, but its header says 1088" in message(read, path)
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    assert message(read, path) == f"{path}: Array can't be memory-mapped: Python objects in dtype."
    path.write_bytes(b"not one")
    assert message(read, path) == f"{path}: not a .npy file, whatever its name says"
    path = write(tmp_path / "x.npz")
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 4
    path.write_bytes(damaged)
    assert "truncated or damaged" in message(read, path)
    path.write_bytes(damaged[:100])
    assert message(read, path) == f"{path}: truncated or damaged (BadZipFile: File is not a zip file)"
    path.write_bytes(b"not one")
    assert str(path) in message(shape_of, path)
    assert "no reader for '.wav' files here" in message(read, path.rename(tmp_path / "x.wav"))


@pytest.mark.fault("R9")
def test_a_header_that_claims_too_much_allocates_nothing(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (1 << 45,)})
    (tmp_path / "x.npy").write_bytes(header.getvalue() + bytes(64))
    assert "truncated" in message(read, tmp_path / "x.npy")
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue() + bytes(64))
    assert str(tmp_path / "x.npz") in message(read, tmp_path / "x.npz")
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros(1 << 20))
    assert (tmp_path / "bomb.npz").stat().st_size < 1 << 16
    assert "unpacked, expected at most" in message(read, tmp_path / "bomb.npz", max_bytes=1 << 16)


@pytest.mark.fault("R9")
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_give_numbers_or_a_named_error(tmp_path, kind, record_property):
    """40 files of every format with a few bytes changed, cut, doubled or removed."""
    rng = np.random.default_rng(KINDS.index(kind))
    whole, path, errors = np.frombuffer(write(tmp_path / f"x{kind}").read_bytes(), np.uint8), tmp_path / f"y{kind}", 0
    for _ in range(40):
        data, at = whole.copy(), int(rng.integers(len(whole)))
        how = rng.integers(4)
        if how == 0:
            places = rng.integers(len(data), size=rng.integers(1, 4))
            data[places] ^= np.uint8(1) << rng.integers(8, size=len(places)).astype(np.uint8)
        elif how == 1:
            data = data[:at]
        elif how == 2:
            data[: int(rng.integers(1, 130))] = rng.integers(256)
        else:
            data = np.concatenate([data[:at], data[at // 2 :]])
        path.write_bytes(data.tobytes())
        try:
            with reading(path, 7):
                assert np.isfinite(check_array(read(path), path, 7)).all()
        except DataError as error:
            assert str(error).startswith(f"sample 7 {path}: ") and "\n" not in str(error)
            errors += 1
    assert errors >= 15
    record_property("survived", 40)


def test_text_is_its_bytes(tmp_path):
    text = "sinus rhythm, 72/min — normal 心"
    (tmp_path / "x.txt").write_text("\ufeff" + text, encoding="utf-8")
    ids = text_ids(read_text(tmp_path / "x.txt"))
    assert (
        bytes((ids - BYTE_OFFSET).tolist()).decode() == text
        and ids.dtype == torch.int64
        and ids.min() >= 3
        and len(ids) == len(text.encode())
    )
    (tmp_path / "x.txt").write_bytes(b"abc\xff")
    assert message(read_text, tmp_path / "x.txt").endswith("not utf-8 text (byte 0xff at 3)")
    (tmp_path / "x.txt").write_text(" \n")
    assert message(read_text, tmp_path / "x.txt").endswith("holds no text")


@pytest.mark.fault("R8")
def test_a_sample_that_no_batch_can_be_padded_to_is_named_and_left_out(monkeypatch):
    monkeypatch.setattr("counterpoint.data.collate.MAX_BYTES", 4 * 2 * 5 * 100)
    lengths = [90, 100, 900, 80, 2000, 70]
    items = [(10 + i, Sample({"x": [torch.ones(2, n)] if i % 2 else torch.ones(2, n)})) for i, n in enumerate(lengths)]
    batch = collate(items)
    assert batch.index.tolist() == [10, 11, 13, 15] and batch.inputs["x"].data.shape == (4, 2, 100)
    assert batch.fields["skipped"] == [
        "sample 12 'x': too long: length 900; padded to it, the batch would take 36,000 bytes, expected at most 4,000",
        "sample 14 'x': too long: length 2,000; padded to it, the batch would take 96,000 bytes, expected at most 4,000",
    ]
