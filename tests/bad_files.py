"""Data sets of files of which one is bad, read by the recipe that each pack has for its user's own files."""

import os
import shutil
from pathlib import Path

from counterpoint.fit.assembly import build_dataset
from counterpoint.recipe import load
from formats import FORMATS, Format
from own_files import WORDS, table

SAMPLES, BAD = 12, 7  # samples, and which of them is the bad one
COLUMNS = {
    "ecg": ("file,patient,diagnosis", lambda cell, i: [cell, f"P{i}", WORDS[i % 2]]),
    "medical": ("file,report,patient,diagnosis", lambda cell, i: [cell, f"report {i}", f"P{i}", WORDS[i % 2]]),
    "audio_text": ("file,caption", lambda cell, i: [cell, f"{WORDS[i % 4]}, number {i}"]),
    "video": ("file,person,action", lambda cell, i: [cell, f"P{i}", WORDS[i % 2]]),
    "points3d": ("file,object,class", lambda cell, i: [cell, f"o{i}", WORDS[i % 2]]),
    "code_search": ("query,code,project", None),
}
BYTES = [
    "readers.text={use: text}",
    "readers.report={use: text}",
    "readers.code={use: code_search.code, tokenizer: bytes}",
]


def good_file(one: Format, folder: Path) -> Path:
    path = folder / f"good{one.suffix}"
    return path if path.exists() else one.write(path)


def manifest(one: Format, folder: Path, bad: str, samples: int = SAMPLES, cells: list[str] | None = None) -> Path:
    """A table of `samples` rows, all of the good file but row BAD, which is `bad`; or of these `cells`."""
    good = good_file(one, folder).name
    cells = cells or [bad if i == BAD else good for i in range(samples)]
    header, row = COLUMNS[one.pack]
    if one.pack == "code_search":
        query = one.modality == "text"
        rows = [
            [cell if query else f"query {i}", "x = 1\ny = 2" if query else cell, f"p{i}"]
            for i, cell in enumerate(cells)
        ]
    else:
        rows = [row(cell, i) for i, cell in enumerate(cells)]
    table(folder, "table.csv", header, rows)
    return folder / "table.csv"


def recipe_of(one: Format, path: Path, *overrides: str):
    """The pack's `from_manifest` on a table; every row in train, texts as bytes."""
    there = {"medical": ["report"], "audio_text": ["text"], "code_search": ["text", "code"]}.get(one.pack, [])
    plain = [f"data.{text}" for text in BYTES if text.split("=")[0].removeprefix("readers.") in there]
    own = [f"data.{text}" for text in one.overrides]
    return load(f"{one.pack}/from_manifest", [f"data.path={path}", "data.holdout=0", *plain, *own, *overrides])


def dataset(one: Format, path: Path, *overrides: str):
    return build_dataset(recipe_of(one, path, *overrides))


def text_as(path: Path) -> None:
    path.write_text("Dear diary,\nnothing of note happened today; the cat slept.\n" * 40)


def picture_as(path: Path) -> None:
    """A GIF: no reader of ours takes one."""
    path.write_bytes(b"GIF89a\x10\0\x10\0\x80\0\0\0\0\0\xff\xff\xff," + bytes(range(256)) * 4 + b";")


def cut(good: Path, path: Path) -> None:
    if good.is_dir():
        shutil.copytree(good, path)
        last = sorted(path.iterdir())[-1]
        last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    else:
        shutil.copy(good, path)
        if path.suffix == ".hea":  # the header is good; what it describes is not
            data = path.with_suffix(".dat")
            header = path.read_text().replace(good.stem, path.stem)
            path.write_text(header)
            whole = good.with_suffix(".dat").read_bytes()
            data.write_bytes(whole[: len(whole) // 2])
        else:
            os.truncate(path, path.stat().st_size * 6 // 10)


__all__ = ["BAD", "FORMATS", "SAMPLES", "cut", "dataset", "good_file", "manifest", "picture_as", "recipe_of", "text_as"]
