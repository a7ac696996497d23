"""Any text, any structure, any override: a Recipe, or a RecipeError of lines that say where; nothing run, nothing written."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from counterpoint.errors import CounterpointError, RecipeError
from counterpoint.recipe import Recipe, load
from counterpoint.recipe import yaml as recipe_yaml
from faults import ROUNDS
from test_recipe import FULL, SMALL, Registry, bare_defaults  # noqa: F401  a fixture for every test here

pytestmark = pytest.mark.fault("R13")
few = settings(
    max_examples=40 * ROUNDS, derandomize=True, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip

letters = st.text(st.characters(), max_size=12)
signs = st.sampled_from([*"[]{}:,-?!&*#|>'\"%@`\t\n \\<=~.", "- ", ": ", "!!python/name:os.system ", "&a ", "*a", "---\n", "...", "\x1b[31m", "\x00", "\ufeff", "\u202e", "\u2028", "1e-3", "no", ".nan", "0x", "9" * 30])  # fmt: skip
words = st.sampled_from(["data", "encoders", "ecg", "use", "x.table", "x.conv", "objective", "x.info_nce", "views", "stages", "name", "trainer", "max_epochs", "loader", "batch", "heads", "weights", "loss", "evaluate", "seed", "../../etc", "/etc/passwd", "$(touch pwned)", "steps", "x.chain", "tune", "train", "lora", "optimizer", "lr"])  # fmt: skip
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), letters, words)
trees = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words | letters, inner, max_size=4), max_leaves=25)  # fmt: skip
texts = st.lists(letters | signs | words, max_size=30).map("".join)


def attempt(folder: Path, content: bytes, overrides=()) -> Recipe | None:
    """The recipe, or None after a report as it should be; the folder holds nothing but the file afterwards."""
    path = folder / "r.yaml"
    path.write_bytes(content)
    attempts[0] += 1
    try:
        return load(path, overrides, Registry())
    except RecipeError as error:
        for line in error.problems:
            assert line.isprintable() and line.encode() and len(line) < 1000, repr(line)
            assert line.startswith((str(path), "command line")), repr(line)
        return None
    finally:
        attempts[1]("survived", attempts[0])
        assert [p.name for p in folder.iterdir()] == ["r.yaml"] and os.getcwd() == str(folder)


attempts = [0]  # of the test that runs, and who is told


@pytest.fixture
def folder(tmp_path, monkeypatch, record_property):
    monkeypatch.chdir(tmp_path)
    attempts[:] = [0, record_property]
    return tmp_path


@few
@given(text=texts, binary=st.binary(max_size=40), place=st.integers(0, len(FULL)))
def test_any_text_in_any_place(folder, text, binary, place):
    attempt(folder, text.encode("utf-8", "surrogatepass"))
    attempt(folder, (FULL[:place] + text + FULL[place:]).encode("utf-8", "surrogatepass"))
    attempt(folder, FULL[:place].encode() + binary)


@few
@given(tree=trees, key=words | letters)
def test_any_structure(folder, tree, key):
    """Beside a good recipe, in place of each of its sections, and alone; what is a recipe survives the way back."""
    whole = recipe_yaml.parse(SMALL, "s").plain()
    for plain in (tree, {**whole, key: tree}, *({**whole, name: tree} for name in whole)):
        try:
            text = recipe_yaml.dump(plain)
        except UnicodeEncodeError:
            continue
        if (recipe := attempt(folder, text.encode("utf-8", "surrogatepass"))) is not None:
            assert attempt(folder, recipe.as_yaml().encode()) == recipe


@few
@given(
    path=st.lists(words | letters | st.integers(-1, 10**6).map(lambda i: f"[{i}]"), min_size=1, max_size=5), value=texts
)
def test_any_override(folder, path, value):
    key = ".".join(path).replace(".[", "[")
    attempt(folder, SMALL.encode(), [f"{key}={value}"])
    attempt(folder, FULL.encode(), [key, f"views.ecg{key}={value}", value])


@pytest.mark.parametrize("override", [f"views[{'9' * 5000}]=1", "seed=" + "9" * 5000, "a" * 100_000 + "=1", "name=\udce9", "\x1b[31m=1", "seed=\x00", "=" * 1000, "[0]=1", "views.ecg[٣]=1", "trainer.max_epochs=1e400", "loader.batch=.nan", "data=" + "[" * 1000])  # fmt: skip
def test_a_hostile_override_is_refused_in_a_line(folder, override):
    assert attempt(folder, SMALL.encode(), [override]) is None


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "cp1252"])
def test_another_encoding_is_named(folder, encoding):
    assert attempt(folder, (SMALL + "name: größe").encode(encoding)) is None


def test_a_byte_order_mark_is_none_of_the_text(folder):
    assert attempt(folder, b"\xef\xbb\xbf" + SMALL.encode()) is not None


def test_what_is_no_file_is_named(folder):
    os.mkfifo("pipe.yaml")
    Path("folder.yaml").mkdir()
    Path("loop.yaml").symlink_to("loop.yaml")
    for name in ("pipe.yaml", "folder.yaml", "loop.yaml", "/dev/zero", "a\0b.yaml", "x" * 5000 + ".yaml", "\udce9.yaml", "\x1b[31m.yaml", "", ".", "../../etc/passwd"):  # fmt: skip
        with pytest.raises(CounterpointError) as caught:
            load(name, (), Registry())
        assert str(caught.value).isprintable() and len(str(caught.value)) < 1000, name


@pytest.mark.parametrize("name", ["../../evil", "/evil", "a/b", "..", "", "a\nb", "\x1b[31m", "a b", "x" * 300, "a.b"])
def test_a_modality_is_a_name_that_a_file_can_have(folder, name):
    """It names files in the run folder: a tokenizer, figures."""
    text = recipe_yaml.dump({"data": {"use": "x.table"}, "encoders": {name: "x.conv"}, "objective": "x.info_nce"})
    assert attempt(folder, text.encode()) is None
