"""The reader of code: a table's cells, or source files, as token ids, with the type of every token of the vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from counterpoint.data.guard import check_file, name_of
from counterpoint.data.text import BYTE_OFFSET, Text, loaded
from counterpoint.errors import DataError
from counterpoint_code_search.readers.languages import SUFFIXES
from counterpoint_code_search.readers.python_functions import decode_python
from counterpoint_code_search.readers.token_types import TYPES, byte_types, keywords_of, vocabulary_types

LARGEST = 1 << 22  # bytes of a source file; a larger one is generated


class Code(Text):
    """Source code as int64 (L,) token ids: a cell is the code itself, or the name of a source file.

    tokenizer, vocabulary, max_tokens  as in the core's reader `text`
    language    whose keywords are keywords, for the views that look at token types; any: those of all languages

    The data says, besides what text says, `token_types`: a digit for every entry of the vocabulary, its type; and
    `type_tokens`: for each type, the token that its name begins with. Python files are decoded by their coding line,
    others as UTF-8, or Latin-1 where they are not. Raises DataError for an empty, binary or missing file, one over 4 MB,
    a directory, and code without a visible character; ComponentError for an unknown language.
    """

    suffixes = tuple(SUFFIXES)

    def __init__(
        self, *, tokenizer: str = "bpe", vocabulary: int = 8192, max_tokens: int | None = 256, language: str = "python"
    ):
        super().__init__(tokenizer=tokenizer, vocabulary=vocabulary, max_tokens=max_tokens)
        keywords_of(language)
        self.language = language
        self._known: tuple[str | None, dict[str, Any]] | None = None

    def is_file(self, cell: str) -> bool:
        return "\n" not in cell and cell.lower().endswith(self.suffixes)

    def given(self) -> dict[str, Any]:
        if self._known is None or self._known[0] != self.json:
            self._known = (self.json, self._types())
        return super().given() | self._known[1]

    def text(self, cell: str) -> str:
        return read_code(cell) if self.is_file(cell) else cell

    def read(self, cell: str) -> Tensor:
        text = self.text(cell)
        if not text.strip():
            raise DataError(f"{name_of(cell) if self.is_file(cell) else 'code'}: holds no text")
        return self.ids(text)

    def _types(self) -> dict[str, Any]:
        if self.json is None:
            return {
                "token_types": byte_types(BYTE_OFFSET),
                "type_tokens": [ord(name[0]) + BYTE_OFFSET for name in TYPES],
            }
        tokenizer = loaded(self.json)
        names = [tokenizer.encode(name, add_special_tokens=False).ids[0] for name in TYPES]
        return {"token_types": vocabulary_types(tokenizer, self.language), "type_tokens": names}


def read_code(path: str) -> str:
    """The text of a source file; DataError when it is missing, empty or over 4 MB, ValueError when it is binary."""
    check_file(path, max_bytes=LARGEST)
    return decode(Path(path).read_bytes(), path)


def decode(content: bytes, path: str) -> str:
    """Source code as text with `\\n` line ends; ValueError for what holds null bytes, and so is no source."""
    if b"\0" in content:
        raise ValueError("holds null bytes: not a source file in an 8-bit encoding")
    if path.lower().endswith((".py", ".pyi", ".pyw")):
        try:
            return decode_python(content)
        except (SyntaxError, UnicodeDecodeError):
            pass  # a wrong coding line: read as the other languages are
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")
