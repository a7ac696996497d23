"""Finds installed packs and contains the broken ones.

An entry point of the group `counterpoint` is imported, checked against the contract of `hookspecs` and asked for its
tables of lazy targets. Whatever goes wrong is recorded as a Fault and costs no more than the table entry, the hook or
the pack at fault. This protects against accidents, not against malice: a pack is code that runs.
"""

import os
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from counterpoint import hookspecs
from counterpoint.errors import suggest
from counterpoint.packs import compat, contract, targets
from counterpoint.packs.isolation import isolated


@dataclass(frozen=True)
class Fault:
    """What is wrong with a pack, where (`file:line` when known), and what to do about it."""

    distribution: str
    version: str
    entry: str
    where: str | None
    problem: str
    remedy: str

    def __str__(self) -> str:
        place = f" at {self.where}" if self.where else ""
        return f"{self.distribution} {self.version} (pack {self.entry!r}){place}: {self.problem}; {self.remedy}"


@dataclass(frozen=True, eq=False)
class Pack:
    """A pack that can be used: kind -> short name -> lazy target, its folder of recipes, and the API version it is written for.

    api  None: this core's own
    """

    distribution: str
    version: str
    entry: str
    module: str
    tables: dict[str, dict[str, str]] = field(default_factory=dict)
    recipes: Path | None = None
    api: int | None = None

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


@dataclass(frozen=True)
class Discovery:
    """The packs found, every fault, and the packs that were not looked at: entry -> why."""

    packs: list[Pack]
    faults: list[Fault]
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def deprecated(self) -> list[str]:
        """A line for each pack that is written for the API version before this one."""
        said = [(pack, compat.deprecation(pack.api)) for pack in self.packs]
        return [f"{pack} (pack {pack.entry!r}) {text}" for pack, text in said if text]


@dataclass
class _Entry:
    """One entry point, and the faults found behind it."""

    point: metadata.EntryPoint
    distribution: str
    version: str
    faults: list[Fault]

    @property
    def module(self) -> str:
        return self.point.value.partition(":")[0].strip()  # the stock property fails on a malformed value

    def blame(self, problem: str, remedy: str, where: str | None = None) -> None:
        self.faults.append(Fault(self.distribution, self.version, self.point.name, where, problem, remedy))

    def blame_error(self, what: str, error: BaseException) -> None:
        where = contract.place(error, self.module)
        self.blame(f"{what}: {contract.describe(error)}", self._remedy(error), where)

    def _remedy(self, error: BaseException) -> str:
        gone = error.name if isinstance(error, ModuleNotFoundError) else None
        if gone and gone.partition(".")[0] != self.module.partition(".")[0]:
            return targets.pip_install(gone, self.distribution)
        return f"pip install -U {self.distribution}, or mend it, or pip uninstall {self.distribution}"


def discover(*, enabled: bool | None = None, only: list[str] | None = None) -> Discovery:
    """Every installed pack, broken ones contained; only KeyboardInterrupt passes.

    enabled  False looks at no pack; by default so when COUNTERPOINT_NO_PACKS is set
    only     entry-point or distribution names to look at; by default those of COUNTERPOINT_PACKS, else all
    """
    enabled = not os.environ.get("COUNTERPOINT_NO_PACKS") if enabled is None else enabled
    only = _names(os.environ.get("COUNTERPOINT_PACKS", "")) if only is None else only
    faults: list[Fault] = []
    entries = _entries(faults)
    if not enabled:
        return Discovery([], [], {entry.point.name: "packs are switched off (--no-packs)" for entry in entries})
    chosen = [entry for entry in entries if not only or _is_named(entry, only)]
    faults += _unknown(only, entries)
    manager = pluggy.PluginManager(hookspecs.GROUP)
    manager.add_hookspecs(hookspecs)
    packs = [pack for entry in chosen if (pack := _admit(entry, manager))]
    out = {entry.point.name for entry in entries} - {entry.point.name for entry in chosen}
    why = f"it is not among the chosen packs ({', '.join(only)})"
    return Discovery(packs, faults, {name: why for name in sorted(out)})


def dead_targets(discovery: Discovery) -> list[Fault]:
    """A fault for every target whose module or attribute does not exist, found without importing them."""
    return [
        Fault(pack.distribution, pack.version, pack.entry, None, f"{kind} {name!r} = {target!r}: {why}", remedy)
        for pack in discovery.packs
        for kind, table in pack.tables.items()
        for name, target in table.items()
        if (why := targets.missing(target))
        for remedy in [f"pip install -U {pack.distribution}, or mend its table"]
    ]


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _is_named(entry: _Entry, names: list[str]) -> bool:
    return entry.point.name in names or targets.canonical(entry.distribution) in map(targets.canonical, names)


def _unknown(only: list[str], entries: list[_Entry]) -> list[Fault]:
    known = {entry.point.name for entry in entries} | {entry.distribution for entry in entries}
    problem, version = "COUNTERPOINT_PACKS names it, but there is no such pack", "(not installed)"
    return [
        Fault(name, version, name, None, problem, f"correct the name{suggest(name, known)}")
        for name in only
        if not any(_is_named(entry, [name]) for entry in entries)
    ]


def _entries(faults: list[Fault]) -> list[_Entry]:
    """The entry points of the group, by name and distribution; one distribution names a pack once."""
    try:
        points = list(metadata.entry_points(group=hookspecs.GROUP))
    except Exception:
        points = _readable_entry_points(faults)
    entries: dict[tuple[str, str], _Entry] = {}
    for point in points:
        entry = _Entry(
            point, getattr(point.dist, "name", None) or "?", getattr(point.dist, "version", None) or "?", faults
        )
        first = entries.setdefault((point.name, targets.canonical(entry.distribution)), entry)
        if first is not entry:
            entry.blame(
                f"the entry point {point.name!r} is declared twice", f"{first.point.value!r} is used; remove one"
            )
    return [entries[key] for key in sorted(entries)]


def _readable_entry_points(faults: list[Fault]) -> list[metadata.EntryPoint]:
    """The group's entry points, one distribution at a time: one damaged entry_points.txt stops the stock function."""
    points: list[metadata.EntryPoint] = []
    for distribution in metadata.distributions():
        try:
            points += distribution.entry_points.select(group=hookspecs.GROUP)
        except Exception as error:
            name, version = (getattr(distribution, key, None) or "?" for key in ("name", "version"))
            problem = f"its entry points cannot be read: {contract.describe(error)}"
            faults.append(Fault(name, version, "?", None, problem, f"pip install --force-reinstall {name}"))
    return points


def _admit(entry: _Entry, manager: pluggy.PluginManager) -> Pack | None:
    """The pack behind an entry point, or None when it cannot be imported or follows another contract."""
    with isolated():
        try:
            module = entry.point.load()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return entry.blame_error("its import fails", error)
        try:
            if version := contract.spoken_version(module, entry):
                return _read(module, entry, manager, version)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return entry.blame_error("it cannot be read", error)


def _read(module: Any, entry: _Entry, manager: pluggy.PluginManager, version: int) -> Pack:
    """Registers the sound hooks of a pack and calls each of them once."""
    key = f"{entry.distribution}:{entry.point.name}"
    plugin = ModuleType(key)  # holds the sound hooks alone: pluggy refuses a plugin as a whole
    for name, function in contract.sound_hooks(module, entry, version).items():
        setattr(plugin, name, function)
    manager.register(plugin, name=key)
    tables, recipes = {}, None
    for caller in manager.get_hookcallers(plugin) or ():
        function = next(hook.function for hook in caller.get_hookimpls() if hook.plugin is plugin)
        result = contract.call(caller.name, function, entry)
        if caller.name == contract.RECIPES:
            recipes = contract.folder(function, result, entry)
        elif table := contract.table(caller.name, function, result, entry):
            tables[contract.KINDS[caller.name]] = table
    return Pack(entry.distribution, entry.version, entry.point.name, entry.module, tables, recipes, version)
