"""Whether a pack is what the core wants to meet: light tables, documented components, recipes that travel.

TARGETS = components(pack)

@pytest.mark.parametrize("name", TARGETS)
def test_components(name):
    check_component(TARGETS[name])
"""

import importlib
import inspect
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from counterpoint.hookspecs import GROUP
from counterpoint.packs import compat, contract


def components(pack: ModuleType) -> dict[str, str]:
    """`kind name` -> lazy target, of everything that the tables of a pack list."""
    marked = {name: (hook, getattr(hook, f"{GROUP}_impl", None)) for name, hook in vars(pack).items() if callable(hook)}
    hooks = {mark.get("specname") or name: hook for name, (hook, mark) in marked.items() if isinstance(mark, dict)}
    today = compat.adapted(hooks, pack.COUNTERPOINT_API)
    tables = {kind: today[hook]() for hook, kind in contract.KINDS.items() if hook in today}
    return {f"{kind} {name}": target for kind, table in tables.items() for name, target in table.items()}


def check_component(target: str) -> None:
    """The target is there, documented, and every parameter of it is keyword-only and annotated."""
    module, _, attribute = target.partition(":")
    component = getattr(importlib.import_module(module), attribute)
    assert inspect.getdoc(component), f"{target} has no docstring"
    for parameter in inspect.signature(component).parameters.values():
        assert parameter.kind is parameter.KEYWORD_ONLY, f"{target}: {parameter} is not keyword-only"
        assert parameter.annotation is not parameter.empty, f"{target}: {parameter} has no annotation"


def loaded_by(statement: str, names: Sequence[str]) -> set[str]:
    """Which of the modules `names` a new python has after a statement."""
    code = f"import sys\n{statement}\nprint(*(set({list(names)!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def check_light(module: str, heavy: Sequence[str]) -> None:
    """Importing the pack's module imports none of the modules `heavy`, nor torch or numpy."""
    found = loaded_by(f"import {module}", ["torch", "numpy", *heavy])
    assert not found, f"importing {module} imports {', '.join(sorted(found))}"


def check_distribution(root: Path, recipes: Path, scratch: Path) -> None:
    """The sdist of the source in `root`, and wheels of the source and of that sdist, hold recipes as files, and a licence."""
    build = [sys.executable, "-m", "build", "--no-isolation", str(root), "--outdir"]
    for extra in ([str(scratch)], [str(scratch / "direct"), "--wheel"]):
        done = subprocess.run([*build, *extra], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    contents = {path.name: path.read_bytes() for path in recipes.glob("*.yaml")}
    assert contents, f"there is no recipe in {recipes}"
    wheels = [*scratch.glob("*.whl"), *scratch.glob("direct/*.whl")]
    assert len(wheels) == 2
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            kept = {Path(name).name: archive.read(name) for name in archive.namelist() if "/recipes/" in name}
            assert kept == contents, f"{wheel.name} holds other recipes than {recipes}"
            assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())
    with tarfile.open(next(scratch.glob("*.tar.gz"))) as archive:
        members = [member for member in archive if "/recipes/" in member.name and member.isfile()]
        assert {Path(m.name).name: archive.extractfile(m).read() for m in members} == contents
