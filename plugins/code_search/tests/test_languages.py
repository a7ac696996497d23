"""Functions of other languages than Python, by tree-sitter."""

import pytest

from counterpoint.errors import ComponentError, CounterpointError
from counterpoint_code_search.readers.tree_functions import tree_functions

pytest.importorskip("tree_sitter_language_pack")

SOURCES = {
    "java": "class A {\n  /** Adds two numbers\n   * together.\n   * @param a one */\n  @Override public int add(int a) {\n"
    "    int c = a + add(1);\n    return c;\n  }\n}",
    "javascript": "/** Adds two numbers\n together. */\nexport const add = (a) => {\n  let c = add(a);\n  return c;\n}",
    "typescript": "// Adds two numbers\n// together.\nexport async function add(a: number) {\n  let c = add(a);\n  return c;\n}",
    "go": "package p\n// Adds two numbers\n// together.\nfunc (s *S) add(a int) int {\n\tc := add(a)\n\treturn c\n}",
    "php": "<?php\n/** Adds two numbers together. */\nfunction add($a) {\n  $c = add($a);\n  return $c;\n}",
    "ruby": "class A\n  # Adds two numbers\n  # together.\n  def add(a)\n    c = add(a)\n    c\n  end\nend",
    "c": "/* Adds two numbers together. */\nstatic int *add(int a) {\n  int c = add(a);\n  return c;\n}",
    "cpp": "/// Adds two numbers together.\ntemplate <class T> int A::add(T a) {\n  int c = add(a);\n  return c;\n}",
    "rust": "/// Adds two numbers\n/// together.\n#[inline]\npub fn add(a: i32) -> i32 {\n    let c = add(a);\n    c\n}",
}


@pytest.mark.parametrize("language", SOURCES)
def test_the_comment_before_a_function_documents_it(language):
    (found,) = tree_functions(SOURCES[language].encode(), language)
    assert found.query.rstrip(".") == "Adds two numbers together" and found.name == "add" and found.language == language
    assert (
        "add" not in found.code
        and "two numbers" not in found.code
        and found.code.count("_(") + found.code.count("_ =") == 2
    )
    assert not found.code.startswith((" ", "\t"))


@pytest.mark.parametrize("language", SOURCES)
def test_a_comment_further_up_documents_nothing(language):
    lines = SOURCES[language].split("\n")
    last = max(i for i, line in enumerate(lines) if "together" in line or "@param" in line)
    apart = [*lines[: last + 1], "", "", *lines[last + 1 :]]
    assert tree_functions("\n".join(apart).encode(), language) == []


@pytest.mark.parametrize("language", SOURCES)
@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\xfd", b"{" * 50_000, b"(" * 50_000, b"/** unfinished", b"\n" * 1000]
)
def test_what_is_no_source_gives_no_function(language, content):
    assert tree_functions(content, language) == []


def test_a_syntax_error_elsewhere_does_not_hide_a_function():
    assert len(tree_functions(SOURCES["java"].encode() + b"\nclass B { int x( {", "java")) == 1


@pytest.mark.parametrize("head", ["struct API thing", "else if (x)", "API"])
def test_a_macro_is_no_function(head):
    source = f"/* Adds two numbers together. */\n{head} {{\n  int c = 1;\n  f(c);\n}};\n"
    assert tree_functions(source.encode(), "cpp") == []


@pytest.mark.parametrize(
    "head", ["A::~A()", "int A::operator+(int b)", "auto add(int a) -> int", "int& A<T>::add(int a)"]
)
def test_heads_of_cpp(head):
    source = f"/* Adds two numbers together. */\n{head} {{\n  int c = 1;\n  f(c);\n}}\n"
    assert len(tree_functions(source.encode(), "cpp")) == 1


def test_an_unknown_language_is_named():
    with pytest.raises(ComponentError, match="did you mean 'java'"):
        tree_functions(b"", "jawa")
    with pytest.raises(CounterpointError, match="python_functions"):
        tree_functions(b"", "python")
