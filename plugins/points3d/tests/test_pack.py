"""The pack as the core meets it: its tables, its recipes, and what a wheel of it holds."""

import importlib
import inspect
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from counterpoint_points3d import pack

ROOT = Path(__file__).parents[1]
HOOKS = (
    pack.counterpoint_encoders,
    pack.counterpoint_view_generators,
    pack.counterpoint_readers,
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


def test_the_pack_imports_nothing_heavy():
    code = (
        "import sys, counterpoint_points3d.pack as pack\n"
        "assert pack.COUNTERPOINT_API == 1\n"
        "heavy = {'torch', 'numpy', 'trimesh', 'laspy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "import counterpoint_points3d.reader, counterpoint_points3d.furniture\n"
        "heavy = {'trimesh', 'laspy', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_recipes_are_there():
    folder = Path(pack.counterpoint_recipes())
    assert {"quickstart", "from_manifest", "captions", "modelnet"} <= {path.stem for path in folder.glob("*.yaml")}


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
                assert archive.read(f"counterpoint_points3d/recipes/{name}") == content
            assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        kept = {Path(member.name).name: member for member in archive if "/recipes/" in member.name}
        for name, content in recipes.items():
            assert kept[name].isfile() and archive.extractfile(kept[name]).read() == content
