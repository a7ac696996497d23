"""What the kit says of a pack: findings, each with its place and its remedy, and what could not be tried."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from counterpoint.packs import contract


@dataclass(frozen=True)
class Finding:
    """One thing to mend: `where` is file:line of the definition, or of the line that failed."""

    where: str
    who: str
    what: str
    expected: str
    got: str
    mend: str

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.who}: {self.what}"]
        lines += [f"    {title:<8}  {text}" for title in ("expected", "got", "mend") if (text := getattr(self, title))]
        return "\n".join(lines)


class Broken(Exception):
    """A check that failed, told by what was expected and got; the kit knows where and of whom."""

    def __init__(self, what: str, *, expected: str, got: str, mend: str, where: str | None = None):
        self.what, self.expected, self.got, self.mend, self.where = what, expected, got, mend, where
        super().__init__(what)


class Untried(Exception):
    """There is nothing to try a component on; the message says why."""


@dataclass
class Report:
    """What came of the checks of one pack: how many passed, the findings, and who could not be tried, with the reason.

    deprecated  what to say of its API version, while the core still speaks it
    """

    pack: str
    passed: int = 0
    tried: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    untried: dict[str, str] = field(default_factory=dict)
    deprecated: str | None = None

    def __str__(self) -> str:
        lines = [*map(str, self.findings)]
        if self.untried:
            lines += ["not tried:", *(f"  {who}: {why}" for who, why in self.untried.items())]
        if self.deprecated:
            lines.append(f"deprecated: {self.pack} {self.deprecated}")
        found = f"{len(self.findings)} to mend, " if self.findings else ""
        lines.append(
            f"{self.pack}: {found}{self.passed} checks passed of {len({*self.tried} - {*self.untried})} things tried"
        )
        return "\n".join(lines)

    def attempt(self, who: str, where: str, module: str, check: Callable[[], Any]) -> bool:
        """Whether a check passes; what it raises becomes a finding, at the line of the pack that failed."""
        try:
            check()
        except Untried as why:
            self.untried[who] = str(why)
            return False
        except Broken as broken:
            self.findings.append(
                Finding(shown(broken.where or where), who, broken.what, broken.expected, broken.got, broken.mend)
            )
            return False
        except Exception as error:
            place = contract.place(error, module) or where
            mend = "mend this line, or refuse what it cannot take with a ComponentError that says so"
            self.findings.append(
                Finding(shown(place), who, f"fails: {check_name(check)}", "no error", contract.describe(error), mend)
            )
            return False
        self.passed += 1
        return True


def check_name(check: Callable) -> str:
    """What a check is about, in words: its name."""
    function = check.func if isinstance(check, functools.partial) else check
    return function.__name__.replace("_", " ")


def place(thing: Any) -> str:
    """`file:line` of the definition of a class or function, or of an instance's class."""
    thing = inspect.unwrap(thing) if inspect.isroutine(thing) or inspect.isclass(thing) else type(thing)
    try:
        return f"{inspect.getsourcefile(thing)}:{inspect.getsourcelines(thing)[1]}"
    except (OSError, TypeError):
        return getattr(thing, "__module__", "?")


def shown(where: str) -> str:
    """A place as seen from this folder."""
    here = os.getcwd() + os.sep
    return where.removeprefix(here)
