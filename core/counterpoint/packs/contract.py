"""Whether a pack keeps the contract of `hookspecs`; each breach is blamed on the pack, and costs only what it breaks."""

import inspect
import os
import re
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from counterpoint import hookspecs
from counterpoint.errors import suggest
from counterpoint.hookspecs import GROUP
from counterpoint.packs import compat, targets

RECIPES = "counterpoint_recipes"
KINDS = {
    "counterpoint_datasets": "dataset",
    "counterpoint_readers": "reader",
    "counterpoint_encoders": "encoder",
    "counterpoint_view_generators": "view",
    "counterpoint_objectives": "objective",
    "counterpoint_evaluators": "evaluator",
    "counterpoint_callbacks": "callback",
}
HOOKS = (*KINDS, RECIPES)
MOST = 10_000  # entries of a table: more are a mistake, and would be listed
_NO_RESULT = object()


class Entry(Protocol):
    """Where breaches are blamed."""

    module: str
    distribution: str

    def blame(self, problem: str, remedy: str, where: str | None = None) -> None: ...
    def blame_error(self, what: str, error: BaseException) -> None: ...


def hook_of(kind: str) -> str | None:
    """The hook whose table lists components of a kind; None for a kind that no pack brings."""
    return next((hook for hook, listed in KINDS.items() if listed == kind), None)


def describe(error: BaseException) -> str:
    """Type and first line of an error's message."""
    try:
        text = str(error.msg if isinstance(error, SyntaxError) else error)
    except Exception:
        text = "(its message cannot be shown)"
    first = "".join(c for c in text.strip().partition("\n")[0] if c.isprintable())
    return f"{type(error).__name__}: {first[:200]}" if first else type(error).__name__


def place(error: BaseException, module: str) -> str | None:
    """`file:line` of the deepest line of the pack that led to `error`."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    roots = _roots(module.partition(".")[0])
    lines = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    inside = [f"{file}:{line}" for file, line in lines if any(file == r or file.startswith(r + os.sep) for r in roots)]
    return inside[-1] if inside else None


def _roots(package: str) -> list[str]:
    spec = targets.locate(package)
    if spec is None:
        return []
    return list(spec.submodule_search_locations or [spec.origin or ""])


def spoken_version(module: Any, entry: Entry) -> int | None:
    """COUNTERPOINT_API, if this core speaks that version."""
    version, ours = getattr(module, "COUNTERPOINT_API", None), hookspecs.API_VERSION
    if type(version) is int and version in compat.spoken():
        return version
    where = targets.line_of(entry.module, "COUNTERPOINT_API")
    speaks = f"this core speaks {' and '.join(map(str, compat.spoken()))} ({compat.PAGE})"
    if version is None:
        entry.blame("COUNTERPOINT_API is missing", f"add COUNTERPOINT_API = {ours} to the pack's module", where)
    elif type(version) is not int:
        entry.blame(f"COUNTERPOINT_API must be an int, got {version!r}", f"write COUNTERPOINT_API = {ours}", where)
    elif version < ours:
        problem = f"it is written for the older API {version}; {speaks}"
        entry.blame(problem, f"pip install -U {entry.distribution}", where)
    else:
        problem = f"it is written for the newer API {version}; {speaks}"
        entry.blame(problem, f"pip install -U counterpoint, or install an older {entry.distribution}", where)
    return None


def sound_hooks(module: Any, entry: Entry, version: int) -> dict[str, Callable]:
    """Today's name of a hook -> function, of the hooks that can be called; the others are blamed."""
    hooks, known = {}, compat.hooks(version, HOOKS)
    for name in dir(module):
        value = getattr(module, name, None)
        if isinstance(value, ModuleType):
            continue  # `import counterpoint_ecg` is no misspelt hook
        options = getattr(value, f"{GROUP}_impl", None) if callable(value) else None
        if name.startswith("counterpoint_") or isinstance(options, dict):
            name = (options or {}).get("specname") or name
            if breach := _breach(name, value, options, known):
                entry.blame(*breach, _line(value) or targets.line_of(entry.module, name))
            else:
                hooks[name] = value
    return compat.adapted(hooks, version)


def _breach(name: str, value: Any, options: dict | None, known: tuple[str, ...]) -> tuple[str, str] | None:
    """Problem and remedy of one hook."""
    if name not in known:
        return f"{name} is not a hook{suggest(name, known)}", "rename it"
    if not inspect.isroutine(value):
        return f"{name} is not a function: {type(value).__name__}", "write a function that returns it"
    if not isinstance(options, dict):
        return f"{name} is not marked as a hook", "put @hookimpl above it (from counterpoint.hookspecs import hookimpl)"
    if options.get("wrapper") or options.get("hookwrapper"):
        return f"{name} is a hook wrapper", "write a plain @hookimpl"
    parameters = inspect.signature(value).parameters.values()
    wanted = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if wanted:
        return f"{name} takes no arguments; this one has: {', '.join(wanted)}", "remove them"
    return None


def call(name: str, function: Callable, entry: Entry) -> Any:
    """What a hook returns; when it raises, that is blamed."""
    try:
        return function()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        entry.blame_error(f"{name} raises", error)
        return _NO_RESULT


def table(name: str, function: Callable, result: Any, entry: Entry) -> dict[str, str]:
    """The entries of a returned table that have the right form."""
    if result is _NO_RESULT:
        return {}
    if not isinstance(result, Mapping):
        problem = f"{name} must return a dict of name -> 'module:attribute', got {type(result).__name__}"
        entry.blame(problem, "return such a dict", _line(function))
        return {}
    if len(result) > MOST:
        entry.blame(
            f"{name} returned {len(result):,} entries, at most {MOST:,} are taken", "name fewer", _line(function)
        )
        return {}
    sound = {}
    for short, target in result.items():
        if problem := _bad_row(short, target):
            entry.blame(f"{name}: {problem}", "correct this entry of the table", _line(function))
        else:
            sound[short] = target
    return sound


def _bad_row(short: Any, target: Any) -> str | None:
    if not isinstance(short, str) or not re.fullmatch(r"[\w-]+", short):
        return f"a name must be a str of letters, digits, _ and -, got {short!r}"
    if not isinstance(target, str) or not targets.SHAPE.fullmatch(target):
        return f"{short!r} must be a str 'module:attribute', got {target!r}"
    return None


def folder(function: Callable, result: Any, entry: Entry) -> Path | None:
    """The folder that the hook for recipes returned, if it is one."""
    if result is _NO_RESULT:
        return None
    if not isinstance(result, str | os.PathLike):
        entry.blame(
            f"{RECIPES} must return a path as a str, got {type(result).__name__}", "return one", _line(function)
        )
    elif not Path(result).is_dir():
        entry.blame(f"{RECIPES}: {str(result)!r} is not a folder", "return the folder of the recipes", _line(function))
    else:
        return Path(result)
    return None


def _line(value: Any) -> str | None:
    code = getattr(inspect.unwrap(value), "__code__", None) if callable(value) else None
    return f"{code.co_filename}:{code.co_firstlineno}" if code else None
