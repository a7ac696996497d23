"""The reader of recordings: what it gives of every format, and what it says of files that are not what they should be."""

import random
import struct
from pathlib import Path

import numpy as np
import pyedflib
import pytest
import torch
import wfdb

from counterpoint.data.guard import reading
from counterpoint.errors import ComponentError, DataError
from counterpoint_ecg.readers.signal import Signal

LEADS, RATE, LENGTH = ("I", "II", "V1"), 250, 1500


def waves(length: int = LENGTH, rate: float = RATE, leads: int = len(LEADS)) -> np.ndarray:
    """Millivolts (C, L): another frequency, size and level in every lead."""
    time = np.arange(length) / rate
    return np.stack([0.1 * lead + (1 + lead) * np.sin(2 * np.pi * (1 + lead) * time) for lead in range(leads)])


def write_wfdb(path: Path, x: np.ndarray, rate: float = RATE, leads=LEADS, fmt="16", units="mV") -> str:
    wfdb.wrsamp(
        path.stem,
        fs=rate,
        units=[units] * len(x),
        sig_name=list(leads),
        p_signal=x.T,
        fmt=[fmt] * len(x),
        write_dir=str(path.parent),
    )
    return str(path.with_suffix(".hea"))


def write_edf(path: Path, signals: dict[str, tuple[np.ndarray, float]], unit: str = "mV") -> str:
    kind = pyedflib.FILETYPE_BDFPLUS if path.suffix == ".bdf" else pyedflib.FILETYPE_EDFPLUS
    high = 2**23 - 1 if path.suffix == ".bdf" else 2**15 - 1
    writer = pyedflib.EdfWriter(str(path), len(signals), file_type=kind)
    writer.setSignalHeaders(
        [
            dict(
                label=label,
                dimension=unit,
                sample_frequency=rate,
                physical_max=5000,
                physical_min=-5000,
                digital_max=high,
                digital_min=-high - 1,
                transducer="",
                prefilter="",
            )
            for label, (_, rate) in signals.items()
        ]
    )
    writer.writeSamples([np.ascontiguousarray(x) for x, _ in signals.values()])
    writer.close()
    return str(path)


def facts(path, **given):
    with reading(path):
        return Signal(**given).facts(str(path))


def read(path, **given) -> torch.Tensor:
    """As a dataset reads: the header first, then the samples."""
    reader = Signal(**given)
    with reading(path):
        reader.expect(reader.facts(str(path)))
        x = reader.read(str(path))
    assert x.dtype == torch.float32 and x.shape[0] == reader.expected["channels"]
    return x


# ---- what every format gives ----


@pytest.mark.parametrize("fmt", ["16", "212", "24", "32", "80", "516"])
def test_wfdb_gives_millivolts_and_its_leads(tmp_path, fmt):
    x = waves()
    path = write_wfdb(tmp_path / "r.hea", x, fmt=fmt)
    assert facts(path) == {"channels": 3, "length": LENGTH, "rate": 250.0, "leads": ["i", "ii", "v1"]}
    step = 8 / (200 if fmt == "80" else 2000)  # of the converter
    np.testing.assert_allclose(read(path), x, atol=step)


def test_a_window_of_differences_starts_where_they_have_come_to(tmp_path):
    """Format 8 holds what is added to the sample before: the start of the file counts, whatever the window."""
    steps = np.random.default_rng(0).integers(-100, 100, size=1000).astype(np.int8)
    (tmp_path / "r.dat").write_bytes(steps.tobytes())
    (tmp_path / "r.hea").write_text("r 1 250 1000\nr.dat 8 100/mV 8 0 50 0 0 I\n")
    whole = (50 + np.cumsum(steps, dtype=np.int64)) / 100
    np.testing.assert_allclose(read(tmp_path / "r.hea")[0], whole, atol=1e-5)
    for seed in range(3):
        np.random.seed(seed)
        window = read(tmp_path / "r.hea", seconds=1)[0].numpy()
        assert min(np.abs(whole[i : i + 250] - window).max() for i in range(751)) < 1e-4


@pytest.mark.parametrize("suffix, step", [(".edf", 0.2), (".bdf", 1e-3)])
def test_edf_and_bdf_give_the_same(tmp_path, suffix, step):
    x = waves()
    path = write_edf(tmp_path / f"r{suffix}", {lead: (row, RATE) for lead, row in zip(LEADS, x)})
    assert facts(path) == {"channels": 3, "length": LENGTH, "rate": 250.0, "leads": ["i", "ii", "v1"]}
    np.testing.assert_allclose(read(path), x, atol=step)


@pytest.mark.parametrize("unit, factor", [("uV", 1e-3), ("mV", 1.0), ("V", 1e3), ("mmHg", 1.0)])
def test_voltages_become_millivolts_and_other_units_stay(tmp_path, unit, factor):
    x = waves()
    path = write_wfdb(tmp_path / "r.hea", x / factor, units=unit)
    np.testing.assert_allclose(read(path), x, rtol=1e-3, atol=4e-3)
    edf = write_edf(tmp_path / "r.edf", {"a": (1000 * waves()[0], RATE)}, unit=unit)
    np.testing.assert_allclose(read(edf), 1000 * factor * waves()[:1], atol=0.2 * factor)


def test_dicom_gives_the_rhythm_and_not_the_beat():
    files = pytest.importorskip("pydicom.data")
    path = files.get_testdata_file("waveform_ecg.dcm", download=False)
    known = facts(path)
    assert (known["channels"], known["length"], known["rate"]) == (12, 10000, 1000.0)
    assert known["leads"][:4] == ["i", "ii", "iii", "avr"]
    i, ii, iii = read(path, leads=["I", "II", "III"])
    torch.testing.assert_close(ii - i, iii, atol=0.02, rtol=0)  # Einthoven: mV, to the rounding of the recorder
    assert 0.3 < float(ii.abs().max()) < 5


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.csv", "a.parquet", "ä ö.npy"])
def test_arrays_are_read_as_by_the_core(tmp_path, name):
    x = waves().astype(np.float32)
    path = tmp_path / name
    if path.suffix == ".npy":
        np.save(path, x)
    elif path.suffix == ".npz":
        np.savez(path, x=x)
    elif path.suffix == ".csv":
        np.savetxt(path, x.T, delimiter=",", header=",".join(LEADS), comments="")
    else:
        pandas = pytest.importorskip("pandas")
        pandas.DataFrame(x.T, columns=LEADS).to_parquet(path)
    given = {"rate": 250, "layout": "time_first" if path.suffix in (".csv", ".parquet") else None}
    assert facts(path, **given) == {"channels": 3, "length": LENGTH, "rate": 250.0}
    np.testing.assert_allclose(read(path, **given), x, atol=1e-5)
    assert read(path, seconds=2, **given).shape == (3, 500)


def test_a_name_with_other_letters(tmp_path):
    folder = tmp_path / "Ärztin 心"
    folder.mkdir()
    assert read(write_wfdb(folder / "r.hea", waves())).shape == (3, LENGTH)
    assert read(write_edf(folder / "é ü.edf", {"I": (waves()[0], RATE)})).shape == (1, LENGTH)


# ---- leads ----


def test_leads_are_taken_by_name_in_the_order_asked_for(tmp_path):
    x = waves()
    record = write_wfdb(tmp_path / "r.hea", x)
    edf = write_edf(tmp_path / "r.bdf", {f"ECG {lead}": (row, RATE) for lead, row in zip(LEADS, x)})
    for path in (record, edf):
        np.testing.assert_allclose(read(path, leads=["v1", "i"]), x[[2, 0]], atol=5e-3)
        with pytest.raises(DataError, match=r"holds no lead 'aVR'; valid: (ECG )?I, (ECG )?II, (ECG )?V1"):
            facts(path, leads=["aVR"])
    np.save(tmp_path / "r.npy", x)
    with pytest.raises(DataError, match="an array has no names of leads"):
        facts(tmp_path / "r.npy", leads=["I"])


def test_a_name_that_two_signals_have_is_refused(tmp_path):
    path = write_wfdb(tmp_path / "r.hea", waves(), leads=("I", "i", "V1"))
    with pytest.raises(DataError, match="2 signals are called 'I'"):
        facts(path, leads=["I"])


def test_of_signals_of_several_rates_those_of_the_most_common_are_taken(tmp_path):
    x = waves()
    signals = {"I": (x[0], RATE), "Resp": (waves(300, 50)[0], 50), "II": (x[1], RATE)}
    path = write_edf(tmp_path / "r.bdf", signals)
    assert facts(path)["leads"] == ["i", "ii"] and facts(path)["rate"] == RATE
    assert facts(path, leads=["resp"]) == {"channels": 1, "length": 300, "rate": 50.0}
    with pytest.raises(DataError, match="leads of different rates"):
        facts(path, leads=["I", "Resp"])


def test_a_file_with_other_leads_or_another_rate_than_the_others_is_refused(tmp_path):
    reader = Signal()
    reader.expect(reader.facts(write_wfdb(tmp_path / "a.hea", waves())))
    turned = write_wfdb(tmp_path / "b.hea", waves(), leads=("II", "I", "V1"))
    with pytest.raises(ValueError, match="leads ii, i, v1, most files have i, ii, v1"):
        reader.read(turned)
    faster = write_wfdb(tmp_path / "c.hea", waves(), rate=500)
    with pytest.raises(ValueError, match="500 Hz, most files have 250"):
        reader.read(faster)


# ---- rate and window ----


@pytest.mark.parametrize("rate, other", [(250, 500), (500, 250), (360, 500), (1000, 128), (173.61, 100)])
def test_a_rate_is_brought_to_another(tmp_path, rate, other):
    """A slow sine, sampled at one rate, is what it is when sampled at the other; the level makes no step at the ends."""
    length = round(6 * rate)
    path = write_wfdb(tmp_path / "r.hea", 3 + waves(length, rate), rate=rate)
    x = read(path, rate=other)
    assert facts(path, rate=other)["length"] == x.shape[1] and abs(x.shape[1] - 6 * other) <= 1
    assert Signal(rate=other).given() == {"rate": float(other)}
    np.testing.assert_allclose(x[:, 40:-40], (3 + waves(x.shape[1], other))[:, 40:-40], atol=0.05)
    assert np.abs(x - 3).max() < 3.6


def test_a_window_is_a_stretch_of_the_whole_from_a_random_start(tmp_path):
    x = waves()
    for path in (
        write_wfdb(tmp_path / "r.hea", x),
        write_edf(tmp_path / "r.bdf", {lead: (row, RATE) for lead, row in zip(LEADS, x)}),
    ):
        whole, starts = read(path), set()
        for seed in range(8):
            np.random.seed(seed)
            window = read(path, seconds=1.0)
            assert window.shape == (3, 250) and facts(path, seconds=1.0)["length"] == 250
            distance = (whole.unfold(1, 250, 1) - window[:, None]).abs().amax((0, 2))
            assert distance.min() < 1e-5
            starts.add(int(distance.argmin()) % 250)  # the waves repeat every second
            np.random.seed(seed)
            assert torch.equal(read(path, seconds=1.0), window)
        assert len(starts) > 4


def test_a_window_of_another_rate_has_as_many_samples_as_it_says(tmp_path):
    path = write_wfdb(tmp_path / "r.hea", waves())
    for rate in (100, 173.61, 360, 500):
        assert (
            read(path, rate=rate, seconds=2.0).shape
            == (3, round(2 * rate))
            == (3, facts(path, rate=rate, seconds=2.0)["length"])
        )


def test_a_recording_shorter_than_the_window_is_kept_whole(tmp_path):
    path = write_wfdb(tmp_path / "r.hea", waves())
    assert read(path, seconds=60).shape == (3, LENGTH) and facts(path, seconds=60)["length"] == LENGTH


def test_only_the_window_is_decoded(tmp_path, monkeypatch):
    asked = []
    whole = wfdb.rdrecord
    monkeypatch.setattr(wfdb, "rdrecord", lambda *a, **k: asked.append(k) or whole(*a, **k))
    read(write_wfdb(tmp_path / "r.hea", waves()), seconds=1.0)
    assert asked[0]["sampto"] - asked[0]["sampfrom"] == 250


def test_series_scaling_takes_level_and_size_out_of_every_lead(tmp_path):
    x = read(write_wfdb(tmp_path / "r.hea", waves()), scaling="series", seconds=2)
    torch.testing.assert_close(x.mean(1), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std(1, correction=0), torch.ones(3), atol=1e-4, rtol=0)


# ---- gaps ----


def test_gaps_are_refused_or_bridged(tmp_path):
    x = waves()
    x[1, 100:110] = np.nan
    path = write_wfdb(tmp_path / "r.hea", x)
    with pytest.raises(DataError, match=r"r\.hea: 10 of 1500 samples of lead 1 are missing \(NaN\), more than gaps: 0"):
        read(path)
    y = read(path, gaps=0.01)
    assert torch.isfinite(y).all()
    bridge = np.interp(np.arange(99, 111), [99, 110], [float(y[1, 99]), float(y[1, 110])])
    np.testing.assert_allclose(y[1, 99:111], bridge, atol=1e-5)


def test_a_window_avoids_gaps_and_flat_stretches_where_it_can(tmp_path):
    x = waves()
    x[:, 600:700] = np.nan
    x[:, :400] = 0.5
    path = write_wfdb(tmp_path / "r.hea", x)
    for seed in range(10):
        np.random.seed(seed)
        assert torch.isfinite(read(path, seconds=1.0)).all()
    x[:] = np.nan
    x[:, :2] = 0.0, 1.0
    with pytest.raises(DataError, match="are missing"):
        read(write_wfdb(tmp_path / "n.hea", x), seconds=1.0, gaps=0.5)


def test_a_flat_line_is_refused(tmp_path):
    path = write_edf(tmp_path / "r.edf", {"I": (np.zeros(LENGTH), RATE)})
    with pytest.raises(DataError, match="constant"):
        read(path)


# ---- segments ----


def test_segments_are_joined_and_what_they_lack_is_missing(tmp_path):
    x = waves(leads=2)
    write_wfdb(tmp_path / "s0.hea", x[:, :500], leads=LEADS[:2])
    write_wfdb(tmp_path / "s1.hea", x[:, 500:], leads=LEADS[:2])
    write_wfdb(tmp_path / "s2.hea", x[1:, :200], leads=LEADS[1:2], fmt="212")
    joined = tmp_path / "m.hea"
    joined.write_text(f"m/2 2 {RATE} 1500\ns0 500\ns1 1000\n")
    np.testing.assert_allclose(read(joined), x, atol=4e-3)
    joined.write_text(f"m/3 2 {RATE} 1600\ns0 500\n~ 100\ns1 1000\n")
    np.testing.assert_allclose(read(joined, gaps=0.1)[:, 600:], x[:, 500:], atol=4e-3)
    (tmp_path / "l.hea").write_text(f"l 2 {RATE} 0\n~ 0 200/mV 0 0 0 0 0 I\n~ 0 200/mV 0 0 0 0 0 II\n")
    joined.write_text(f"m/4 2 {RATE} 1700\nl 0\ns0 500\ns2 200\ns1 1000\n")
    np.testing.assert_allclose(read(joined, leads=["II"])[0, 500:700], x[1, :200], atol=4e-3)
    with pytest.raises(DataError, match="200 of 1700 samples of lead 0 are missing"):
        read(joined)


@pytest.mark.parametrize(
    "lines, message",
    [
        ("m 500\ns0 500", "is in segments itself"),
        ("s0 500\ns0 400", "has 500 samples, expected 400"),
        ("s0 500\n../s0 500", "expected a file beside it"),
        ("s0 500\nnot-there 500", "no such file"),
        ("~ 500\n~ 500", "every segment is a gap"),
        ("s0 500", "lines that describe them"),
    ],
)
def test_segments_that_do_not_fit_are_refused(tmp_path, lines, message):
    write_wfdb(tmp_path / "s0.hea", waves(500))
    (tmp_path / "m.hea").write_text(f"m/2 3 {RATE}\n{lines}\n")
    with pytest.raises(DataError, match=message):
        read(tmp_path / "m.hea")


# ---- bad files ----


def changed(path: str, old: str, new: str) -> str:
    text = Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new))
    return path


@pytest.mark.parametrize(
    "name", ["../r.dat", "/etc/passwd", "..", "a/b.dat", "C:\\r.dat", "r.d.t", "s3://x/r.dat", "ö.dat"]
)
def test_a_header_leads_nowhere_outside_its_folder(tmp_path, name, monkeypatch):
    inside = tmp_path / "inside"
    inside.mkdir()
    write_wfdb(tmp_path / "r.hea", waves())
    path = write_wfdb(inside / "r.hea", waves())
    changed(path, "r.dat", name)
    opened = []
    monkeypatch.setattr(wfdb, "rdrecord", lambda *a, **k: opened.append(a))
    with pytest.raises(DataError, match=r"r\.hea: its header names .*expected a file beside it"):
        read(path)
    assert not opened


@pytest.mark.parametrize(
    "old, new, message",
    [
        (" 250 1500", " 250 100000000000", "truncated: its signal file r.dat holds 1500 of 100000000000 samples"),
        (" 250 1500", " 0 1500", "a sampling rate of 0 Hz"),
        ("r 3 ", "r 4 ", "4 signals, 3 lines"),
        ("r 3 ", "r 0 ", "0 signals, 3 lines"),
        ("r.dat 16 ", "r.dat 16:999999999 ", "shifted by more than its length"),
        ("r.dat 16 ", "r.dat 16x1000000 ", "truncated"),
        ("r.dat 16 ", "r.dat 16+999999999 ", "truncated"),
        ("r.dat 16 ", "r.dat 7 ", "signals in format 7"),
        ("r.dat 16 ", "r.dat 516 ", "r.hea: "),
        ("r.dat", "gone.dat", "its signal file gone.dat: no such file"),
        (" I\n", " " + "I" * 2000 + "\n", "not a WFDB header"),
    ],
)
def test_a_header_that_claims_what_is_not_there(tmp_path, old, new, message):
    path = changed(write_wfdb(tmp_path / "r.hea", waves()), old, new)
    with pytest.raises(DataError, match=message):
        read(path)


def test_a_header_without_a_length_has_that_of_its_file(tmp_path):
    path = changed(write_wfdb(tmp_path / "r.hea", waves()), " 250 1500", " 250")
    assert facts(path)["length"] == LENGTH
    assert read(path, seconds=1).shape == (3, 250)


def bad_files(folder: Path) -> dict[str, str]:
    """Name -> what is to be said of it."""
    edf = Path(write_edf(folder / "good.edf", {"I": (waves()[0], RATE)})).read_bytes()
    record = Path(write_wfdb(folder / "good.hea", waves())).read_bytes()
    write_wfdb(folder / "cut.hea", waves())
    (folder / "cut.dat").write_bytes((folder / "good.dat").read_bytes()[:-100])
    write_wfdb(folder / "none.hea", waves())
    (folder / "none.dat").write_bytes(b"")
    write_wfdb(folder / "one.hea", np.array([[0.5], [0.1], [0.2]]))
    x = np.zeros((3, 100), dtype=np.float32)
    x[:, 3], x[1, 50] = 1.0, np.nan
    np.save(folder / "nan.npy", x)
    np.save(folder / "one.npy", np.ones((3, 1), dtype=np.float32))
    np.save(folder / "cube.npy", np.random.default_rng(0).normal(size=(2, 3, 100)))
    files = {
        "empty.hea": b"", "empty.edf": b"", "empty.bdf": b"", "text.edf": b"hello " * 500, "text.hea": b"hello\nworld\n",
        "cut.edf": edf[:-60], "long.edf": edf + b"xx", "head.edf": edf[:300], "png.hea": b"\x89PNG\r\n" + bytes(range(256)),
        "binary.hea": struct.pack("<400d", *range(400)), "half.hea": record[: len(record) // 2],
        "claim.edf": edf[:236] + b"99999999" + edf[244:], "minus.edf": edf[:236] + b"-1      " + edf[244:],
        "many.edf": edf[:252] + b"9999" + edf[256:], "x.dat": b"1234", "r.mat": b"MATLAB",
    }  # fmt: skip
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "folder.edf").mkdir()
    (folder / "folder.hea").mkdir()
    return {
        "empty.hea": "empty file", "empty.edf": "empty file", "empty.bdf": "empty file", "text.edf": "not an EDF",
        "text.hea": "text.hea: ", "cut.edf": "truncated: ", "long.edf": "damaged: ", "head.edf": "truncated or damaged",
        "png.hea": "png.hea: ", "binary.hea": "binary.hea: ", "half.hea": "half.hea: ", "claim.edf": "truncated: ", "minus.edf": "'-1'",
        "many.edf": "truncated or damaged", "x.dat": "no reader", "r.mat": "no reader", "cut.hea": "truncated: its signal",
        "none.hea": "its signal file none.dat: empty file", "one.hea": "too short: length 1, expected at least 32",
        "nan.npy": "NaN", "one.npy": "too short|channels of length 1", "cube.npy": "more than two dimensions",
        "gone.hea": "no such file", "gone.edf": "no such file", "folder.edf": "is a directory", "folder.hea": "is a directory",
    }  # fmt: skip


def test_what_is_wrong_with_a_file_is_one_line_that_names_it(tmp_path):
    for name, message in bad_files(tmp_path).items():
        with pytest.raises(DataError, match=message) as error:
            read(tmp_path / name)
        assert name in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 600


def test_a_long_recording_asks_for_a_window(tmp_path):
    path = write_wfdb(tmp_path / "r.hea", waves(leads=1), leads=["I"], fmt="80")
    changed(path, " 250 1500", " 250 400000000")
    with open(tmp_path / "r.dat", "r+b") as file:
        file.truncate(400_000_000)  # sparse: a recording of 18 days
    with pytest.raises(DataError, match=r"too large: 1 leads of 400,000,000 samples; .*give seconds"):
        read(path)
    np.random.seed(3)
    with pytest.raises(DataError, match=r"constant|missing"):  # it is empty almost everywhere
        read(path, seconds=10)


def test_damaged_files_never_give_more_than_an_error_that_names_them(tmp_path):
    """Bytes of headers changed at random: a tensor of finite numbers, or one line."""
    chance = random.Random(0)
    for path in (
        write_wfdb(tmp_path / "r.hea", waves(200)),
        write_edf(tmp_path / "r.edf", {"I": (waves(500)[0], RATE), "Resp": (waves(100, 50)[0], 50)}),
    ):
        good = Path(path).read_bytes()
        for _ in range(60):
            bad = bytearray(good)
            for _ in range(chance.randint(1, 4)):
                bad[chance.randrange(min(len(good), 1024))] = chance.choice(b"0123456789 -+./:xX~\n\xff\x00")
            Path(path).write_bytes(bad)
            try:
                assert torch.isfinite(read(path)).all()
            except DataError as error:
                assert Path(path).name in str(error) and "\n" not in str(error)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"rate": 0}, "rate is in Hz"),
        ({"seconds": -1.0}, "seconds is above 0"),
        ({"gaps": 1.0}, "gaps is a fraction"),
        ({"leads": []}, "leads are different names"),
        ({"leads": ["I", "i"]}, "leads are different names"),
    ],
)
def test_parameters_out_of_range_are_refused(given, message):
    with pytest.raises(ComponentError, match=message):
        Signal(**given)


def test_seconds_of_an_array_need_its_rate(tmp_path):
    np.save(tmp_path / "x.npy", waves())
    with pytest.raises(DataError, match="give rate"):
        facts(tmp_path / "x.npy", seconds=2)


def test_a_rate_out_of_all_proportion_is_refused(tmp_path):
    path = changed(write_wfdb(tmp_path / "r.hea", waves()), " 250 ", " 0.0001 ")
    with pytest.raises(DataError, match="cannot be brought to 500 Hz"):
        read(path, rate=500)
