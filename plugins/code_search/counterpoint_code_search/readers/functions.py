"""A documented function, and what makes a fair search task of it: a query that is prose, code without its own name."""

from __future__ import annotations

import re
from dataclasses import dataclass

HIDDEN = "_"  # stands where the function's own name was
FEWEST_WORDS, FEWEST_STATEMENTS = 3, 2  # the documentation itself is one of the statements
LONGEST_CODE = 1 << 16  # characters; a longer function is generated or a table

_WORD = re.compile(r"[^\W\d_]{2,}")
_FIELD = re.compile(
    r"^\s*(?::\w+|@\w+|\\\w+|>>>|\.\. |(?:Args|Arguments|Parameters|Returns|Raises|Examples?|Usage):\s*$)"
)
_INLINE = re.compile(r"\s[@\\\\](?:param|return|returns|throws|see)\b")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>|\{@\w+\s*|\}")


@dataclass(frozen=True)
class Function:
    """One documented function.

    query     first paragraph of its documentation, on one line
    code      its source from the first decorator on, without documentation, its own name replaced by `_`
    name      its name within the file, dotted; language; line: where it starts, from 1
    """

    query: str
    code: str
    name: str
    language: str
    line: int


def first_paragraph(documentation: str) -> str:
    """The prose that a documentation text starts with, on one line; it ends at a blank line or a field (`:param`)."""
    kept: list[str] = []
    for line in documentation.strip().splitlines():
        if not line.strip() or _FIELD.match(line):
            if kept:
                break
            continue
        kept.append(line)
    return " ".join(_TAG.sub(" ", _INLINE.split(" ".join(kept))[0]).split())


def is_query(text: str) -> bool:
    """Whether a text has the three words that a search needs at least."""
    return len(_WORD.findall(text)) >= FEWEST_WORDS


def without_name(code: str, name: str) -> str:
    """`code` with every whole-word occurrence of `name` hidden, in identifiers, strings and comments alike."""
    return re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", HIDDEN, code) if name else code


def dedented(code: str) -> str:
    """`code` without the white space that its first line starts with, in every line that has it, and without blank lines."""
    lines = [line.rstrip() for line in code.split("\n")]
    margin = lines[0][: len(lines[0]) - len(lines[0].lstrip())]
    return "\n".join(line.removeprefix(margin) for line in lines if line)
