"""Damaged files of every format: read as finite numbers of a sane size, or refused in one line that names the file."""

import gzip
import io
import json
import os
import random
import shutil
import zlib
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bad_files import BAD, dataset, good_file, manifest
from counterpoint.data.guard import reading
from counterpoint.data.manifest import manifest as build_manifest
from counterpoint.data.numbers import read as read_numbers
from counterpoint.data.numbers import shape_of
from counterpoint.errors import CounterpointError, DataError, RunError
from counterpoint.runs.checkpoints import AtomicCheckpointIO
from faults import ROUNDS
from formats import FORMATS
from mutations import WAYS, damaged
from victim import told_by_child

COUNT = 20 * ROUNDS  # damaged files of a format
SANE = 1 << 26  # values that one of these small files may become


def seeded(number: int) -> None:
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


def verdict(read, start: str) -> str:
    """read: finite tensors of a sane size; refused: in one line that begins with `start`; else what is wrong."""
    try:
        found = read()
    except DataError as error:
        line = str(error)
        sound = line.startswith(start) and "\n" not in line and line.isprintable() and len(line) < 900
        return "refused" if sound else f"WRONG the message {line!r}"
    tensors = [x for x in (found if isinstance(found, list) else [found]) if isinstance(x, torch.Tensor)]
    for x in tensors:
        if x.numel() > SANE or not torch.isfinite(x.float()).all():
            return f"WRONG a tensor of {tuple(x.shape)}, finite: {bool(torch.isfinite(x.float()).all())}"
    return "read"


@pytest.mark.fault("R9")
@pytest.mark.parametrize("name", FORMATS)
def test_damage_gives_numbers_or_a_line_that_names_the_file(name, tmp_path, record_property):
    """In a child with a bound of memory: no crash, no hang, no array that a header made up, no error without a name."""
    one = FORMATS[name]
    good, bad = good_file(one, tmp_path), tmp_path / f"bad{one.suffix}"
    (shutil.copytree if good.is_dir() else shutil.copy)(good, bad)
    victim = bad / "0003.dcm" if good.is_dir() else bad
    content = victim.read_bytes()
    data = dataset(one, manifest(one, tmp_path, bad.name), "data.strict=false")
    reader = data.readers[one.modality]
    data[BAD], reader.facts(str(bad))  # whatever reading imports has been

    def facts():
        with reading(str(bad), BAD):
            reader.facts(str(bad))

    def work(number: int) -> str:
        way, changed = damaged(content, len(WAYS) * (zlib.crc32(name.encode()) % 1000) + number)
        victim.write_bytes(changed)
        seeded(number)
        told = [verdict(ask, f"sample {BAD} {tmp_path}") for ask in (facts, lambda: data.inputs(BAD)[one.modality])]
        wrong = [text for text in told if text.startswith("WRONG")]
        return f"{way}: {wrong[0]}" if wrong else told[-1]

    said = told_by_child(work, COUNT)
    wrong = {number: text for number, text in enumerate(said) if text not in ("read", "refused")}
    assert not wrong, dict(list(wrong.items())[:5])
    assert Counter(said)["refused"], "nothing was refused: the damage did not reach what is read"
    record_property("survived", len(said))
    record_property("read", Counter(said)["read"])  # other numbers than were written, where the format has no checksum


# ---- lines of JSON ----


def jsonl(folder) -> bytes:
    rows = [
        {"code": f"def f{i}(x):\n    y = x + {i}\n    return y\n", "docstring": f"Adds the number {i} to it", "partition": "train"}
        for i in range(6)
    ]  # fmt: skip
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.mark.fault("R9")
@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_damaged_lines_of_json_are_named(suffix, tmp_path, record_property):
    from counterpoint.data.text import Text
    from counterpoint_code_search.data.codesearchnet import codesearchnet
    from counterpoint_code_search.readers.code import Code

    whole = jsonl(tmp_path)
    content = gzip.compress(whole, mtime=0) if suffix.endswith("gz") else whole
    path = tmp_path / f"train{suffix}"

    def work(number: int) -> str:
        path.write_bytes(damaged(content, number)[1])
        try:
            data = codesearchnet(
                path=str(tmp_path), text=Text(tokenizer="bpe", vocabulary=300), code=Code(tokenizer="bytes")
            )
            [data[i] for i in range(len(data))]
        except DataError as error:
            lines = str(error).splitlines()
            return "refused" if all(str(tmp_path) in line and len(line) < 900 for line in lines) else f"WRONG {lines}"
        return "read"

    said = told_by_child(work, COUNT)
    assert set(said) <= {"read", "refused"}, [text for text in said if text not in ("read", "refused")][:3]
    record_property("survived", len(said))


# ---- a checkpoint ----


def checkpoint() -> dict:
    made = torch.Generator().manual_seed(0)
    weights = {f"layer.{i}.weight": torch.randn(3, 4 + i, generator=made) for i in range(3)}
    return {"state_dict": weights, "global_step": 7, "loops": {"done": [1, 2]}, "lr_schedulers": [{"last_lr": [0.5]}]}


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@pytest.mark.fault("R6")
def test_a_damaged_checkpoint_is_refused_or_is_what_was_written(tmp_path, record_property):
    """Damage to what the format does not use (dates, padding) is harmless; anything else must be found."""
    stream = io.BytesIO()
    torch.save(checkpoint(), stream)
    content, path, loader = stream.getvalue(), tmp_path / "step-00000007.ckpt", AtomicCheckpointIO()

    def work(number: int) -> str:
        path.write_bytes(damaged(content, number)[1])
        try:
            found = loader.load_checkpoint(path)
        except RunError as error:
            return "refused" if str(error).startswith(str(path)) else f"WRONG the message {error}"
        return "read" if same(found, checkpoint()) else "WRONG other content, without a word"

    said = told_by_child(work, 10 * COUNT)
    wrong = {number: text for number, text in enumerate(said) if text not in ("read", "refused")}
    assert not wrong, dict(list(wrong.items())[:5])
    record_property("survived", len(said))


# ---- tables and headers by their grammar ----

few = settings(
    max_examples=40 * ROUNDS, derandomize=True, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
cells = st.one_of(
    st.text(max_size=8), st.integers().map(str), st.floats().map(str),
    st.sampled_from(["", "e.npy", "../e.npy", "nan", "inf", "1e999", '"', "a\nb", "\0", "~", "#", "-1", "9" * 400]),
)  # fmt: skip
rows = st.lists(st.lists(cells, max_size=4), max_size=6)


@pytest.mark.fault("R9")
@few
@given(
    rows=rows,
    header=st.lists(cells | st.sampled_from(["file", "label", "split"]), max_size=4),
    mark=st.sampled_from(",;\t|"),
)
def test_any_table_is_read_or_refused_in_lines(tmp_path, record_property, rows, header, mark):
    """As a manifest with files, labels and groups, and as numbers."""
    path = tmp_path / "t.csv"
    path.write_text("\n".join(mark.join(row) for row in [header, *rows]), encoding="utf-8", errors="surrogatepass")
    for read in (
        lambda: build_manifest(path=str(path), inputs={"x": "file"}, labels=["label"], groups=["file"], strict=False),
        lambda: build_manifest(path=str(path)),
        lambda: torch.from_numpy(np.nan_to_num(read_numbers(path).astype(np.float32), posinf=0, neginf=0)),
    ):
        try:
            read()
        except DataError as error:
            lines = str(error).splitlines()
            assert lines and all(str(path) in line or str(tmp_path) in line for line in lines), lines
            assert all(line.isprintable() for line in lines), lines
    record_property("survived", few.max_examples)


@pytest.mark.fault("R9")
@few
@given(
    descr=st.sampled_from(
        ["<f4", "<f8", "|O", "<U3", "|V9", "<M8[s]", ">i8", "<c16", [("a", "<f4")], "nonsense", 3, None]
    ),
    shape=st.one_of(st.lists(st.integers(-2, 2**64), max_size=5).map(tuple), st.none(), st.text(max_size=3)),
    order=st.one_of(st.booleans(), st.integers()),
    extra=st.dictionaries(st.text(max_size=3), st.integers(), max_size=1),
)
def test_any_header_of_an_array_is_read_or_refused(tmp_path, record_property, descr, shape, order, extra):
    text = repr({"descr": descr, "fortran_order": order, "shape": shape, **extra}).encode("latin-1", "replace")
    path = tmp_path / "x.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(64))
    for ask in (read_numbers, shape_of):
        try:
            ask(path)
        except DataError as error:
            assert str(error).startswith(str(path)) and str(error).isprintable()
    record_property("survived", few.max_examples)


# ---- that the child itself tells what happens ----


def test_a_crash_a_hang_and_a_flood_in_the_child_are_told():
    import signal
    import time

    with pytest.raises(AssertionError, match=f"ended with status {int(signal.SIGSEGV)} at number 2"):
        told_by_child(lambda i: os.kill(os.getpid(), signal.SIGSEGV) if i == 2 else "fine", 5)
    with pytest.raises(AssertionError, match="hung at number 1"):
        told_by_child(lambda i: time.sleep(60) if i else "fine", 5, seconds=1)
    (said,) = told_by_child(lambda i: str(len(bytearray(3 << 30))), 1)
    assert said.startswith("BARE MemoryError")
    (said,) = told_by_child(lambda i: {}["x"], 1)
    assert said.startswith("BARE KeyError")
    assert issubclass(DataError, CounterpointError)
