"""`counterpoint new-pack NAME`: a complete pack to start from, in a new folder."""

import argparse
import keyword
import re
from importlib import metadata, resources
from pathlib import Path

from counterpoint.errors import CounterpointError
from counterpoint.hookspecs import API_VERSION
from counterpoint.packs import builtin, registry, targets

SUFFIX = ".tmpl"
HIDDEN = "dot-"  # a template's name must not hide it from version control and from wheels


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="what recipes write before the dot, such as seismo")


def run(args: argparse.Namespace) -> int:
    folder = Path(args.name)
    _check(args.name)
    if folder.exists() or folder.is_symlink():
        raise CounterpointError(
            f"new-pack: {folder} exists and is not overwritten; choose another name, or move it away"
        )
    _write(folder, _contents(args.name))
    print(
        f"{folder}\nnext:\n  pip install -e ./{folder}\n  counterpoint check-pack {args.name}\n"
        f"  counterpoint fit {args.name}/quickstart"
    )
    return 0


def _check(name: str) -> None:
    """CounterpointError for a name that no package can have, or that something installed has."""
    if not re.fullmatch(r"[a-z](_?[a-z0-9])*", name) or keyword.iskeyword(name):
        raise CounterpointError(
            f"new-pack: {name!r} cannot name a pack; expected a python identifier of lower-case letters, digits and "
            "single '_', such as seismo"
        )
    discovery = registry.installed().discovery
    known = {**{pack.entry: str(pack) for pack in discovery.packs}, **dict.fromkeys(discovery.left_out, "left out")}
    known |= {
        fault.entry: f"{fault.distribution} {fault.version}" for fault in discovery.faults if fault.entry not in known
    }
    if name in known:
        raise CounterpointError(f"new-pack: {name!r} is the name of an installed pack ({known[name]}); choose another")
    if kinds := [kind for kind, table in builtin.TABLES.items() if name in table]:
        raise CounterpointError(f"new-pack: {name!r} is the name of the core's {kinds[0]} {name!r}; choose another")
    if targets.locate(f"counterpoint_{name}") is not None:
        raise CounterpointError(f"new-pack: there is a package counterpoint_{name} already; choose another name")


def _contents(name: str) -> dict[str, str]:
    """Path in the pack -> text."""
    try:
        version = ".".join(metadata.version("counterpoint").split(".")[:2])
    except metadata.PackageNotFoundError:
        version = "0.1"
    values = {"name": name, "dashed": name.replace("_", "-"), "api": str(API_VERSION), "version": version}
    root = Path(str(resources.files("counterpoint") / "template"))
    files = sorted(path for path in root.rglob(f"*{SUFFIX}") if path.is_file())
    return {_place(path.relative_to(root), name): _filled(path.read_text(encoding="utf-8"), values) for path in files}


def _place(template: Path, name: str) -> str:
    parts = [f"counterpoint_{name}" if part == "package" else part.replace(HIDDEN, ".", 1) for part in template.parts]
    return "/".join(parts).removesuffix(SUFFIX)


def _filled(text: str, values: dict[str, str]) -> str:
    for key, value in values.items():
        text = text.replace("{{" + key + "}}", value)
    return text


def _write(folder: Path, contents: dict[str, str]) -> None:
    try:
        folder.mkdir()
        for name, text in contents.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CounterpointError(f"new-pack: {folder} cannot be written: {error.strerror}") from error
