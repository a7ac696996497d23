"""Code search over a user's own repository: every documented function of the source files in a folder."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from counterpoint.data.files import Files
from counterpoint.data.guard import fault_of, name_of, one_line, raise_all
from counterpoint.errors import DataError
from counterpoint.markers import Reader
from counterpoint_code_search.data.pairs import pair_dataset, unique
from counterpoint_code_search.readers.functions import Function
from counterpoint_code_search.readers.languages import SUFFIXES, language_of
from counterpoint_code_search.readers.python_functions import decode_python, python_functions
from counterpoint_code_search.readers.tree_functions import tree_functions

WHO = "data 'code_search.folder'"
LARGEST = 1 << 20  # bytes of a source file; a larger one is generated or packed
LEFT_OUT = {"node_modules", "site-packages", "venv", "build", "dist", "vendor", "third_party", "__pycache__"}


def folder(
    *,
    path: str,
    languages: list[str] | None = None,
    split: str = "train",
    holdout: float = 0.2,
    strict: bool = False,
    text: Reader | None = None,
    code: Reader | None = None,
) -> Files:
    """The documented functions below `path`: documentation (modality "text") and the function without it ("code").

    languages  which to read, by file ending; None: all the pack knows. All but Python need the extra `languages`
    holdout    fraction of the files that are in split test, chosen by a hash of their paths
    strict     refuse files that cannot be read or parsed, all at once; False: leave them out and warn with their number
    text, code  how both are read; by default byte-level BPEs learnt from the training split

    Hidden folders, links and folders of dependencies (node_modules, venv, vendor, ...) are not entered. A function's own
    name is `_` in its code. Of functions that share their documentation or their code the first is kept. Groups "file"
    and "language". Raises DataError when the folder is missing or holds no documented function.
    """
    wanted = set(languages or {language for language in SUFFIXES.values()})
    for language in sorted(wanted):
        language_of(language, f"{WHO}: languages")
    rows, problems, count = [], [], 0
    for file, language in source_files(path, wanted):
        count += 1
        try:
            rows += [(os.path.relpath(file, path), function) for function in file_functions(file, language)]
        except DataError as error:
            problems.append(str(error))
    if strict:
        raise_all(problems)
    _warn(problems, count)
    kept = {id(function) for function in unique([function for _, function in rows])}
    rows = [(file, function) for file, function in rows if id(function) in kept]
    files = [file for file, _ in rows]
    return pair_dataset(
        [function for _, function in rows],
        text=text,
        code=code,
        groups={"file": files},
        splits=None,
        split=split,
        by=files,
        holdout=holdout,
        where=f"{WHO}: {name_of(path)}",
    )


def source_files(path: str, languages: set[str]) -> Iterator[tuple[str, str]]:
    """(file, language) of the source files below a folder, in the order of their names; DataError without the folder."""
    if not os.path.isdir(path):
        raise DataError(f"{WHO}: path: {name_of(path)}: {fault_of(path) or 'is a file, not a folder'}")
    for folder_, inner, names in os.walk(path):
        inner[:] = sorted(name for name in inner if name not in LEFT_OUT and not name.startswith("."))
        for name in sorted(names):
            language = SUFFIXES.get(Path(name).suffix.lower())
            file = os.path.join(folder_, name)
            if language in languages and not os.path.islink(file):
                yield file, language


def file_functions(file: str, language: str) -> list[Function]:
    """The documented functions of one source file; DataError that names it when it cannot be read or parsed."""
    if fault := fault_of(file, LARGEST):
        if fault.startswith("empty"):
            return []  # an `__init__.py` often is
        raise DataError(f"{name_of(file)}: {fault}")
    content = Path(file).read_bytes()
    if b"\0" in content:
        raise DataError(f"{name_of(file)}: holds null bytes: not a source file in an 8-bit encoding")
    try:
        return python_functions(decode_python(content)) if language == "python" else tree_functions(content, language)
    except RecursionError:
        raise DataError(f"{name_of(file)}: nested too deeply to parse") from None
    except MemoryError:
        raise DataError(f"{name_of(file)}: nested too deeply to parse") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{name_of(file)}: not {error.encoding} text (byte {error.start})") from error
    except SyntaxError as error:
        raise DataError(f"{name_of(file)}: line {error.lineno}: {one_line(error.msg or 'syntax error')}") from error
    except ValueError as error:
        raise DataError(f"{name_of(file)}: {one_line(str(error))}") from error


def _warn(problems: list[str], count: int) -> None:
    if problems:
        reasons = Counter(problem.rsplit(": ", 1)[-1] for problem in problems).most_common(3)
        told = ", ".join(f"{reason} ({n})" for reason, n in reasons)
        warnings.warn(f"{WHO}: {len(problems)} of {count} files left out: {told}; first: {problems[0]}", stacklevel=3)
