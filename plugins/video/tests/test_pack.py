"""The pack as the core meets it: its tables, its recipes, and what a wheel of it holds."""

import importlib
import inspect
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from counterpoint_video import pack

ROOT = Path(__file__).parents[1]
HOOKS = (
    pack.counterpoint_readers,
    pack.counterpoint_encoders,
    pack.counterpoint_view_generators,
    pack.counterpoint_datasets,
)
TARGETS = {name: target for hook in HOOKS for name, target in hook().items()}


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_is_there_keyword_only_annotated_and_documented(name):
    module, _, attribute = TARGETS[name].partition(":")
    component = getattr(importlib.import_module(module), attribute)
    assert inspect.getdoc(component)
    for parameter in inspect.signature(component).parameters.values():
        assert parameter.kind is parameter.KEYWORD_ONLY and parameter.annotation is not parameter.empty, parameter


def loaded_by(statement: str, *names: str) -> set[str]:
    """Which of the modules `names` a new python has after a statement."""
    code = f"import sys\n{statement}\nprint(*(set({names!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_pack_imports_nothing_heavy():
    heavy = ("torch", "numpy", "av", "torchvision", "transformers", "ale_py")
    assert loaded_by("import counterpoint_video.pack as p; assert p.COUNTERPOINT_API == 1", *heavy) == set()


def test_a_component_imports_its_library_when_it_is_built():
    names = ("clip", "camera", "games", "encoders", "views.clips", "views.space", "views.colour")
    modules = ", ".join(f"counterpoint_video.{name}" for name in names)
    assert loaded_by(f"import {modules}", "torchvision", "transformers", "ale_py", "lightning") == set()


def test_recipes_are_there():
    folder = Path(pack.counterpoint_recipes())
    assert {"quickstart", "camera", "cvrl", "from_manifest"} == {path.stem for path in folder.glob("*.yaml")}


@pytest.mark.slow
def test_wheel_and_sdist_hold_the_recipes_as_files(tmp_path):
    """An sdist of the source, and a wheel both of the source and of that sdist."""
    for needed in ("build", "hatchling"):
        pytest.importorskip(needed)
    build = [sys.executable, "-m", "build", "--no-isolation", str(ROOT), "--outdir"]
    subprocess.run([*build, str(tmp_path)], check=True)
    subprocess.run([*build, str(tmp_path / "direct"), "--wheel"], check=True)
    recipes = {path.name: path.read_bytes() for path in Path(pack.counterpoint_recipes()).glob("*.yaml")}
    for wheel in (*tmp_path.glob("*.whl"), *tmp_path.glob("direct/*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            for name, content in recipes.items():
                assert archive.read(f"counterpoint_video/recipes/{name}") == content
            assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        kept = {Path(member.name).name: member for member in archive if "/recipes/" in member.name}
        for name, content in recipes.items():
            assert kept[name].isfile() and archive.extractfile(kept[name]).read() == content
