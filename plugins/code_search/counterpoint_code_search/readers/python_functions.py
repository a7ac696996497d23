"""Documented functions of Python source by `ast`: parsed, never run."""

from __future__ import annotations

import ast
import io
import tokenize
import warnings
from collections.abc import Iterator

from counterpoint_code_search.readers.functions import (
    FEWEST_STATEMENTS,
    LONGEST_CODE,
    Function,
    dedented,
    first_paragraph,
    is_query,
    without_name,
)

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_DOCUMENTED = (*_FUNCTIONS, ast.ClassDef)


def decode_python(content: bytes) -> str:
    """Python source as text with `\\n` line ends, by its byte order mark or coding line (PEP 263), UTF-8 otherwise.

    Raises UnicodeDecodeError, or SyntaxError for a coding that does not exist.
    """
    encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
    try:
        text = content.decode(encoding)
    except LookupError as error:  # `hex` and the like are encodings, but not of text
        raise SyntaxError(str(error)) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def python_functions(source: str) -> list[Function]:
    """The documented functions of a module, methods included, in the order of the source.

    A function inside one that is listed is part of that one's code and not listed itself; documentation inside is taken
    out. Left out: functions with fewer than 3 words of documentation, or fewer than 2 statements with the documentation
    as one. Raises SyntaxError, ValueError (null bytes) or RecursionError for source that Python cannot parse.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in the source are not this program's concern
        tree = ast.parse(source)
    lines = [line.encode() for line in source.split("\n")]  # ast counts columns in bytes of UTF-8
    return list(_walk(tree, "", lines))


def _walk(tree: ast.AST, outer: str, lines: list[bytes]) -> Iterator[Function]:
    """Depth first without recursion, so that nesting cannot exhaust the stack."""
    pending = [(tree, outer)]
    while pending:
        node, outer = pending.pop()
        if isinstance(node, _DOCUMENTED):
            outer = f"{outer}.{node.name}" if outer else node.name
        if isinstance(node, _FUNCTIONS) and (function := _function(node, outer, lines)):
            yield function
            continue
        pending += [(child, outer) for child in reversed(list(ast.iter_child_nodes(node)))]


def _function(node: ast.FunctionDef | ast.AsyncFunctionDef, name: str, lines: list[bytes]) -> Function | None:
    query = first_paragraph(ast.get_docstring(node) or "")
    if len(node.body) < FEWEST_STATEMENTS or not is_query(query):
        return None
    code = dedented(_source(node, lines))
    if len(code) > LONGEST_CODE:
        return None
    return Function(query, without_name(code, node.name), name, "python", node.lineno)


def _source(node: ast.AST, lines: list[bytes]) -> str:
    """The lines of a function from its first decorator on, every docstring in it taken out."""
    first = min([node.lineno, *(d.lineno for d in node.decorator_list)]) - 1
    kept = list(lines[first : node.end_lineno])
    for inner in ast.walk(node):
        if isinstance(inner, _DOCUMENTED) and ast.get_docstring(inner, clean=False) is not None:
            _cut(kept, inner.body[0].value, first)
    return b"\n".join(kept).decode()


def _cut(lines: list[bytes], node: ast.expr, first: int) -> None:
    """Empty the span of one expression; where it shares its line with code, the code stays."""
    start, end = node.lineno - 1 - first, node.end_lineno - 1 - first
    before, after = lines[start][: node.col_offset], lines[end][node.end_col_offset :].lstrip(b" ;")
    lines[start : end + 1] = [before + after if before.strip() or after.strip() else b""] + [b""] * (end - start)


def undocumented(code: str) -> str:
    """The source of one function without its docstrings; as it is where Python cannot parse it."""
    source = dedented(code)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return code
    lines = [line.encode() for line in source.split("\n")]
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            _cut(lines, node.body[0].value, 0)
    return b"\n".join(lines).decode()
