"""Pairs of a query and a function as a dataset: modalities `text` and `code`, duplicates taken out before any split."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from counterpoint.data.files import Files, from_columns
from counterpoint.data.reader import Reader
from counterpoint.data.text import Text
from counterpoint.errors import DataError
from counterpoint_code_search.readers.code import Code
from counterpoint_code_search.readers.functions import Function

MODALITIES = ("text", "code")
_WORDS = re.compile(r"\w+")


class Seen:
    """Remembers queries (their words in lower case) and code (its words and signs) that there have been."""

    def __init__(self) -> None:
        self._queries: set[str] = set()
        self._codes: set[str] = set()

    def new(self, function: Function) -> bool:
        """Whether neither the query nor the code of a function has been here before; both are remembered then."""
        query, code = " ".join(_WORDS.findall(function.query.lower())), " ".join(function.code.split())
        if query in self._queries or code in self._codes:
            return False
        self._queries.add(query)
        self._codes.add(code)
        return True


def unique(functions: Iterable[Function], seen: Seen | None = None) -> list[Function]:
    """The functions of which no earlier one has the same query or the same code, in their order."""
    seen = seen or Seen()
    return [function for function in functions if seen.new(function)]


def pair_dataset(
    functions: Sequence[Function],
    *,
    text: Reader | None,
    code: Reader | None,
    groups: dict[str, Sequence[str]],
    splits: Sequence[str] | None,
    split: str,
    by: Sequence[str] | None = None,
    holdout: float = 0.2,
    where: str,
) -> Files:
    """The dataset of one pair a function; the readers default to byte-level BPEs learnt from the training split.

    Raises DataError when there is no function, or none in the split.
    """
    if not functions:
        raise DataError(f"{where}: no documented function (3 words of documentation, a body of 2 statements with it)")
    return from_columns(
        cells={"text": [f.query for f in functions], "code": [_as_text(f.code) for f in functions]},
        readers={"text": text or Text(tokenizer="bpe", max_tokens=64), "code": code or Code(max_tokens=256)},
        groups=groups | {"language": [f.language for f in functions]},
        splits=splits,
        split=split,
        by=by,
        holdout=holdout,
        where=where,
    )


def _as_text(code: str) -> str:
    """Code that no reader takes for a file's name: one line could end in `.py`."""
    return code if "\n" in code else code + "\n"
