"""Where a mistake stands, and all of them in one report."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from counterpoint.errors import RecipeError

COMMAND_LINE = "command line"
SHOWN = 60  # characters of a wrong value that a message repeats
LONGEST = 200  # of an override, or of a name, that heads a message


class Where(NamedTuple):
    """A file and a line of it, or an override on the command line."""

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


class Mistakes:
    """Collects mistakes and raises them together, in the order of the lines, overrides last."""

    def __init__(self) -> None:
        self._found: dict[str, tuple] = {}

    def add(self, where: Where, path: str, message: str) -> None:
        text = f"{placed(where, path)}: {message}"
        rank = (where.source.startswith(COMMAND_LINE), where.line is None, where.line or 0)
        self._found.setdefault(text, rank)

    def __bool__(self) -> bool:
        return bool(self._found)

    def throw(self) -> None:
        """Raises RecipeError when there is any mistake."""
        if self._found:
            raise RecipeError(sorted(self._found, key=self._found.__getitem__))


def placed(where: Where | str, path: str) -> str:
    """`recipe.yaml:7: views.ecg[1]`, the head of a message; an override names its path already."""
    said = not path or str(where).startswith(f"{COMMAND_LINE}: {path}=")
    return str(where) if said else f"{where}: {path}"


def one_line(text: str) -> str:
    """What a person typed as a message repeats it: printable, and not longer than a line or two."""
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def join(path: str, key: Any) -> str:
    """`path.key`; a key that is not a plain word is quoted, so that it cannot break the line or the terminal."""
    word = key if isinstance(key, str) and re.fullmatch(r"[\w.-]{1,100}", key, re.ASCII) else shown(key)
    return f"{path}.{word}" if path else word


def shown(value: Any) -> str:
    """A plain value as a message repeats it: on one line, short, in the words of YAML."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
