"""Which requirements of installed distributions are not met, told in a line each; read from metadata, nothing is imported.

Two packs may ask for one library in ways that no version of it answers: pip says so once, while it installs, and then
leaves it at that.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from counterpoint.packs.targets import canonical


@dataclass(frozen=True)
class _Need:
    """What one distribution asks of a library; `by` is its name and version."""

    by: str
    library: str
    versions: SpecifierSet

    def met_by(self, version: str | None) -> bool:
        try:
            return version is not None and self.versions.contains(Version(version), prereleases=True)
        except InvalidVersion:
            return True  # nothing can be said of a version that is none


def clashes(distributions: Iterable[str]) -> list[str]:
    """A line for each library that is missing, or too old or too new for one of `distributions`, and what to do."""
    libraries: dict[str, list[_Need]] = {}
    lines: list[str] = []
    for name in dict.fromkeys(canonical(name) for name in distributions):
        for need in _needs(name, frozenset(), _described(name), set(), lines):
            same = libraries.setdefault(canonical(need.library), [])
            if need not in same:
                same.append(need)
    return lines + [line for _, needs in sorted(libraries.items()) if (line := _clash(needs))]


def _described(name: str) -> str:
    try:
        found = metadata.distribution(name)
        return f"{found.name} {found.version}"
    except metadata.PackageNotFoundError:
        return name


def _needs(name: str, extras: frozenset[str], by: str, seen: set, lines: list[str]) -> Iterator[_Need]:
    """Every requirement that holds here, and what the extras it asks for require in their turn."""
    try:
        written = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return
    for text in written:
        try:
            wanted = Requirement(text)
        except InvalidRequirement:
            lines.append(f"{by}: its requirement {text!r} cannot be read")
            continue
        if not _holds(wanted, extras):
            continue
        yield _Need(by, wanted.name, wanted.specifier)
        key = (canonical(wanted.name), frozenset(wanted.extras))
        if wanted.extras and key not in seen:
            seen.add(key)
            yield from _needs(wanted.name, key[1], by, seen, lines)


def _holds(wanted: Requirement, extras: frozenset[str]) -> bool:
    """Whether a requirement is one of these extras', or, without any, of the distribution alone."""
    if wanted.marker is None:
        return not extras
    alone = wanted.marker.evaluate({"extra": ""})
    return any(wanted.marker.evaluate({"extra": extra}) for extra in extras) and not alone if extras else alone


def _clash(needs: list[_Need]) -> str | None:
    """The line of one library, or None when what is installed suits all."""
    library = needs[0].library
    version = _installed(library)
    unmet = [need for need in needs if not need.met_by(version)]
    if not unmet:
        return None
    state = f"installed is {version}" if version else "which is not installed"
    together = SpecifierSet(",".join(str(need.versions) for need in needs if need.versions))
    if possible(together):
        told = [need for need in needs if need in unmet or need.versions != unmet[0].versions]
        return f"{_all(told)}, {state}: pip install {shlex.quote(_spelled(library, together))}"
    told = [n for n in needs if n in unmet or not all(possible(n.versions & u.versions) for u in unmet)]
    told = told if len(told) > 1 else needs
    which = "both" if len(told) == 2 else "all of them"
    return (
        f"{_all(told)}, {state}: no version suits {which}; pip install -U them, or give each an environment of its own"
    )


def _installed(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def _all(needs: list[_Need]) -> str:
    """Who needs what, those of one mind together."""
    by: dict[str, list[str]] = {}
    for need in needs:
        by.setdefault(_spelled(need.library, need.versions), []).append(need.by)
    return " and ".join(f"{', '.join(who)} need{'' if len(who) > 1 else 's'} {what}" for what, who in by.items())


def _spelled(library: str, versions: SpecifierSet) -> str:
    """As a person would write it: the lower bound first."""
    order = (">=", ">", "~=", "===", "==", "!=", "<", "<=")
    parts = sorted(versions, key=lambda part: (order.index(part.operator), part.version))
    return library + ",".join(dict.fromkeys(map(str, parts)))


def possible(versions: SpecifierSet) -> bool:
    """Whether some version could be within all of these bounds: one at a bound, just above one, or below all."""
    tried = ["0"]
    for part in versions:
        bound = part.version.removesuffix(".*").partition("+")[0]
        head, dot, last = bound.rpartition(".")
        tried += [bound, f"{bound}.0.0.1", f"{head}{dot}{int(last) + 1}" if last.isdigit() else f"{bound}.1"]
    return any(versions.contains(version, prereleases=True) for version in tried if _is_version(version))


def _is_version(text: str) -> bool:
    try:
        return bool(Version(text))
    except InvalidVersion:
        return False
