"""Documented functions of importable packages, found without importing them and kept in the cache."""

from __future__ import annotations

import hashlib
import json
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import asdict
from importlib.machinery import PathFinder
from pathlib import Path

from counterpoint.data.sources import prepared
from counterpoint.errors import DataError, suggest
from counterpoint_code_search.readers.functions import Function
from counterpoint_code_search.readers.python_functions import decode_python, python_functions

STDLIB = "stdlib"
EXTRACTION = 1  # to be raised when the same source gives other functions
LARGEST = 1 << 22  # bytes of a source file
_TESTS = {"test", "tests", "testing", "idle_test"}  # their documentation is about tests, not about what code does


def package_functions(package: str) -> dict[str, list[Function]]:
    """Top-level module -> the documented functions of `stdlib`, or of one top-level package under its own name.

    Test packages are left out, and files that do not parse in this Python. Kept in the cache under the sizes and times
    of the files. Raises DataError when the package is not installed or holds no Python source.
    """
    modules = dict(_stdlib()) if package == STDLIB else {package: _files(package)}
    digest = hashlib.sha256(f"{EXTRACTION} {sys.version}".encode())
    for name, files in modules.items():
        for file in files:
            status = file.stat()
            digest.update(f"{name} {file} {status.st_size} {status.st_mtime_ns}\n".encode())
    key = f"{package}-{digest.hexdigest()[:16]}"
    folder = prepared("code_search", key, lambda folder: _write(folder, modules))
    found: dict[str, list[Function]] = {}
    for line in (folder / "functions.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        found.setdefault(entry.pop("module"), []).append(Function(**entry))
    return found


def _write(folder: Path, modules: dict[str, list[Path]]) -> None:
    with (folder / "functions.jsonl").open("w", encoding="utf-8") as out:
        for module, files in modules.items():
            for function in _functions(files):
                line = json.dumps({"module": module} | asdict(function), ensure_ascii=True)
                out.write(line + "\n")


def _functions(files: list[Path]) -> Iterator[Function]:
    for file in files:
        try:
            content = file.read_bytes()
            if len(content) <= LARGEST:
                yield from python_functions(decode_python(content))
        except (SyntaxError, ValueError, RecursionError, MemoryError, OSError):
            continue  # templates and files for other versions of Python are part of packages


def _stdlib() -> Iterator[tuple[str, list[Path]]]:
    root = Path(sysconfig.get_path("stdlib"))
    for name in sorted(sys.stdlib_module_names):
        if files := _sources(root / name if (root / name).is_dir() else root / f"{name}.py"):
            yield name, files


def _files(package: str) -> list[Path]:
    """The source files of one top-level package, by the path finder alone: no code of it runs."""
    valid = package.isidentifier() and package not in sys.builtin_module_names
    spec = PathFinder.find_spec(package) if valid else None
    if spec is None:
        raise DataError(f"packages: {package!r} is not installed{suggest(package, [STDLIB])}")
    places = list(spec.submodule_search_locations or []) or [spec.origin or ""]
    files = [file for place in places for file in _sources(Path(place))]
    if not files:
        raise DataError(f"packages: {package!r} holds no Python source ({', '.join(places)})")
    return files


def _sources(place: Path) -> list[Path]:
    if place.is_file():
        return [place] if place.suffix == ".py" else []
    found = sorted(place.rglob("*.py")) if place.is_dir() else []
    return [f for f in found if f.is_file() and not _TESTS.intersection(f.relative_to(place).parts)]
