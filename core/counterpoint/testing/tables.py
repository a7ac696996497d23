"""What is checked of a pack without data: its module and tables, and that a recipe can name its components."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial

from pydantic import ValidationError

from counterpoint.errors import ComponentError
from counterpoint.packs import targets
from counterpoint.packs.discovery import Pack
from counterpoint.packs.registry import Component
from counterpoint.testing.finding import Broken, place

LIGHT = ("counterpoint", "pluggy")  # what a module of tables may import beside the standard library and its own package

# Runs alone in a new interpreter: imports the module of a pack, and tells what that did and which line of the pack did it.
_IMPORTING = """
import builtins, json, random, sys, traceback
sys.path[:], package, module, light, tracing = json.loads({given!r})
import counterpoint.hookspecs
found = {{"imports": {{}}, "prints": [], "random": None}}
def line():
    frames = [f for f, _ in traceback.walk_stack(None) if f.f_globals.get("__name__", "").partition(".")[0] == package]
    return f"{{frames[0].f_code.co_filename}}:{{frames[0].f_lineno}}" if frames else None
class Watch:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if name == top and top not in sys.stdlib_module_names and top not in (package, *light):
            found["imports"].setdefault(top, line())
class Out:
    def write(self, text):
        if text.strip():
            found["prints"].append((text.strip()[:80], line()))
        return len(text)
    def flush(self): pass
def trace(frame, event, value):
    if frame.f_globals.get("__name__", "").partition(".")[0] != package:
        return None
    if found["random"] in (None, True) and random.getstate() != state and event in ("line", "return"):
        found["random"] = last[0] or f"{{frame.f_code.co_filename}}:{{frame.f_lineno}}"
    last[0] = f"{{frame.f_code.co_filename}}:{{frame.f_lineno}}"
    return trace
before, out = set(sys.modules), sys.stdout
sys.meta_path.insert(0, Watch())
sys.stdout = sys.stderr = Out()
state, last = random.getstate(), [None]
sys.settrace(trace if tracing else None)
try:
    __import__(module)
finally:
    sys.settrace(None)
    found["random"] = found["random"] or random.getstate() != state or None
    sys.stdout, sys.stderr = out, sys.__stderr__
found["imports"] = {{name: at for name, at in found["imports"].items() if name in sys.modules and name not in before}}
json.dump(found, out)
"""


def importing(pack: Pack) -> dict:
    """What importing the pack's module in a new interpreter imports, prints and draws, with the line of each."""
    found = _imported(pack, tracing=False)
    if found["random"]:  # which line it was, is slow to find out
        found["random"] = _imported(pack, tracing=True)["random"]
        found["random"] = (
            found["random"] if isinstance(found["random"], str) else targets.line_of(pack.module, "import")
        )
    return found


def _imported(pack: Pack, tracing: bool) -> dict:
    given = json.dumps([sys.path, pack.module.partition(".")[0], pack.module, LIGHT, tracing])
    done = subprocess.run([sys.executable, "-c", _IMPORTING.format(given=given)], capture_output=True, text=True)
    if done.returncode:
        raise Broken(
            "cannot be imported in a new interpreter",
            expected="no error",
            got=(done.stderr.strip().splitlines() or ["?"])[-1],
            mend=f"python -c 'import {pack.module}' shows the traceback",
        )
    return json.loads(done.stdout)


def imports_nothing_heavy(found: dict) -> None:
    for name, where in found["imports"].items():
        raise Broken(
            f"importing the module of tables imports {', '.join(found['imports'])}",
            expected="the standard library, counterpoint.hookspecs and the pack's own light modules alone",
            got=f"import of {name}",
            mend="import it in the modules that the tables point at; a table holds 'module:attribute' strings",
            where=where,
        )


def prints_nothing(found: dict) -> None:
    for text, where in found["prints"]:
        raise Broken(
            "prints when it is imported",
            expected="silence: every command imports every pack",
            got=repr(text),
            mend="remove the print, or print where a component is built",
            where=where,
        )


def draws_nothing(found: dict) -> None:
    if found["random"]:
        raise Broken(
            "draws random numbers when it is imported",
            expected="python's random state as it was",
            got="another one after this line",
            mend="draw where a sample is read or a view is made",
            where=found["random"],
        )


def resolves(component: Component) -> None:
    """The lazy target is there, and importing it prints nothing."""
    printed = _Printed(component.provider.module)
    try:
        with contextlib.redirect_stderr(printed):  # where `load` sends what is printed
            component.load()
    except ComponentError as error:
        cause = error.__cause__ or error
        raise Broken(
            "its target does not resolve",
            expected=f"{component.target!r} can be imported",
            got=f"{type(cause).__name__}: {str(cause).partition(chr(10))[0]}",
            mend="correct the table, or what the module imports",
            where=_row(component),
        ) from error
    if printed.found:
        text, where = printed.found[0]
        raise Broken(
            "prints when it is imported",
            expected="silence",
            got=repr(text),
            mend="remove the print, or print where the component is built",
            where=where,
        )


class _Printed(io.TextIOBase):
    """Keeps what is written by lines of the pack, and which."""

    def __init__(self, module: str):
        self.package, self.found = module.partition(".")[0], []

    def write(self, text: str) -> int:
        frame = sys._getframe(1)
        while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] != self.package:
            frame = frame.f_back
        if frame is not None and text.strip():
            self.found.append((text.strip()[:80], f"{frame.f_code.co_filename}:{frame.f_lineno}"))
        return len(text)


def _row(component: Component) -> str | None:
    """The line of the pack's module in which the target stands."""
    module = component.provider.module
    lines = (targets.source(module) or "").splitlines()
    spec = targets.locate(module)
    row = next((i for i, text in enumerate(lines, 1) if component.target in text), 1)
    return f"{spec.origin}:{row}" if spec else None


def has_an_explicit_signature(component: Component) -> None:
    try:
        component.parameters()
    except ComponentError as error:
        reason = str(error).partition("cannot be used in a recipe: ")[2] or str(error)
        raise Broken(
            "a recipe cannot name its parameters",
            expected="every parameter keyword-only and annotated, no *args and no **kwargs",
            got=reason,
            mend="write `*, width: int = 64`; Channels, Rate and others of counterpoint.markers are filled from the data",
            where=_signature(component),
        ) from error


def _signature(component: Component) -> str:
    factory = component.load()
    return place(factory.__init__ if isinstance(factory, type) and "__init__" in vars(factory) else factory)


def has_valid_defaults(component: Component) -> None:
    from counterpoint.recipe import values

    for parameter in component.parameters().values():
        if parameter.required:
            continue
        try:
            values.adapter(parameter.hint).validate_python(parameter.default)
        except ValidationError as error:
            raise Broken(
                f"the default of {parameter.name!r} is not what its annotation says",
                expected=str(error.errors()[0]["msg"]),
                got=f"{parameter.name} = {parameter.default!r}",
                mend="correct the default or the annotation",
                where=_signature(component),
            ) from error


def has_a_docstring(component: Component) -> None:
    """Its own: one that a base class has says nothing of it."""
    if not (component.load().__doc__ or "").strip():
        raise Broken(
            "it has no docstring",
            expected="one sentence, then shapes, units and the source: `counterpoint list` and `show` print it",
            got="none",
            mend='begin it with """What it is: shapes in -> shapes out."""',
        )


def defines_its_version(pack: Pack, faults: list) -> list[Callable[[], None]]:
    """A check for each fault that discovery found, API version and hooks among them; one that passes when there is none."""
    return [partial(_raise_fault, fault) for fault in faults] or [lambda: None]


def _raise_fault(fault) -> None:
    problem, _, got = fault.problem.partition(", got ")
    mend = re.sub(r"^pip install -U \S+, or mend it.*", "mend it", fault.remedy)
    expected = "a pack that keeps its contract with the core (docs/packs.md)"
    raise Broken(problem, expected=expected, got=got or "another", mend=mend, where=fault.where)


COMPONENT_CHECKS = (resolves, has_an_explicit_signature, has_valid_defaults, has_a_docstring)
