"""Checkpoints and weights that were damaged, exchanged or made to do harm: rows R5, R6 and R7 of the table."""

import io
import json
import os
import pickle
import shutil
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from counterpoint.errors import CounterpointError, RunError
from counterpoint.runs import sealed
from counterpoint.runs.checkpoints import PARTS, AtomicCheckpointIO, drop_old, newest, size_of
from counterpoint.runs.run import Run
from counterpoint.towers.storing import read_tensors, save_towers, stored_checksum
from faults import ROUNDS
from injections import disk_full_after
from test_fit import same

MINE = {"name": "pairs-1", "created": "2026-01-01", "stage": "train"}


def content(seed=0):
    tensors = {"weight": torch.randn(40, 50, generator=torch.Generator().manual_seed(seed)), "steps": torch.arange(7)}
    return dict.fromkeys(PARTS, 0) | {
        "state_dict": tensors,
        "optimizer_states": [{"state": {0: tensors["weight"] * 2}}],
    }


@pytest.fixture
def folder(tmp_path):
    """Three checkpoints, of steps 20, 25 and 30."""
    for step in (20, 25, 30):
        AtomicCheckpointIO(MINE).save_checkpoint(content(step), tmp_path / f"checkpoints/step-{step:08d}.ckpt")
    return tmp_path / "checkpoints"


def loaded(path):
    return AtomicCheckpointIO(MINE).load_checkpoint(path)


def test_what_is_saved_is_read_again_and_by_torch_alone(folder):
    path = folder / "step-00000030.ckpt"
    for found in (loaded(path), torch.load(path, weights_only=True)):
        assert not same(content(30), found)
    assert sealed.verify(path) == MINE
    assert zipfile.ZipFile(path).testzip() is None


# --- R6 --------------------------------------------------------------------------------------------------------------


@pytest.mark.fault("R6")
def test_a_flipped_bit_anywhere_is_found_and_the_file_named(folder, record_property):
    """Headers, directory, padding and the seal itself included, which CRCs of records do not cover."""
    path, draw = folder / "step-00000030.ckpt", np.random.default_rng(6)
    whole = path.read_bytes()
    ends = [*range(80), *range(len(whole) - 700, len(whole))]
    places = {*ends, *draw.integers(0, len(whole), 300 * ROUNDS).tolist()}
    for number, place in enumerate(sorted(places), 1):
        data = bytearray(whole)
        data[place] ^= 1 << int(draw.integers(8))
        path.write_bytes(data)
        with pytest.raises(RunError, match=r"step-00000030\.ckpt (is damaged|is no checkpoint)"):
            loaded(path)
        record_property("survived", number)
    data = bytearray(whole)
    data[whole.find(content(30)["state_dict"]["weight"].numpy().tobytes()) + 9] ^= 4
    path.write_bytes(data)
    with pytest.raises(RunError, match=r"is damaged \(crc of data/\d\)"):
        loaded(path)


@pytest.mark.fault("R6")
def test_a_truncated_or_longer_file_is_found(folder, record_property):
    path, draw = folder / "step-00000030.ckpt", np.random.default_rng(7)
    whole = path.read_bytes()
    lengths = {0, 1, 3, 4, 21, 22, 23, *(len(whole) - k for k in range(1, 120))}
    lengths |= {*draw.integers(0, len(whole), 100 * ROUNDS).tolist()}
    others = [whole[:length] for length in sorted(lengths)] + [
        whole + b"\0",
        whole + whole,
        whole[1:],
        whole[:-64] + 64 * b"0",
    ]
    for number, data in enumerate(others, 1):
        path.write_bytes(data)
        with pytest.raises(RunError, match=r"step-00000030\.ckpt (is damaged|is no checkpoint)"):
            loaded(path)
        record_property("survived", number)


@pytest.mark.fault("R6")
def test_another_file_is_passed_over_and_the_newest_good_one_used(folder, tmp_path):
    path = folder / "step-00000030.ckpt"
    others = {
        "is no checkpoint": b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(5000),
        "is damaged (empty)": b"",
        "is damaged (incomplete)": _zip({"a/data.pkl": b"..."}),
    }
    save_file({"x": torch.ones(3)}, tmp_path / "x.safetensors")
    for said, data in [*others.items(), ("is no checkpoint", (tmp_path / "x.safetensors").read_bytes())]:
        path.write_bytes(data)
        told = []
        assert newest(folder, told.append, MINE).name == "step-00000025.ckpt"
        (line,) = told
        assert line.startswith(f"ignored {path} ") and said in line and line.endswith("; using step-00000025.ckpt")
    path.unlink()
    path.mkdir()
    told = []
    assert newest(folder, told.append, MINE).name == "step-00000025.ckpt" and "Is a directory" in told[0]


@pytest.mark.fault("R6")
@pytest.mark.parametrize("fact,value", [("name", "other-1"), ("created", "2025-12-24"), ("stage", "second")])
def test_a_checkpoint_of_another_run_is_named_as_one(folder, fact, value):
    path = folder / "step-00000040.ckpt"
    AtomicCheckpointIO(MINE | {fact: value}).save_checkpoint(content(), path)
    with pytest.raises(RunError, match=rf"is of another run \({fact} {value}, not {MINE[fact]}\)"):
        loaded(path)
    assert newest(folder, belongs=MINE).name == "step-00000030.ckpt"


@pytest.mark.fault("R6")
def test_damaged_ones_never_push_good_ones_out(folder):
    """After a resume from step 20, with 25 and 30 damaged: they go, and two good ones stay."""
    for step in (25, 30):
        (folder / f"step-{step:08d}.ckpt").write_bytes(b"PK\3\4 damaged")
    AtomicCheckpointIO(MINE).save_checkpoint(content(), folder / "step-00000022.ckpt")
    drop_old(folder, 22)
    assert [p.stem for p in sorted(folder.iterdir())] == ["step-00000020", "step-00000022"]


@pytest.mark.fault("R6")
def test_damaged_weights_never_load_as_others(tmp_path, record_property):
    path, draw = tmp_path / "encoder.safetensors", np.random.default_rng(8)
    save_towers({"signal": torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.BatchNorm1d(8))}, path)
    whole, right = path.read_bytes(), read_tensors(path)
    header = int.from_bytes(whole[:8], "little") + 8
    changed = [(place, 1 << bit) for place in range(header) for bit in range(8)][:: max(1, 8 // ROUNDS)]
    changed += [(int(place), 1 << int(draw.integers(8))) for place in draw.integers(header, len(whole), 100 * ROUNDS)]
    for number, (place, flip) in enumerate(changed, 1):
        data = bytearray(whole)
        data[place] ^= flip
        path.write_bytes(data)
        try:
            found = read_tensors(path)
        except RunError as error:
            assert "encoder.safetensors is damaged" in str(error) and len(str(error).splitlines()) == 1
        else:
            assert not same(right, found) and all(right[n].dtype == t.dtype for n, t in found.items())
        record_property("survived", number)
    for data in (b"", whole[:100], whole[:-1], b"\xff\xd8\xff" + bytes(99), b"\xff" * 8 + whole):
        path.write_bytes(data)
        for read in (read_tensors, stored_checksum):
            with pytest.raises(RunError, match="is damaged"):
                read(path) if read is read_tensors else (read(path), read_tensors(path))


# --- R7 --------------------------------------------------------------------------------------------------------------


class Gadget:
    def __init__(self, mark, call=os.system):
        self.mark, self.call = mark, call

    def __reduce__(self):
        return self.call, (f"touch {self.mark}",)


def _zip(entries, **options):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return file.getvalue()


def resealed(data: bytes, facts=MINE) -> bytes:
    """The archive with a seal that holds: what an attacker can make as well as anyone."""
    file = io.BytesIO()
    sealing = sealed._Sealing(file)
    sealing.write(data)
    sealing.close(facts)
    return file.getvalue()


@pytest.mark.fault("R7")
@pytest.mark.parametrize("call,named", [(os.system, "posix.system"), (eval, "eval"), (shutil.rmtree, "shutil.rmtree"), (torch.load, "torch.serialization.load")])  # fmt: skip
def test_a_gadget_in_any_section_is_refused_and_named(folder, tmp_path, call, named):
    for section in (*PARTS, "callbacks", "meter"):
        path = folder / "step-00000031.ckpt"
        gadget = Gadget(tmp_path / "ran", call)
        checkpoint = content() | {section: {"x": [gadget]} if section != "epoch" else gadget}
        AtomicCheckpointIO(MINE).save_checkpoint(checkpoint, path)
        with pytest.raises(RunError, match=rf"step-00000031\.ckpt: refused: it needs {named}; checkpoints are data"):
            loaded(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.fault("R7")
def test_archives_that_torch_does_not_write_are_refused(folder, tmp_path):
    path, zeros = folder / "step-00000031.ckpt", bytes(1 << 26)
    good = {"a/data.pkl": pickle.dumps({}), "a/version": b"3\n"}
    refused = {
        "would be larger when it is read": _zip(good | {"a/data/0": zeros}, compression=zipfile.ZIP_DEFLATED),
        r"'/etc/passwd' is no name": _zip(good | {"/etc/passwd": b"x"}),
        r"'a/../../x' is no name": _zip(good | {"a/../../x": b"x"}),
        r"'a\\\\..\\\\x' is no name": _zip(good | {"a\\..\\x": b"x"}),
    }
    for said, data in refused.items():
        path.write_bytes(resealed(data))
        with pytest.raises(RunError, match=f"refused: .*{said}"):
            loaded(path)
    overlapping = _overlapping()
    path.write_bytes(resealed(overlapping))
    with pytest.raises(RunError, match="would be larger when it is read"):
        loaded(path)


def _overlapping() -> bytes:
    """One record of a megabyte, listed a thousand times in the directory."""
    data = _zip({"a/data/0": bytes(1 << 20)})
    start = data.index(b"PK\1\2")
    entry, end = data[start : data.index(b"PK\5\6")], bytearray(data[-22:])
    end[8:12] = 2 * (1000).to_bytes(2, "little")
    end[12:16] = (1000 * len(entry)).to_bytes(4, "little")
    return data[:start] + 1000 * entry + bytes(end)


@pytest.mark.fault("R7")
def test_data_of_another_shape_are_refused(folder):
    path = folder / "step-00000031.ckpt"
    for other in ([1, 2], {"a": 1}, {name: 0 for name in PARTS[1:]}):
        with path.open("wb") as file:
            sealed.save(other, file, MINE)
        with pytest.raises(RunError, match="refused: it is not what training writes"):
            loaded(path)
    with path.open("wb") as file:
        sealed.save(_Large(), file, MINE)
    with pytest.raises(RunError, match="refused"):
        loaded(path)


class _Large:
    """Asks for a tebibyte, with what weights_only lets pass."""

    def __reduce__(self):
        return bytearray, (1 << 55,)


@pytest.mark.fault("R7")
@pytest.mark.parametrize("name", ["http://example.invalid/run", "https://example.invalid/a.ckpt", "s3://bucket/run", "../../etc"])  # fmt: skip
def test_a_run_is_a_folder_and_never_an_address(name, tmp_path, monkeypatch):
    import socket

    monkeypatch.setattr(socket, "create_connection", lambda *a, **k: pytest.fail("it looked for a network"))
    with pytest.raises(RunError, match="no run there"):
        Run.open(name, tmp_path)
    import counterpoint

    with pytest.raises(CounterpointError, match="no run there"):
        counterpoint.load(name)


@pytest.mark.fault("R7")
def test_nothing_unpickles_but_the_one_reader_of_checkpoints():
    """Whatever else loads weights reads safetensors; tests/test_checkpoint_files.py tries that one."""
    import counterpoint

    root = os.path.dirname(os.path.dirname(os.path.dirname(counterpoint.__file__)))
    places = [os.path.join(root, "core/counterpoint"), *(os.path.join(root, "plugins", p) for p in os.listdir(os.path.join(root, "plugins")))]  # fmt: skip
    found = set()
    for top in places:
        for folder, _, names in os.walk(top):
            for name in (n for n in names if n.endswith(".py") and f"{os.sep}tests" not in folder):
                with open(os.path.join(folder, name), encoding="utf-8") as file:
                    text = file.read()
                for call in (
                    "torch.load(",
                    "pickle.load",
                    "joblib.load",
                    "load_state_dict_from_url",
                    "allow_pickle=True",
                ):
                    found |= {(name, call)} if call in text else set()
    assert found == {
        ("checkpoints.py", "torch.load("),
        ("datasets.py", "pickle.load"),
    }  # the latter of what it has pickled


# --- R5 --------------------------------------------------------------------------------------------------------------


def test_the_size_of_a_checkpoint_counts_a_storage_once():
    x = torch.zeros(1000)
    assert size_of({"a": x, "b": [x[:10], (x, 3)], "c": torch.zeros(5)}) == 4000 + 20


@pytest.mark.fault("R5")
def test_room_is_asked_for_before_anything_is_written(folder, monkeypatch):
    large = content() | {"state_dict": {"weight": torch.zeros(1).expand(1)}, "more": torch.empty(30_000_000)}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=40_000_000))
    with pytest.raises(RunError, match=rf"checkpoint needs 120 MB, 40 MB free in {folder}; those before it are kept"):
        AtomicCheckpointIO(MINE).save_checkpoint(large, folder / "step-00000031.ckpt")
    assert newest(folder, belongs=MINE).name == "step-00000030.ckpt" and len(list(folder.iterdir())) == 3


@pytest.mark.fault("R5")
def test_a_disk_that_fills_up_at_any_byte_leaves_the_last_good_one(tmp_path, monkeypatch, record_property):
    import builtins

    monkeypatch.chdir(tmp_path)
    path = tmp_path / "runs/a-1/checkpoints/step-00000001.ckpt"
    AtomicCheckpointIO(MINE).save_checkpoint(content(), path)
    size, draw = path.stat().st_size, np.random.default_rng(9)
    monkeypatch.setattr(io, "open", io.open)  # put back at the end
    monkeypatch.setattr(builtins, "open", open)
    plain = io.open
    for number, room in enumerate([0, 1, size - 1, *draw.integers(0, size, 10 * ROUNDS).tolist()], 1):
        io.open = plain
        disk_full_after(".ckpt", room)
        with pytest.raises(
            RunError, match=r"cannot write .*step-00000001\.ckpt: No space left on device; .* are free there"
        ):
            AtomicCheckpointIO(MINE).save_checkpoint(content(1), path)
        io.open = builtins.open = plain
        assert not same(content(), loaded(path)) and len(list(path.parent.iterdir())) == 1
        record_property("survived", number)


@pytest.mark.fault("R5")
def test_places_that_cannot_be_written_are_named(tmp_path):
    """A file in the place of a folder stops the superuser, too."""
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot write .*step-1\.ckpt: (File exists|Not a directory)"):
        AtomicCheckpointIO(MINE).save_checkpoint(content(), tmp_path / "file/step-1.ckpt")
    with pytest.raises(RunError, match=r"cannot write the run folder in .*file: "):
        Run.create("a", tmp_path / "file")
    with pytest.raises(RunError, match=r"cannot write the run folder in /proc/runs: "):
        Run.create("a", type(tmp_path)("/proc/runs"))
    with pytest.raises(RunError, match=r"cannot write .*run\.json: Not a directory"):
        Run(tmp_path / "file").write("run.json", "{}")
    with pytest.raises(RunError, match=r"cannot write .*encoder\.safetensors: No such file or directory"):
        save_towers({"a": torch.nn.Linear(1, 1)}, tmp_path / "nowhere/encoder.safetensors")


def test_a_row_that_was_cut_off_is_dropped_even_where_it_looks_whole(tmp_path):
    from counterpoint.runs.run import MetricsFile

    file = MetricsFile(tmp_path / "metrics.csv")
    for step in (1, 2, 3):
        file.append(step, 0, {"loss": step + 0.125})
    text = file.path.read_bytes()
    for length in range(len(text)):
        file.path.write_bytes(text[:length])
        file.cut(3)
        rows = file.path.read_text().splitlines()
        assert rows == text.decode().splitlines()[: max(1, len(rows))]
    assert json.dumps(rows[-1]) == '"2,0,loss,2.125"'
