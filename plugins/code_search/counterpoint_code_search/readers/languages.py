"""What the pack knows of each language: endings of its files, nodes that are functions, words that are keywords."""

from __future__ import annotations

import keyword
from dataclasses import dataclass

from counterpoint.errors import ComponentError, suggest


@dataclass(frozen=True)
class Language:
    """One language.

    suffixes   lower-case endings of its files
    functions  types of tree-sitter nodes that are a function (none: Python, which `ast` reads)
    keywords   reserved words
    """

    suffixes: tuple[str, ...]
    functions: frozenset[str]
    keywords: frozenset[str]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_C = (
    "auto bool break case char const continue default do double else enum extern float for goto if inline int long register "
    "return short signed sizeof static struct switch typedef union unsigned void volatile while"
)
_JAVASCRIPT = (
    "async await break case catch class const continue debugger default delete do else export extends false finally for "
    "function if import in instanceof let new null of return static super switch this throw true try typeof undefined var "
    "void while with yield"
)
_FUNCTIONS = _words(
    "function_declaration generator_function_declaration method_definition arrow_function function_expression"
)

LANGUAGES: dict[str, Language] = {
    "python": Language((".py", ".pyi", ".pyw"), frozenset(), frozenset({*keyword.kwlist, "self", "cls"})),
    "java": Language(
        (".java",),
        _words("method_declaration constructor_declaration"),
        _words(
            "abstract assert boolean break byte case catch char class const continue default do double else enum extends "
            "false final finally float for goto if implements import instanceof int interface long native new null package "
            "private protected public return short static strictfp super switch synchronized this throw throws transient "
            "true try var void volatile while"
        ),
    ),
    "javascript": Language((".js", ".mjs", ".cjs", ".jsx"), _FUNCTIONS, _words(_JAVASCRIPT)),
    "typescript": Language(
        (".ts", ".mts"),
        _FUNCTIONS,
        _words(_JAVASCRIPT + " any as boolean declare enum implements interface namespace never number private protected "
               "public readonly string type unknown"),
    ),
    "go": Language(
        (".go",),
        _words("function_declaration method_declaration"),
        _words(
            "break case chan const continue default defer else fallthrough false for func go goto if import interface map "
            "nil package range return select struct switch true type var"
        ),
    ),
    "php": Language(
        (".php",),
        _words("function_definition method_declaration"),
        _words(
            "abstract and array as break callable case catch class clone const continue declare default do echo else "
            "elseif empty endfor endforeach endif endswitch endwhile extends false final finally fn for foreach function "
            "global goto if implements include instanceof interface isset list match namespace new null or print private "
            "protected public require return static switch this throw trait true try unset use var while xor yield"
        ),
    ),
    "ruby": Language(
        (".rb",),
        _words("method singleton_method"),
        _words(
            "alias and begin break case class def defined do else elsif end ensure false for if in module next nil not or "
            "redo rescue retry return self super then true undef unless until when while yield"
        ),
    ),
    "c": Language((".c",), _words("function_definition"), _words(_C)),
    "cpp": Language(
        (".cpp", ".cc", ".cxx", ".hpp", ".hh", ".h"),
        _words("function_definition"),
        _words(_C + " catch class constexpr const_cast decltype delete dynamic_cast explicit export false final friend "
               "mutable namespace new noexcept nullptr operator override private protected public static_cast template this "
               "throw true try typename using virtual"),
    ),
    "rust": Language(
        (".rs",),
        _words("function_item"),
        _words(
            "as async await break const continue crate dyn else enum extern false fn for if impl in let loop match mod move "
            "mut pub ref return self static struct super trait true type unsafe use where while"
        ),
    ),
}  # fmt: skip

SUFFIXES: dict[str, str] = {suffix: name for name, one in LANGUAGES.items() for suffix in one.suffixes}


def language_of(name: str, who: str) -> Language:
    """The language called `name`; ComponentError, in the words of `who` asks, when the pack does not know it."""
    if name not in LANGUAGES:
        raise ComponentError(f"{who}: {name!r} is no language of this pack{suggest(name, LANGUAGES)}")
    return LANGUAGES[name]
