"""YAML 1.2 core scalars to nodes that know their line, and back; what could surprise or harm is refused.

Refused: duplicate keys, anchors and aliases (they can grow without bound), tags (they can name code), more than one
document, files over 1 MB. Read as YAML 1.2 core schema (yaml.org/spec/1.2.2, section 10.3): `no`, `yes`, `on`, `off`
are strings, `1e-3` is a number, `0o17` is octal, there are no sexagesimal numbers and no dates.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from counterpoint.errors import RecipeError
from counterpoint.recipe.mistakes import Where, shown

LARGEST = 1_000_000  # bytes
DEEPEST = 50  # mappings and lists inside one another
MOST = 50_000  # values, keys counted too; 1 MB of brackets would take half a minute to read
NULL, TRUE, FALSE = {"", "~", "null", "Null", "NULL"}, {"true", "True", "TRUE"}, {"false", "False", "FALSE"}
INTEGER = re.compile(r"[-+]?[0-9]+")
BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
SPECIAL = re.compile(r"([-+]?)\.(?:(inf|Inf|INF)|(nan|NaN|NAN))")
REMEDIES = {
    "cannot start any token": "a tab, or a sign that needs quotes, stands where a value should start",
    "mapping values are not allowed": "quote a value that holds ': ', and check the indentation",
    "expected <block end>": "check the indentation",
    "could not find expected ':'": "a key needs ': ' after it",
    "expected ',' or": "a bracket or brace is not closed, or a comma is missing",
}


@dataclass
class Node:
    """A value of a recipe, and where it stands: a scalar, a list of nodes, or a dict of nodes."""

    value: Any
    where: Where

    def plain(self) -> Any:
        """The value as ordinary lists, dicts and scalars."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        return [child.plain() for child in self.value] if isinstance(self.value, list) else self.value


def node(value: Any, where: Where) -> Node:
    """Ordinary lists, dicts and scalars as a Node, all of it at `where`."""
    if isinstance(value, dict):
        return Node({key: node(child, where) for key, child in value.items()}, where)
    return Node([node(child, where) for child in value] if isinstance(value, list) else value, where)


def read(path: Path, source: str) -> Node:
    """The mapping that a recipe file holds; RecipeError when it cannot be read or is not one."""
    whole = Where(source)
    if not path.is_file():
        raise _refusal(whole, "is not a file")
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST + 1)
    except OSError as error:
        raise _refusal(whole, f"cannot be read: {error.strerror}") from error
    if len(raw) > LARGEST:
        raise _refusal(whole, f"a recipe is a text of at most 1 MB; this file has {path.stat().st_size / 1e6:.1f} MB")
    tree = parse(_decoded(raw, source), source)
    if tree.value is None:
        raise _refusal(whole, "the recipe is empty; it needs at least `data`, `encoders` and `objective`")
    if not isinstance(tree.value, dict):
        kind = "a list" if isinstance(tree.value, list) else shown(tree.value)
        raise _refusal(tree.where, f"expected a mapping (`data: ...`, `encoders: ...`), got {kind}")
    return tree


def parse(text: str, source: str) -> Node:
    """The only document of `text`, empty = null; RecipeError with the line when it is not YAML or is refused."""
    parser = _Parser(text, source)
    try:
        return parser.document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        raise _refusal(parser.where(line), f"not YAML: {_explained(error)}") from None
    except yaml.YAMLError as error:
        reason = getattr(error, "reason", None) or "it cannot be read"
        line = text.count("\n", 0, getattr(error, "position", 0)) + 1
        raise _refusal(parser.where(line), f"not YAML: {reason}") from None


def dump(plain: Any) -> str:
    """Ordinary values as YAML that `parse` reads back equal; mappings that fit a line are written on one."""
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)


def scalar(text: str) -> Any:
    """A plain (unquoted) scalar as null, a boolean, a number or a string."""
    if text in NULL:
        return None
    if text in TRUE or text in FALSE:
        return text in TRUE
    if INTEGER.fullmatch(text):
        return int(text)
    if BASED.fullmatch(text):
        return int(text, 0)
    if NUMBER.fullmatch(text):
        return float(text)
    if found := SPECIAL.fullmatch(text):
        return float(found[1] + (found[2] or found[3]))
    return text


class _Parser:
    """PyYAML's events to nodes, in one pass, so that what is refused is refused before anything is built."""

    def __init__(self, text: str, source: str):
        self.text, self.source = text, source
        self.events: Iterator[yaml.Event] = iter(())
        self.count = 0
        self.numbered = not source.startswith("command line")

    def where(self, line: int | None) -> Where:
        return Where(self.source, line if self.numbered else None)

    def document(self) -> Node:
        self.events = yaml.parse(self.text, Loader=yaml.SafeLoader)
        next(self.events)  # the start of the stream
        start = next(self.events)
        if isinstance(start, yaml.StreamEndEvent):
            return Node(None, self.where(None))
        tree = self._node(next(self.events), 0)
        next(self.events)  # the end of the document
        if not isinstance(after := next(self.events), yaml.StreamEndEvent):
            raise self._refuse(after, "a second document (`---`) starts here; a recipe is one document")
        return tree

    def _node(self, event: yaml.Event, depth: int) -> Node:
        self._check(event, depth)
        where = self._at(event)
        if isinstance(event, yaml.ScalarEvent):
            return Node(self._scalar(event), where)
        if isinstance(event, yaml.SequenceStartEvent):
            return Node([self._node(item, depth + 1) for item in self._until(yaml.SequenceEndEvent)], where)
        return Node(self._mapping(depth), where)

    def _mapping(self, depth: int) -> dict[Any, Node]:
        entries: dict[Any, Node] = {}
        for event in self._until(yaml.MappingEndEvent):
            self._check(event, depth)
            if not isinstance(event, yaml.ScalarEvent):
                raise self._refuse(event, "a key must be a word, not a list or mapping")
            key = self._scalar(event)
            if key in entries:
                raise self._refuse(event, f"the key {shown(key)} stands twice (first at {entries[key].where})")
            # The key's line is where a person looks for the entry, also when its value starts below.
            entries[key] = Node(self._node(next(self.events), depth + 1).value, self._at(event))
        return entries

    def _until(self, end: type[yaml.Event]) -> Iterator[yaml.Event]:
        while not isinstance(event := next(self.events), end):
            yield event

    def _scalar(self, event: yaml.ScalarEvent) -> Any:
        if event.style is not None:
            return event.value
        try:
            return scalar(event.value)
        except ValueError:  # python refuses to read integers of thousands of digits
            raise self._refuse(event, f"the number {event.value[:10]}... has {len(event.value)} digits") from None

    def _check(self, event: yaml.Event, depth: int) -> None:
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            sign = "*" if isinstance(event, yaml.AliasEvent) else "&"
            raise self._refuse(event, f"{sign}{event.anchor}: anchors and aliases are not taken; write the value out")
        if event.tag is not None:
            raise self._refuse(event, f"the tag {shown(event.tag)} is not taken; a recipe holds plain values alone")
        self.count += 1
        if self.count > MOST:
            raise self._refuse(event, f"more than {MOST} values in one recipe")
        if depth > DEEPEST:
            raise self._refuse(event, f"more than {DEEPEST} lists and mappings inside one another")

    def _at(self, event: yaml.Event) -> Where:
        return self.where(event.start_mark.line + 1)

    def _refuse(self, event: yaml.Event, message: str) -> RecipeError:
        return _refusal(self._at(event), message)


def _decoded(raw: bytes, source: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        message = f"byte 0x{raw[error.start]:02x} is not UTF-8; save the recipe as UTF-8 text"
        raise _refusal(Where(source, line), message) from None


def _explained(error: yaml.MarkedYAMLError) -> str:
    problem = " ".join((error.problem or error.context or "a syntax error").split())
    if r"\t" in problem:
        return "a tab stands where YAML takes only spaces; indent with spaces"
    remedy = next((text for sign, text in REMEDIES.items() if sign in problem), None)
    return f"{problem}; {remedy}" if remedy else problem


def _refusal(where: Where, message: str) -> RecipeError:
    return RecipeError([f"{where}: {message}"])


class _Dumper(yaml.SafeDumper):
    """Quotes every string that this reader, or one of YAML 1.1, would not read as a string."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_string(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    ambiguous = not isinstance(_read_back(text), str)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'" if ambiguous else None)


def _read_back(text: str) -> Any:
    try:
        return scalar(text)
    except ValueError:
        return None


_Dumper.add_representer(str, _represent_string)
