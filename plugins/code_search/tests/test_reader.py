"""The reader of code: cells and files, and every way a file can be bad."""

import os

import pytest
import torch

from counterpoint.data.guard import reading
from counterpoint.errors import ComponentError, DataError
from counterpoint_code_search.readers.code import Code
from counterpoint_code_search.readers.token_types import TYPES

SOURCE = "def add(a, b):\n    return a + b\n"


def read(cell, **options):
    with reading(cell):
        return Code(tokenizer="bytes", **options).read(str(cell))


def test_a_cell_is_the_code_or_the_name_of_a_file(tmp_path):
    file = tmp_path / "naïve größe.py"
    file.write_text(SOURCE, encoding="utf-8")
    assert torch.equal(read(file), read(SOURCE)) and read(SOURCE).dtype == torch.int64
    assert read("x = open('a.py')\ny = 'b.py'").shape == (27,)
    assert len(read(SOURCE, max_tokens=5)) == 5
    assert Code(tokenizer="bytes").text(str(file)) == SOURCE


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.py", "# -*- coding: latin-1 -*-\nx = 'é'\n".encode("latin-1")),
        ("a.java", "String x = \"é\";\n".encode("latin-1")),
        ("a.go", "\ufeffx := \"é\"\r\n".encode()),
        ("a.py", "# coding: nonsense\nx = 'é'\n".encode()),
    ],
)  # fmt: skip
def test_encodings_of_the_field_are_read(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    text = Code(tokenizer="bytes").text(str(tmp_path / name))
    assert "é" in text and "\r" not in text and "\ufeff" not in text


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("empty.py", b"", "empty file"),
        ("blank.py", b" \n\t\n", "no text"),
        ("binary.py", b"\x00\x01\x02", "null bytes"),
        ("utf16.py", "x = 1".encode("utf-16-le"), "null bytes"),
        ("large.py", b"x" * ((1 << 22) + 1), "too large"),
        ("missing.py", None, "no such file"),
        ("folder.py", "folder", "is a directory"),
    ],
)
def test_a_bad_file_is_named_with_its_fault(tmp_path, name, content, message):
    path = tmp_path / name
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=f"{name}.*{message}") as error:
        read(path)
    assert "\n" not in str(error.value)


def test_one_sign_is_code_and_nothing_is_not():
    assert read("x").shape == (1,)
    with pytest.raises(DataError, match="no text"):
        read("  ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path):
    (tmp_path / "a.py").write_text("x")
    (tmp_path / "a.py").chmod(0)
    with pytest.raises(DataError, match="permission"):
        read(tmp_path / "a.py")


def test_the_facts_say_the_type_of_every_token():
    reader = Code(tokenizer="bpe", vocabulary=300)
    reader.fit([SOURCE] * 10)
    facts = reader.given()
    assert len(facts["token_types"]) == facts["vocabulary"] and len(facts["type_tokens"]) == len(TYPES)
    assert all(facts["token_types"][i] == "0" for i in [*facts["special_tokens"], facts["mask_token"]])
    assert max(facts["type_tokens"]) < facts["vocabulary"]
    assert reader.given()["token_types"] is facts["token_types"]  # computed once
    plain = Code(tokenizer="bytes").given()
    assert len(plain["token_types"]) == plain["vocabulary"] and plain["token_types"][ord("+") + 3] == "3"


def test_mistakes():
    with pytest.raises(ComponentError, match="did you mean 'python'"):
        Code(tokenizer="bytes", language="pyton")
    with pytest.raises(ComponentError, match="max_tokens"):
        Code(tokenizer="bytes", max_tokens=1)
    with pytest.raises(DataError, match="no-such"):
        Code(tokenizer="no-such")
