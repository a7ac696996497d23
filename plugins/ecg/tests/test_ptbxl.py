"""The layout of PTB-XL, on a small tree of the same layout."""

import csv
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import wfdb

from counterpoint.errors import DataError
from counterpoint_ecg.data.ptbxl import ptbxl
from counterpoint_ecg.readers.signal import Signal

LEADS = ("I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")
STATEMENTS = [["", "description", "diagnostic", "form", "rhythm", "diagnostic_class"]]
STATEMENTS += [["NORM", "normal ECG", "1.0", "", "", "NORM"], ["IMI", "inferior infarction", "1.0", "", "", "MI"]]
STATEMENTS += [["LAFB", "left anterior block", "1.0", "", "", "CD"], ["SR", "sinus rhythm", "", "", "1.0", ""]]
ROWS = [  # patient, sex, statements, fold
    ["15709.0", "1", "{'NORM': 100.0, 'SR': 0.0}", "3"],
    ["15709.0", "1", "{'IMI': 35.0, 'LAFB': 100.0}", "3"],
    ["13243.0", "0", "{'IMI': 100.0, 'LAFB': 100.0}", "8"],
    ["20372.0", "0", "{'SR': 0.0}", "9"],
    ["17014.0", "1", "{'IMI': 0.0}", "10"],
]


def write_table(path: Path, rows) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def name_of(number: int, rate: int) -> str:
    return f"records{rate}/00000/{number:05d}_{'lr' if rate == 100 else 'hr'}"


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Five records at both rates."""
    root = tmp_path_factory.mktemp("records")
    signals = {"units": ["mV"] * 12, "sig_name": list(LEADS), "fmt": ["16"] * 12}
    scale = {"adc_gain": [1000.0] * 12, "baseline": [0] * 12}
    for number, rate in itertools.product(range(1, len(ROWS) + 1), (100, 500)):
        path = root / name_of(number, rate)
        path.parent.mkdir(parents=True, exist_ok=True)
        x = number + np.sin(np.arange(rate * 10)[:, None] / rate * np.arange(1, 13))
        wfdb.wrsamp(path.name, fs=rate, p_signal=x, write_dir=str(path.parent), **signals, **scale)
    return root


@pytest.fixture
def tree(tmp_path, records):
    """The folder as the archive unpacks, and the rows of its table."""
    root = tmp_path / "ptb-xl 1.0.3"
    root.mkdir()
    for folder in ("records100", "records500"):
        (root / folder).symlink_to(records / folder)
    rows = [["ecg_id", "patient_id", "age", "sex", "scp_codes", "strat_fold", "filename_lr", "filename_hr"]]
    for number, (patient, sex, codes, fold) in enumerate(ROWS, 1):
        names = [name_of(number, 100), name_of(number, 500)]
        rows.append([str(number), patient, "56.0", sex, codes, fold, *names])
    write_table(root / "ptbxl_database.csv", rows)
    write_table(root / "scp_statements.csv", STATEMENTS)
    return root, rows


def test_splits_groups_and_labels(tree):
    data = {split: ptbxl(path=str(tree[0]), split=split) for split in ("train", "val", "test")}
    assert [len(one) for one in data.values()] == [3, 1, 1]
    assert data["train"].spec.splits == ("train", "test", "val")
    assert data["train"].spec.modalities["ecg"]["channels"] == 12
    assert data["train"].spec.modalities["ecg"]["rate"] == 100.0
    assert data["train"].spec.groups == {"patient": 4}
    first, again, other = data["train"].groups["patient"]
    assert first == again != other
    names = data["train"].classes["superclass"]
    told = lambda one: [names[i] if i >= 0 else None for i in one.labels["superclass"]]  # noqa: E731
    assert told(data["train"]) == ["NORM", "CD", None]  # two are equally likely: none is the most likely
    assert told(data["val"]) == [None] and told(data["test"]) == ["MI"]
    assert data["train"].labels["sex"].tolist() == [1, 1, 0]


@pytest.mark.parametrize("rate", [100, 500])
def test_both_rates_hold_the_same_record(tree, rate):
    data = ptbxl(path=str(tree[0]), rate=rate)
    x = data[1].inputs["ecg"]
    assert x.shape == (12, 10 * rate) and x.dtype == torch.float32
    torch.testing.assert_close(x.mean(1)[5:].mean(), torch.tensor(2.0), atol=0.05, rtol=0)


def test_the_reader_may_be_another(tree):
    data = ptbxl(path=str(tree[0]), reader=Signal(leads=["aVR", "II"], seconds=2, rate=250))
    assert data[0].inputs["ecg"].shape == (2, 500) and data.spec.modalities["ecg"]["rate"] == 250.0


@pytest.mark.parametrize(
    "column, value, message",
    [
        (4, "__import__('os').system('true')", "no table of statements"),
        (4, "{'NORM': " * 900, "no table of statements"),
        (4, "[1, 2]", "no table of statements"),
        (4, "{'NORM': 'x'}", "no table of statements"),
        (5, "11", "strat_fold: '11', expected 1 to 10"),
        (6, "../../etc/passwd", "no path inside the folder"),
        (6, "/etc/passwd", "no path inside the folder"),
        (6, "records100/00000/00009_lr", "no such file"),
    ],
)
def test_a_bad_row_is_named_with_its_line(tree, column, value, message):
    root, rows = tree
    rows[2][column] = value
    write_table(root / "ptbxl_database.csv", rows)
    with pytest.raises(DataError, match=message) as error:
        ptbxl(path=str(root))
    assert "ptbxl_database.csv:3: " in str(error.value)


def test_what_is_not_there_is_named(tree):
    root, rows = tree
    write_table(root / "ptbxl_database.csv", [row[:5] for row in rows])
    with pytest.raises(DataError, match=r"ptbxl_database\.csv: there is no column 'strat_fold'"):
        ptbxl(path=str(root))
    (root / "scp_statements.csv").unlink()
    write_table(root / "ptbxl_database.csv", rows)
    with pytest.raises(DataError, match=r"scp_statements\.csv: no such file"):
        ptbxl(path=str(root))
    with pytest.raises(DataError, match=r"ptbxl_database\.csv: no such file"):
        ptbxl(path=str(root / "gone"))
