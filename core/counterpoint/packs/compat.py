"""How a core reads packs that are written for the API version before its own.

A core speaks `hookspecs.API_VERSION` and, where there is one, the version before. What has changed since is listed in
CHANGES, each change with what makes a part of an older pack a part of today's; a new version begins with an empty list,
and with it the one before the last is no longer spoken. docs/pack_api.md has the policy and every version.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from counterpoint import hookspecs

FIRST = 1  # the first version that was released
PAGE = "docs/pack_api.md"


@dataclass(frozen=True)
class Change:
    """One thing that this API version changed, and how the version before is read.

    what       told to the pack's author: "counterpoint_view_generators is counterpoint_views"
    hook       its name in the version before; now: its name in this one, None when it is the same
    result     what the hook returned before -> what it returns now; None: the same
    component  what a target of its table built before -> what is built now (an encoder); None: the same
    """

    what: str
    hook: str
    now: str | None = None
    result: Callable[[Any], Any] | None = None
    component: Callable[[Any], Any] | None = None

    @property
    def name(self) -> str:
        """The hook's name in this version."""
        return self.now or self.hook


CHANGES: tuple[Change, ...] = ()  # from API_VERSION - 1 to API_VERSION


def spoken() -> tuple[int, ...]:
    """The versions that this core speaks, its own first."""
    return tuple(version for version in (hookspecs.API_VERSION, hookspecs.API_VERSION - 1) if version >= FIRST)


def since(version: int | None) -> tuple[Change, ...]:
    """What has changed since a spoken version; None is this core's own."""
    return () if version in (None, hookspecs.API_VERSION) else CHANGES


def hooks(version: int, today: Iterable[str]) -> tuple[str, ...]:
    """The names of the hooks in a spoken version; `today`: those of this one."""
    older = {change.name: change.hook for change in since(version)}
    return tuple(older.get(name, name) for name in today)


def adapted(found: dict[str, Callable], version: int) -> dict[str, Callable]:
    """Hooks of a pack of a spoken version under today's names, returning what is returned today."""
    found = dict(found)
    for change in since(version):
        if function := found.pop(change.hook, None):
            found[change.name] = _returning(change.result, function)
    return found


def _returning(result: Callable | None, function: Callable) -> Callable:
    @functools.wraps(function)
    def adaptor():
        return result(function()) if result else function()

    return hookspecs.hookimpl(adaptor)  # without the specname that the older hook may have had


def built(made: Any, hook: str | None, version: int | None) -> Any:
    """What a target in the table of `hook` (today's name) has built, as it is today."""
    for change in since(version):
        if change.name == hook and change.component:
            made = change.component(made)
    return made


def deprecation(version: int | None) -> str | None:
    """What to say of a pack of the version before, in one line; None when there is nothing to say."""
    if version in (None, hookspecs.API_VERSION):
        return None
    changed = "; ".join(change.what for change in since(version)) or "nothing that it needs to know"
    return (
        f"is written for API {version}, which the core that speaks {hookspecs.API_VERSION + 1} will refuse; "
        f"it works until then; changed since: {changed}; see {PAGE}"
    )
