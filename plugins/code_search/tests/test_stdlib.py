"""The standard library as a data set: whole modules held out, no copy on both sides, the cache."""

import pytest

from counterpoint.data.text import Text
from counterpoint.errors import DataError
from counterpoint_code_search.data import packages
from counterpoint_code_search.data import stdlib as module
from counterpoint_code_search.data.stdlib import stdlib
from counterpoint_code_search.readers.code import Code

WORDS = ("open", "close", "paint", "count", "break", "mend", "turn", "lift", "weigh", "sort", "push", "pull")
SOURCE = '''def {word}_it(x):
    """{word} the thing{letters} now."""
    y = x * {number} + tool_{word}
    return y


'''


class Library:
    """A small standard library and a package, in place of the installed ones."""

    def __init__(self, root):
        self.root = root
        for number in range(12):
            for word in WORDS:
                self.add("lib", f"m{number}", word, number)
        for word in WORDS:
            self.add("lib", "_m3", word, 100)
            self.add("other", "other", word, 200)
        self.add("other", "other", "open", 0)  # a copy of a function of module m0

    def add(self, place, module, word, number):
        path = self.root / place / f"{module}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            letters = chr(ord("a") + number % 16) * (1 + number // 16)
            file.write(SOURCE.format(word=word, letters=letters, number=number))


@pytest.fixture
def library(tmp_path, monkeypatch):
    made = Library(tmp_path)
    monkeypatch.setenv("COUNTERPOINT_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "TEST", 30)
    monkeypatch.setattr(packages.sysconfig, "get_path", lambda name: str(tmp_path / "lib"))
    names = frozenset([f"m{i}" for i in range(12)] + ["_m3", "absent"])
    monkeypatch.setattr(packages.sys, "stdlib_module_names", names)
    monkeypatch.syspath_prepend(str(tmp_path / "other"))
    return made


def plain():
    return {"text": Text(), "code": Code(tokenizer="bytes")}


def modules(data) -> set[int]:
    return set(data.groups["module"].tolist())


def test_modules_are_held_out_whole(library):
    train, test = (stdlib(split=split, **plain()) for split in ("train", "test"))
    assert len(test) == 30 and len(train) >= 60 and train.spec.splits == ("train", "test")
    assert not modules(train) & modules(test)
    ids = {name: number for number, name in enumerate(["_m3", *sorted(f"m{i}" for i in range(12))])}
    assert len({ids["_m3"] in modules(one) for one in (train, test)}) in (1, 2)
    assert (ids["_m3"] in modules(test)) == (ids["m3"] in modules(test))
    three = [stdlib(split=split, valid=20, **plain()) for split in ("train", "valid", "test")]
    assert len(three[1]) == 20 and not modules(three[0]) & modules(three[1]) and three[2].cells == test.cells


def test_packages_join_the_training_split_alone_and_bring_no_copy(library):
    without, with_other = stdlib(**plain()), stdlib(packages=["other", "other"], **plain())
    assert len(with_other) == len(without) + len(WORDS)
    assert stdlib(packages=["other"], split="test", **plain()).cells == stdlib(split="test", **plain()).cells
    assert len(stdlib(packages=["other"], limit=5, **plain())) - len(without) in (4, 5)


def test_what_is_extracted_is_kept_until_the_files_change(library):
    before = len(stdlib(packages=["other"], **plain()))
    (kept,) = library.root.glob("cache/prepared/code_search/other-*")
    library.add("other", "other", "extra", 300)
    assert len(stdlib(packages=["other"], **plain())) == before + 1
    assert len(list(library.root.glob("cache/prepared/code_search/other-*"))) == 2 and kept.exists()


@pytest.mark.parametrize("name", ["not_installed_at_all", "../lib", "os.path", "sys", ""])
def test_a_package_that_is_not_there_is_named(library, name):
    with pytest.raises(DataError, match="is not installed"):
        stdlib(packages=[name], **plain())


def test_numbers_below_their_bounds(library):
    for wrong in ({"limit": 0}, {"valid": -1}):
        with pytest.raises(DataError, match="got"):
            stdlib(**wrong, **plain())


@pytest.mark.slow
def test_the_real_library():
    test = stdlib(split="test", **plain())
    assert len(test) == 1000 and len(set(test.cells["text"])) == 1000
