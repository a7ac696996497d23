"""Code search over the Python standard library: real functions that are wherever Python is."""

from __future__ import annotations

from typing import Literal, NamedTuple

from counterpoint.data.files import Files
from counterpoint.data.sources import MINILM
from counterpoint.data.text import Text
from counterpoint.errors import DataError
from counterpoint.markers import Reader
from counterpoint.randomness import key
from counterpoint_code_search.data.packages import STDLIB, package_functions
from counterpoint_code_search.data.pairs import Seen, pair_dataset, unique
from counterpoint_code_search.readers.code import Code
from counterpoint_code_search.readers.functions import Function

WHERE = "data 'code_search.stdlib'"
TEST = 1000  # pairs of the test: as many candidates has each query


def stdlib(
    *,
    packages: list[str] | None = None,
    limit: int | None = None,
    valid: int = 0,
    split: Literal["train", "valid", "test"] = "train",
    text: Reader | None = None,
    code: Reader | None = None,
) -> Files:
    """First paragraph of a docstring (modality "text") and the function without it and without its name ("code").

    packages  more top-level packages to train on, beside the standard library: never in valid or test; they must be
              installed, and are read, not imported
    limit     most functions of each such package, chosen by hash; None: all
    valid     pairs of a third split to choose parameters by, of whole modules that are then not in train
    text, code  how both are read; by default with the tokenizer of `sentence_encoder`, 64 and 128 tokens

    Modules of the standard library, in the order of a hash, are held out whole until the test has 1,000 pairs (what is
    over is left out); `_x` and `_pyx` count as `x`. Of the pairs that share a query or their code one is kept: that of
    the test, of valid, of train, in this order. Groups "module" and "language". Source files are parsed, nothing is run.
    Raises DataError for a package that is not installed, and for numbers below their bounds. The test depends on the
    version of Python.
    """
    if (limit is not None and limit < 1) or valid < 0:
        raise DataError(f"{WHERE}: limit is at least 1 or null, valid at least 0; got {limit} and {valid}")
    seen, splits = Seen(), {"test": TEST} | ({"valid": valid} if valid else {})
    rows = _held_out(package_functions(STDLIB), splits, seen)
    for package in [name for name in dict.fromkeys(packages or []) if name != STDLIB]:
        found = [Row("train", package, f) for functions in package_functions(package).values() for f in functions]
        rows += [row for row in _few(found, limit) if seen.new(row.function)]
    return pair_dataset(
        [row.function for row in rows],
        text=text or Text(tokenizer="minilm", max_tokens=64),
        code=code or Code(tokenizer="minilm", max_tokens=128),
        groups={"module": [row.module for row in rows]},
        splits=[row.split for row in rows],
        split=split,
        where=WHERE,
    )


stdlib.sources = (MINILM,)


class Row(NamedTuple):
    """One pair, the module that it is from, and the split that it is in."""

    split: str
    module: str
    function: Function


def _held_out(modules: dict[str, list[Function]], splits: dict[str, int], seen: Seen) -> list[Row]:
    """The pairs of whole modules for each of `splits`, cut to its number, and those of all other modules for train."""
    left = sorted(modules, key=lambda name: (key("code_search.stdlib", _family(name)), name))
    rows: list[Row] = []
    for split, count in splits.items():
        found: list[Row] = []
        last = None
        while left and (len(found) < count or _family(left[0]) == last):
            last, module = _family(left[0]), left.pop(0)
            found += [Row(split, module, f) for f in unique(modules[module], seen)]
        rows += _few(found, count)
    return rows + [Row("train", module, f) for module in left for f in unique(modules[module], seen)]


def _family(module: str) -> str:
    """`_pydecimal` and `_decimal` are `decimal`: an implementation and its front are held out together."""
    return module.removeprefix("_py") if module.startswith("_py") else module.lstrip("_")


def _few(rows: list[Row], count: int | None) -> list[Row]:
    """At most `count` of the rows, chosen by a hash of their code, in their order."""
    if count is None or len(rows) <= count:
        return rows
    ranked = sorted(range(len(rows)), key=lambda i: (key("few", rows[i].function.code), i))
    return [rows[i] for i in sorted(ranked[:count])]
