"""CodeSearchNet and what has its layout: a JSON object a line, with a function and its documentation."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path

from counterpoint.data.files import Files
from counterpoint.data.guard import check_file, fault_of, name_of, raise_all, reading
from counterpoint.errors import DataError
from counterpoint.markers import Reader
from counterpoint_code_search.data.pairs import Seen, pair_dataset
from counterpoint_code_search.readers.functions import (
    LONGEST_CODE,
    Function,
    dedented,
    first_paragraph,
    is_query,
    without_name,
)
from counterpoint_code_search.readers.python_functions import undocumented

WHO = "data 'code_search.codesearchnet'"
LONGEST_LINE = 1 << 24  # characters of a line; a longer one is no function, and memory is finite
SPLITS = {"train": "train", "valid": "valid", "validation": "valid", "dev": "valid", "test": "test"}
_PART = re.compile(r"[a-z]+")


def codesearchnet(
    *,
    path: str,
    languages: list[str] | None = None,
    split: str = "train",
    hide_name: bool = False,
    limit: int | None = None,
    text: Reader | None = None,
    code: Reader | None = None,
) -> Files:
    """The functions of `*.jsonl` and `*.jsonl.gz` files below a folder: documentation ("text") and function ("code").

    path       a folder such as python/final/jsonl/{train,valid,test}/*.jsonl.gz, or with train.jsonl, valid.jsonl, ...;
               the split of a function is its field `partition`, else a folder or word of its file's name
    languages  the values of the field `language` that are kept; None: all
    hide_name  replace each function's own name in its code by `_`; the published scores keep it
    limit      functions taken from each file
    text, code  how both are read; by default byte-level BPEs learnt from the training split

    The query is the first paragraph of `docstring` (else `docstring_tokens`); the code is `code` (else
    `original_string`, `code_tokens`), Python's without its docstring. Functions with a query of fewer than 3 words are
    left out, and those of which an earlier split has the query or the code (test before valid before train). Groups
    "repository" and "language". Raises DataError with every line that is no such object, and for damaged archives.
    Source: Husain et al., "CodeSearchNet challenge", 2019, section 2.
    """
    files = _files(path)
    rows, problems = [], []
    for file, named in files:
        for number, entry in _lines(file, limit, problems):
            try:
                if row := _row(entry, named, languages, hide_name):
                    rows.append(row)
            except ValueError as error:
                problems.append(f"{name_of(file)}:{number}: {error}")
    raise_all(problems)
    seen, ranks = Seen(), {"test": 0, "valid": 1}
    rows = [row for row in sorted(rows, key=lambda row: ranks.get(row[0], 2)) if seen.new(row[2])]
    return pair_dataset(
        [function for _, _, function in rows],
        text=text,
        code=code,
        groups={"repository": [repository for _, repository, _ in rows]},
        splits=[name for name, _, _ in rows],
        split=split,
        where=f"{WHO}: {name_of(path)}",
    )


def _files(path: str) -> list[tuple[Path, str | None]]:
    """The files below a folder (or the file itself), and the split that the path of each names."""
    top = Path(path).expanduser()
    if (fault := fault_of(top)) and not top.is_dir():
        raise DataError(f"{WHO}: path: {name_of(path)}: {fault}")
    found = (
        [top] if top.is_file() else sorted(f for f in top.rglob("*.jsonl*") if f.name.endswith((".jsonl", ".jsonl.gz")))
    )
    if not found:
        raise DataError(f"{WHO}: path: {name_of(path)}: no .jsonl or .jsonl.gz file below it")
    return [(file, _named_split(file.relative_to(top) if file != top else Path(file.name))) for file in found]


def _named_split(path: Path) -> str | None:
    words = [word for part in reversed(path.parts) for word in _PART.findall(part.lower())]
    return next((SPLITS[word] for word in words if word in SPLITS), None)


def _lines(file: Path, limit: int | None, problems: list[str]) -> Iterator[tuple[int, dict]]:
    """(line number from 1, object) of the lines of a file that are not blank; what is wrong goes to `problems`."""
    opened = gzip.open if file.name.endswith(".gz") else open
    try:
        check_file(file)
        with reading(file), opened(file, "rt", encoding="utf-8") as stream:
            taken = number = 0
            while line := stream.readline(LONGEST_LINE):
                number += 1
                if len(line) == LONGEST_LINE:
                    raise ValueError(f"line {number} is longer than {LONGEST_LINE:,} characters")
                if not line.strip():
                    continue
                if taken == limit:
                    return
                taken += 1
                try:
                    entry = json.loads(line)
                except (ValueError, RecursionError) as error:
                    problems.append(f"{name_of(file)}:{number}: not JSON ({type(error).__name__})")
                    continue
                yield number, entry
    except DataError as error:
        problems.append(str(error))


def _row(entry, named: str | None, languages, hide_name: bool) -> tuple[str, str, Function] | None:
    """(split, repository, function) of one object; None when it is not wanted; ValueError that says what it lacks."""
    if not isinstance(entry, dict):
        raise ValueError(f"expected an object with code and docstring; got {type(entry).__name__}")
    language = str(entry.get("language") or "python").lower()
    query, code = (
        _field(entry, "docstring", "docstring_tokens"),
        _field(entry, "code", "original_string", "code_tokens"),
    )
    split = SPLITS.get(str(entry.get("partition", "")).lower()) or named
    if split is None:
        raise ValueError("no split: neither a field `partition` nor train, valid or test in the name of the file")
    query = first_paragraph(query)
    if (languages is not None and language not in languages) or not is_query(query) or len(code) > LONGEST_CODE:
        return None
    name = str(entry.get("func_name") or "").split(".")[-1]
    code = dedented(undocumented(code) if language == "python" else code)
    code = without_name(code, name) if hide_name else code
    return split, str(entry.get("repo") or entry.get("nwo") or ""), Function(query, code, name, language, 0)


def _field(entry: dict, *names: str) -> str:
    """The first of the fields that is there, tokens joined by blanks; ValueError when none is."""
    for name in names:
        value = entry.get(name)
        if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
            return " ".join(value)
        if isinstance(value, str) and value.strip():
            return value
    raise ValueError(f"no text in {' or '.join(names)}")
