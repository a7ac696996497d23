"""The type of every entry of a tokenizer's vocabulary: identifier, keyword, operator, separator, literal or other.

A table over the vocabulary, computed once, stands for a type at every position: a token that is a whole keyword is a
keyword wherever it stands, a piece of a word is an identifier, also inside a string or a comment.
"""

from __future__ import annotations

from counterpoint.errors import ComponentError, suggest
from counterpoint_code_search.readers.languages import LANGUAGES, language_of

TYPES = ("other", "identifier", "keyword", "operator", "separator", "literal")
OTHER, IDENTIFIER, KEYWORD, OPERATOR, SEPARATOR, LITERAL = range(len(TYPES))

_SEPARATORS = frozenset("()[]{},;:")
_QUOTES = frozenset("\"'`")


def keywords_of(language: str) -> frozenset[str]:
    """The keywords of a language; of `any`: those of all. ComponentError for a language the pack does not know."""
    if language == "any":
        return frozenset().union(*(one.keywords for one in LANGUAGES.values()))
    return language_of(language, "language").keywords


def type_of(text: str, whole: bool, keywords: frozenset[str]) -> int:
    """The type of one token: its text without blanks; `whole`: it starts a word, so that it may be a keyword."""
    text = text.strip()
    if not text:
        return OTHER
    if text[0].isalpha() or text[0] == "_" or ord(text[0]) > 127:
        return KEYWORD if whole and (text in keywords or text.capitalize() in keywords) else IDENTIFIER
    if text[0].isdigit() or text[0] in _QUOTES:
        return LITERAL
    return SEPARATOR if all(sign in _SEPARATORS for sign in text) else OPERATOR


def vocabulary_types(tokenizer, language: str) -> str:
    """The type of every id of a `tokenizers.Tokenizer`, a digit each; added tokens (padding, the mask) are `other`."""
    keywords, special = keywords_of(language), tokenizer.get_added_tokens_decoder()
    types = [OTHER] * tokenizer.get_vocab_size()
    for token, i in tokenizer.get_vocab().items():
        if i not in special and i < len(types):
            types[i] = type_of(_plain(tokenizer, token, i), not token.startswith("##"), keywords)
    return "".join(map(str, types))


def _plain(tokenizer, token: str, i: int) -> str:
    """The text that a token stands for, by the tokenizer's own decoder where it has one."""
    if token.startswith("##"):
        return token[2:]
    return tokenizer.decode([i], skip_special_tokens=False) if tokenizer.decoder is not None else token


def byte_types(offset: int) -> str:
    """The type of every id of the byte tokenizer, whose first `offset` ids are special; a byte is never a keyword."""
    return "".join(map(str, [OTHER] * offset + [type_of(chr(byte), False, frozenset()) for byte in range(256)]))


def type_numbers(names: list[str], who: str) -> list[int]:
    """The numbers of the types called `names`; ComponentError naming the valid ones."""
    for name in names:
        if name not in TYPES[1:]:
            raise ComponentError(f"view {who!r}: types: {name!r} is no token type{suggest(name, TYPES[1:])}")
    return [TYPES.index(name) for name in names]
