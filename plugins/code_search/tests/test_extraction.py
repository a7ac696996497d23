"""What becomes a pair, and that nothing in the code tells its name or its documentation."""

import pytest

from counterpoint_code_search.data.pairs import Seen, unique
from counterpoint_code_search.readers.functions import Function, first_paragraph
from counterpoint_code_search.readers.python_functions import decode_python, python_functions, undocumented

BODY = "\n    x = 1\n    return x\n"


def only(source: str) -> Function:
    (function,) = python_functions(source)
    return function


def test_name_and_documentation_are_hidden_everywhere():
    found = only(
        "@decorate(walk)\n"
        "def walk(tree, walks):\n"
        '    """Visit every node of a tree.\n\n    More about walk.\n    """\n'
        "    # walk again\n"
        '    log("walk failed")\n'
        "    return [self.walk(n) for n in tree] + walk(tree) + walks\n"
    )
    assert found.query == "Visit every node of a tree." and found.name == "walk" and found.line == 2
    assert found.code == (
        '@decorate(_)\ndef _(tree, walks):\n    # _ again\n    log("_ failed")\n'
        "    return [self._(n) for n in tree] + _(tree) + walks"
    )


def test_methods_are_dedented_and_named_by_their_class():
    found = only(f'class A:\n    class B:\n        def go(self):\n            """Goes where it must."""{"    " * 2}'
                 "\n            x = 1\n            return x\n")  # fmt: skip
    assert found.name == "A.B.go" and found.code == "def _(self):\n    x = 1\n    return x"


def test_async_decorated_and_tabbed_functions():
    source = '@a\n@b(1)\nasync def f():\n\t"""Waits for it all."""\n\tawait g()\n\treturn 1\n'
    assert only(source).code == "@a\n@b(1)\nasync def _():\n\tawait g()\n\treturn 1"


def test_unicode_before_a_docstring_does_not_shift_the_cut():
    found = only('def größe(å="ü"): """Größe von allem messen."""; return "größe ü"\n')
    assert found.query == "Größe von allem messen." and found.code == 'def _(å="ü"): return "_ ü"'


def test_a_function_inside_a_listed_one_belongs_to_it_and_loses_its_documentation():
    source = 'def outer():\n    """Make a counting function."""\n    def inner():\n        """Count one step further."""\n        return 1\n    return inner\n'  # fmt: skip
    found = only(source)
    assert found.name == "outer" and "Count one" not in found.code and "def inner" in found.code
    undocumented_outer = source.replace('    """Make a counting function."""\n', "")
    assert only(undocumented_outer).name == "outer.inner"


@pytest.mark.parametrize(
    "source",
    [
        'def f():\n    """Does one thing."""\n',  # no body
        'def f():\n    """Two words"""' + BODY,
        "def f():" + BODY,
        'def f():\n    """a b c 1 2"""' + BODY,  # letters are no words
        "",
        "x = 1",
    ],
)
def test_what_is_no_pair(source):
    assert python_functions(source) == []


@pytest.mark.parametrize("source, error", [("def f(:\n", SyntaxError), ("x = 1\0", (ValueError, SyntaxError))])
def test_what_python_cannot_parse_is_an_error_of_its_own(source, error):
    with pytest.raises(error):
        python_functions(source)


def test_deep_nesting_is_an_error_and_not_the_end_of_the_process():
    for source in ("(" * 5000 + ")" * 5000, "x = " + "-" * 100_000 + "1", "a" + ".b" * 50_000):
        with pytest.raises((SyntaxError, RecursionError, MemoryError)):
            python_functions(source)


def test_nothing_in_the_source_is_run(tmp_path):
    marker = tmp_path / "ran"
    python_functions(
        f"open({str(marker)!r}, 'w')\ndef f(x=open({str(marker)!r}, 'w')):\n    '''One two three.'''{BODY}"
    )
    assert not marker.exists()


def test_the_coding_line_is_followed_and_line_ends_become_one():
    assert "é" in decode_python("# -*- coding: latin-1 -*-\r\nx = 'é'\r".encode("latin-1"))
    assert decode_python(b"\xef\xbb\xbfa = 1\r\nb = 2\r") == "a = 1\nb = 2\n"
    with pytest.raises(SyntaxError):
        decode_python(b"# coding: no-such-thing\n")
    for content in (b"x = '\xff'\n", b"# coding: hex\nx = 1\n"):
        with pytest.raises(SyntaxError):
            decode_python(content)
    with pytest.raises(UnicodeDecodeError):
        decode_python(b"\n\n\nx = '\xff'\n")


@pytest.mark.parametrize(
    "text, query",
    [
        ("\n\n  One two\n  three.\n\n  Four.", "One two three."),
        ("Adds numbers.\n:param x: a number\nmore", "Adds numbers."),
        ("Adds <b>two</b> {@code numbers} @param x one", "Adds two numbers"),
        ("Sums it.\n>>> f(1)\n2", "Sums it."),
        (">>> f(1)\nStarts late", "Starts late"),
        ("", ""),
    ],
)
def test_the_query_is_the_first_paragraph(text, query):
    assert first_paragraph(text) == query


def test_a_query_or_a_code_that_was_there_is_no_pair_again():
    a = Function("Open the file.", "def _(): a", "a", "python", 1)
    same_query = Function("open the  FILE", "def _(): b", "b", "python", 2)
    same_code = Function("Close the door.", "def _():\n  a", "c", "python", 3)
    other = Function("Close a door.", "def _(): c", "d", "python", 4)
    assert unique([a, same_query, same_code, other]) == [a, other]
    seen = Seen()
    assert unique([a], seen) == [a] and unique([a, other], seen) == [other]


def test_a_docstring_leaves_code_that_stands_alone():
    assert undocumented('def f(x):\n    """Says\n    much."""\n    return x').split() == ["def", "f(x):", "return", "x"]
    assert undocumented("print 'python 2'") == "print 'python 2'"
