"""Documented functions of other languages than Python, by tree-sitter: a comment right before a function documents it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from counterpoint.errors import CounterpointError
from counterpoint_code_search.readers.functions import (
    FEWEST_STATEMENTS,
    LONGEST_CODE,
    Function,
    dedented,
    first_paragraph,
    is_query,
    without_name,
)
from counterpoint_code_search.readers.languages import language_of

_COMMENTS = {"comment", "line_comment", "block_comment", "multiline_comment"}
_ATTRIBUTES = {"attribute_item", "decorator"}  # may stand between a comment and its function
_AROUND = {"export_statement", "template_declaration", "lexical_declaration", "variable_declarator", "body_statement"}
_NAMES = {
    "identifier",
    "field_identifier",
    "property_identifier",
    "private_property_identifier",
    "destructor_name",
    "operator_name",
    "name",
}
_SIGNS = re.compile(r"^\s*(?:/\*[*!]*|//[/!]*|#+|\*+(?!/))?[ \t]?|\s*\*+/\s*$")


def tree_functions(source: bytes, language: str) -> list[Function]:
    """The documented functions and methods of a file, in its order; UTF-8, other bytes are replaced.

    A function inside one that is listed is part of that one's code. Left out: fewer than 3 words of documentation, or
    fewer than 2 statements with the documentation as one. Syntax errors do not stop it: what it can make out counts.
    Raises CounterpointError without the package tree-sitter-language-pack, ComponentError for an unknown language.
    """
    kinds = language_of(language, "tree_functions").functions
    if not kinds:
        raise CounterpointError(f"{language} is read by `python_functions`, not by tree-sitter")
    return list(_walk(_parser(language).parse(source).root_node, kinds, source, language))


@cache
def _parser(language: str):
    try:
        from tree_sitter_language_pack import get_parser
    except ImportError as error:
        raise CounterpointError(
            f"reading {language} needs tree-sitter's parsers: pip install 'counterpoint-code-search[languages]'"
        ) from error
    return get_parser(language)


def _walk(root, kinds: frozenset[str], source: bytes, language: str) -> Iterator[Function]:
    """Depth first without recursion, so that nesting cannot exhaust the stack."""
    pending = [root]
    while pending:
        node = pending.pop()
        if node.type in kinds and (function := _function(node, source, language)):
            yield function
        else:
            pending += reversed(node.children)


def _function(node, source: bytes, language: str) -> Function | None:
    top = _outermost(node)
    query = first_paragraph(_documentation(top, source))
    if not is_query(query) or top.end_byte - top.start_byte > LONGEST_CODE or _statements(node) + 1 < FEWEST_STATEMENTS:
        return None
    start = source.rfind(b"\n", 0, top.start_byte) + 1  # with the indentation of its first line
    start = start if not source[start : top.start_byte].strip() else top.start_byte
    code, name = dedented(_text(source[start : top.end_byte])), _name(node, source)
    if name in language_of(language, "tree_functions").keywords or (
        name == "" and node.child_by_field_name("declarator")
    ):
        return None  # a macro that the parser took for the head of a function
    return Function(query, without_name(code, name), name, language, top.start_point[0] + 1)


def _outermost(node):
    """What a comment documents when it documents `node`: the export, template or constant that holds it alone."""
    while node.parent is not None and node.parent.type in _AROUND:
        if node.parent.type == "body_statement" and node.prev_named_sibling is not None:
            break
        node = node.parent
    return node


def _documentation(node, source: bytes) -> str:
    """The text of the comments right before `node`, line comments in a row together."""
    if node.type == "body_statement":
        node = node.parent if node.prev_named_sibling is None else node
    found: list[bytes] = []
    below = node.start_point[0]
    while (node := node.prev_named_sibling) is not None:
        if node.type in _ATTRIBUTES:
            below = node.start_point[0]
            continue
        text = source[node.start_byte : node.end_byte].rstrip()
        last = node.start_point[0] + text.count(b"\n")
        if node.type not in _COMMENTS or last < below - 1 or (found and text.startswith(b"/*")):
            break
        found.insert(0, text)
        below = node.start_point[0]
        if text.startswith(b"/*"):
            break
    lines = _text(b"\n".join(found)).splitlines()
    return "\n".join(_SIGNS.sub("", _SIGNS.sub("", line)) for line in lines)


def _statements(node) -> int:
    body = node.child_by_field_name("body")
    if body is None:
        return 0
    inner = [c for c in body.named_children if c.type not in _COMMENTS]
    return len(inner[0].named_children) if len(inner) == 1 and inner[0].type == "statement_list" else len(inner)


def _name(node, source: bytes) -> str:
    """The last name that a function's head declares, or that of the constant it is given to; "" if it has none."""
    found = node.child_by_field_name("name")
    if found is None and node.parent is not None and node.parent.type == "variable_declarator":
        found = node.parent.child_by_field_name("name")
    if found is None:
        found = _declared(node.child_by_field_name("declarator"))
    return "" if found is None else _text(source[found.start_byte : found.end_byte])


def _declared(declarator):
    """The node of the name that a C declarator gives to a function, under pointers, references and namespaces."""
    inside = False
    while declarator is not None and declarator.type not in _NAMES:
        inside = inside or declarator.type == "function_declarator"
        inner = declarator.child_by_field_name("declarator") or declarator.child_by_field_name("name")
        declarator = inner or next((c for c in declarator.named_children if "declarator" in c.type), None)
    return declarator if inside else None


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
