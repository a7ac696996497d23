"""The house: rooms in their order, nobody in another's private names, and packs that import what they may."""

import ast
import importlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from counterpoint.packs.moved import MOVED

ROOT = Path(__file__).parents[1]
CORE = ROOT / "core/counterpoint"
PAGE = (ROOT / "docs/pack_api.md").read_text(encoding="utf-8")
OURS = [path for place in ("core", "plugins", "benchmarks", "docs") for path in sorted((ROOT / place).rglob("*.py"))]
CODE = [path for path in OURS if not {"tests", "tutorial"} & set(path.parts)]


def lint(**environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as lint; lint()", "--no-cache"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment or None)


def test_rooms_import_from_those_below_them_alone_and_packs_from_no_other():
    ran = lint()
    assert ran.returncode == 0, ran.stdout
    assert "5 kept, 0 broken" in ran.stdout


def test_an_import_against_the_order_is_found(tmp_path):
    shutil.copytree(CORE, tmp_path / "counterpoint", ignore=shutil.ignore_patterns("__pycache__"))
    file = tmp_path / "counterpoint/kernels/plan.py"
    file.write_text(
        file.read_text() + "\n\ndef late():\n    from counterpoint.loop.queue import Queue\n\n    return Queue\n"
    )
    ran = lint(PYTHONPATH=str(tmp_path), PYTHONDONTWRITEBYTECODE="1")
    assert ran.returncode == 1 and "counterpoint.kernels.plan -> counterpoint.loop.queue" in ran.stdout, ran.stdout


def test_a_room_says_what_it_is_for_and_is_not_crowded():
    """At most ten modules in the root and twenty or so in a room; objectives/ is a catalogue."""
    assert len(list(CORE.glob("*.py"))) <= 10
    for room in sorted({path.parent for path in CORE.rglob("*.py")} - {CORE}):
        doc = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8")))
        assert doc, room
        assert room.name == "objectives" or len(list(room.glob("*.py"))) <= 22, room


# Private names


def defined(tree: ast.Module) -> set[str]:
    """Every private name that a file binds: functions, classes, variables, attributes."""
    found = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                found.add(name)
            case ast.arg(arg=name):
                found.add(name)
    return {name for name in found if is_private(name)}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in CODE}
PRIVATE = {path: defined(tree) for path, tree in TREES.items()}
EVERYWHERE = set().union(*PRIVATE.values())


def is_ours(module: str | None) -> bool:
    return (module or "").partition("_")[0].partition(".")[0] == "counterpoint"


def borrowed(path: Path, tree: ast.Module) -> Iterator[str]:
    """Private names of our other files that a file uses, those of a base class included."""
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    theirs = {
        (alias.asname or alias.name).partition(".")[0]
        for node in imported
        for alias in node.names
        if not is_ours(node.module if isinstance(node, ast.ImportFrom) else alias.name)
    }
    for node in imported:
        if isinstance(node, ast.ImportFrom) and is_ours(node.module):
            yield from (f"{node.module}.{alias.name}" for alias in node.names if is_private(alias.name))
    used = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and is_private(node.attr)]
    for node in used:
        elsewhere = node.attr in EVERYWHERE and node.attr not in PRIVATE.get(path, set())
        if elsewhere and ast.unparse(node).partition(".")[0] not in theirs:
            yield ast.unparse(node)


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_uses_a_private_name_of_another(path):
    assert not list(borrowed(path, TREES[path]))


@pytest.mark.parametrize("path", sorted(ROOT.glob("tests/**/test_*.py")), ids=lambda path: path.stem)
def test_no_test_imports_a_private_name(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not [name for name in borrowed(path, tree) if re.search(r"^counterpoint[\w.]*\._\w+$", name)]


def test_a_borrowed_name_is_found():
    own = next(name for name in PRIVATE[CORE / "loop/gather.py"])
    code = f"from counterpoint.loop.gather import {own}\nfrom counterpoint.loop import gather\ngather.{own}\n"
    assert list(borrowed(Path("elsewhere.py"), ast.parse(code))) == [f"counterpoint.loop.gather.{own}", f"gather.{own}"]


# What packs may import


def surface() -> dict[str, set[str]]:
    """module -> the names that packs may import from it, by the page."""
    section = PAGE.partition("## What packs may import")[2].partition("\n## ")[0].partition("| it was |")[0]
    rows = re.findall(r"^\| `([\w.]+)` \| (.+?) \|", section, flags=re.M)
    return {module: set(re.findall(r"`(\w+)`", names)) for module, names in rows}


def imports(text: str) -> Iterator[tuple[str, str]]:
    """(module, name) of everything of the core that a file imports, or names as a target."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "counterpoint":
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((a.name, "") for a in node.names if a.name.partition(".")[0] == "counterpoint")
    yield from re.findall(r"""["'](counterpoint\.[\w.]+):(\w+)["']""", text)


def of_packs() -> dict[str, str]:
    """Every file of the six packs, of the template and of the tutorial, and what packs' pages show."""
    paths = [*ROOT.glob("plugins/**/*.py"), *CORE.glob("template/**/*.py.tmpl"), *ROOT.glob("docs/tutorial/**/*.py")]
    files = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in sorted(paths)}
    for page in ("docs/hooks.md", "docs/packs.md", "docs/tutorial/README.md"):
        shown = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), flags=re.S | re.M)
        files |= {f"{page} {number}": block for number, block in enumerate(shown) if "import" in block}
    return files


def test_packs_import_from_the_surface_alone():
    allowed, files = surface(), of_packs()
    beyond = [
        f"{path}: {module}.{name}"
        for path, text in files.items()
        for module, name in imports(plain(text))
        if name not in allowed.get(module, set()) and (module, name) != ("counterpoint", "")
    ]
    assert not beyond and len(files) > 100
    assert {module for text in files.values() for module, _ in imports(plain(text))} > {"counterpoint.batch"}


def plain(text: str) -> str:
    """A file of the template as Python: its blanks filled in."""
    return re.sub(r"\$\{\w+\}|\{\{\w+\}\}|\$\w+", "x", text)


@pytest.mark.parametrize("module", surface())
def test_what_packs_may_import_is_there(module):
    assert all(hasattr(importlib.import_module(module), name) for name in surface()[module])


def test_a_module_that_moved_is_the_same_by_its_former_name():
    shown = dict(re.findall(r"^\| `([\w.]+)` \| `([\w.]+)` \|$", PAGE.partition("| it was |")[2], flags=re.M))
    assert shown == MOVED
    for before, now in MOVED.items():
        old, new = importlib.import_module(before), importlib.import_module(now)
        assert old is new and new.__spec__.name == now
        parent, _, name = before.rpartition(".")
        assert getattr(importlib.import_module(parent), name) is new
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'counterpoint\.nowhere'"):
        importlib.import_module("counterpoint.nowhere")
