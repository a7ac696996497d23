"""CodeSearchNet's layouts and a user's folder: honest splits, and every way a file can be bad."""

import gzip
import json

import pytest

from counterpoint.errors import ComponentError, DataError
from counterpoint_code_search.data.codesearchnet import codesearchnet
from counterpoint_code_search.data.folder import folder

WORDS = ("open", "close", "paint", "count", "break", "mend", "turn", "lift", "weigh", "sort", "push", "pull")


def entry(word: str, **fields) -> dict:
    code = f'def {word}_it(x):\n    """{word} the thing now.\n\n    More.\n    """\n    y = x + tool_{word}\n    return {word}_it(y)'
    return {
        "repo": f"r/{word}",
        "func_name": f"A.{word}_it",
        "language": "python",
        "code": code,
        "docstring": f"{word} the thing now.\n\nMore.",
        "partition": "train",
    } | fields


def write(path, entries) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(one) + "\n" for one in entries)


@pytest.fixture
def published(tmp_path):
    """The published folders: python/final/jsonl/<split>/python_<split>_0.jsonl.gz."""
    top = tmp_path / "python" / "final" / "jsonl"
    write(top / "train" / "python_train_0.jsonl.gz", [entry(word) for word in WORDS[:6]])
    write(top / "valid" / "python_valid_0.jsonl.gz", [entry(word, partition="valid") for word in WORDS[6:8]])
    write(top / "test" / "python_test_0.jsonl.gz", [entry(word, partition="test") for word in WORDS[8:]])
    return tmp_path / "python"


def test_the_published_layout(published):
    sets = {split: codesearchnet(path=str(published), split=split) for split in ("train", "valid", "test")}
    assert [len(one) for one in sets.values()] == [6, 2, 4] and set(sets["train"].spec.splits) == set(sets)
    assert sets["train"].cells["text"][0] == "open the thing now."
    code = sets["train"].cells["code"][0]
    assert "the thing" not in code and "open_it" in code and set(sets["train"].groups) == {"repository", "language"}
    sample = sets["test"][0]
    assert (set(sample.inputs) == {"text", "code"} and sample.fields["text"] == "sort the thing now.") or sample.fields[
        "text"
    ]
    hidden = codesearchnet(path=str(published), hide_name=True)
    assert "open_it" not in hidden.cells["code"][0] and "return _(y)" in hidden.cells["code"][0]
    assert len(codesearchnet(path=str(published), limit=3)) == 3


def test_the_flat_layout_names_its_splits_by_file_and_may_hold_tokens(tmp_path):
    bare = [entry(word) for word in WORDS]
    for one in bare:
        del one["partition"], one["repo"]
        one["docstring_tokens"], one["code_tokens"] = one.pop("docstring").split(), one.pop("code").split()
    write(tmp_path / "train.jsonl", bare[:8])
    write(tmp_path / "test.jsonl", bare[8:])
    assert len(codesearchnet(path=str(tmp_path))) == 8 and len(codesearchnet(path=str(tmp_path), split="test")) == 4


def test_what_is_in_the_test_is_not_trained_on(published):
    again = entry("sort", repo="copy")
    same_code = entry("pull", docstring="Something else altogether here.")
    write(published / "train" / "more.jsonl", [again, same_code, entry("fold")])
    train, test = codesearchnet(path=str(published)), codesearchnet(path=str(published), split="test")
    assert len(train) == 7 and len(test) == 4
    assert not set(train.cells["text"]) & set(test.cells["text"])
    assert not {c.split("return")[0] for c in train.cells["code"]} & {c.split("return")[0] for c in test.cells["code"]}


def test_languages_and_short_queries_are_left_out(published):
    write(published / "train" / "java.jsonl", [entry("fold", language="java"), entry("bend", docstring="Bend.")])
    assert len(codesearchnet(path=str(published))) == 7
    assert len(codesearchnet(path=str(published), languages=["java"], split="train")) == 1


@pytest.mark.parametrize(
    "content, message",
    [
        (b"not json\n", r"bad\.jsonl:1: not JSON"),
        (b"\n[1, 2]\n", r"bad\.jsonl:2: expected an object with code and docstring; got list"),
        (b'{"docstring": "a"}\n', r"bad\.jsonl:1: no text in code or original_string or code_tokens"),
        (b'{"code": "a", "docstring": 3}\n', "no text in docstring"),
        (b'{"code": "a", "docstring": "b"}\n', "no split"),
        (b'{"code": "\xff"}\n', "not utf-8 text"),
        (b"[" * 100_000 + b"\n", "not JSON"),
        (b"", "empty file"),
    ],
)
def test_a_bad_line_is_named(tmp_path, content, message):
    (tmp_path / "bad.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=message):
        codesearchnet(path=str(tmp_path))


def test_bad_archives_and_folders_are_named(published, tmp_path):
    whole = next(published.rglob("*train_0.jsonl.gz"))
    whole.write_bytes(whole.read_bytes()[:80])
    with pytest.raises(DataError, match=r"train_0\.jsonl\.gz: truncated or damaged"):
        codesearchnet(path=str(published))
    whole.write_bytes(b"plain text")
    with pytest.raises(DataError, match=r"train_0\.jsonl\.gz"):
        codesearchnet(path=str(published))
    with pytest.raises(DataError, match="nowhere: no such file"):
        codesearchnet(path=str(tmp_path / "nowhere"))
    (tmp_path / "bare").mkdir()
    with pytest.raises(DataError, match=r"no \.jsonl"):
        codesearchnet(path=str(tmp_path / "bare"))


@pytest.fixture
def repository(tmp_path):
    top = tmp_path / "répo"
    for number, word in enumerate(WORDS):
        path = top / ("src" if number % 2 else "lib") / f"{word}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(entry(word)["code"] + "\n", encoding="utf-8")
    for left_out in (".hidden", "node_modules", "venv"):
        (top / left_out).mkdir()
        (top / left_out / "x.py").write_text(entry("hide")["code"])
    (top / "src" / "__init__.py").write_text("")
    (top / "notes.txt").write_text("nothing")
    return top


def test_a_folder_of_source_files(repository):
    train, test = (folder(path=str(repository), split=split, holdout=0.3) for split in ("train", "test"))
    assert len(train) + len(test) == len(WORDS) and len(test) > 0 and train.spec.groups["file"] == len(WORDS)
    assert not set(train.cells["code"]) & set(test.cells["code"])
    assert all("def _(x):" in code and "thing" not in code for code in train.cells["code"])
    sample = train[0]
    assert sample.inputs["code"].ndim == 1 and max(sample.inputs["code"]) < train.spec.modalities["code"]["vocabulary"]


def test_other_languages_beside_python(repository):
    pytest.importorskip("tree_sitter_language_pack")
    (repository / "A.java").write_text(
        "class A {\n/** Folds the thing now. */\nint fold(int a) { int c = a; return c; }\n}"
    )
    assert len(folder(path=str(repository), holdout=0.0)) == len(WORDS) + 1
    assert len(folder(path=str(repository), languages=["java"], holdout=0.0)) == 1


def test_bad_files_are_counted_or_refused(repository):
    bad = {
        "syntax.py": b"def f(:\n",
        "binary.py": b"\0\0",
        "coding.py": b"x = '\xff'\n",
        "deep.py": b"(" * 3000 + b")" * 3000,
        "huge.py": b"#" * ((1 << 20) + 1),
    }
    for name, content in bad.items():
        (repository / name).write_bytes(content)
    with pytest.warns(UserWarning, match=f"5 of {len(WORDS) + 6} files left out"):
        assert len(folder(path=str(repository), languages=["python"], holdout=0.0)) == len(WORDS)
    with pytest.raises(DataError) as error:
        folder(path=str(repository), languages=["python"], strict=True)
    assert all(name in str(error.value) for name in bad) and len(str(error.value).splitlines()) == 5


def test_links_are_not_followed(repository, tmp_path):
    outside = tmp_path / "outside.py"
    outside.write_text(entry("leak")["code"])
    (repository / "link.py").symlink_to(outside)
    (repository / "linked").symlink_to(tmp_path)
    assert not any("leak" in text for text in folder(path=str(repository), holdout=0.0).cells["text"])


def test_folders_without_functions_are_named(tmp_path):
    for path, message in ((tmp_path / "nowhere", "no such file"), (tmp_path, "no documented function")):
        with pytest.raises(DataError, match=message):
            folder(path=str(path))
    (tmp_path / "a.py").write_text("x")
    with pytest.raises(DataError, match="is a file, not a folder"):
        folder(path=str(tmp_path / "a.py"))
    with pytest.raises(ComponentError, match="did you mean 'java'"):
        folder(path=str(tmp_path), languages=["jawa"])
