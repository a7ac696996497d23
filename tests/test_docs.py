"""The documentation says what the code does: hooks, components, the README's snippets and first command."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from counterpoint import hookspecs

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
HOOKS = [name for name in vars(hookspecs) if name.startswith("counterpoint_")]


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_documented_with_its_signature(hook):
    page = (ROOT / "docs/packs.md").read_text(encoding="utf-8")
    arguments = ", ".join(inspect.signature(getattr(hookspecs, hook)).parameters)
    assert f"`{hook}({arguments})`" in page
    assert getattr(hookspecs, hook).__doc__


def test_the_contract_fits_one_screen():
    assert len(inspect.getsource(hookspecs).splitlines()) < 60


def test_the_first_page_shows_what_the_readme_shows():
    page = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    assert re.findall(r"```\n(.*?)```", page, flags=re.S) == re.findall(r"```\n(.*?)```", README, flags=re.S)[:2]


def test_the_reference_is_up_to_date():
    ran = subprocess.run([sys.executable, str(ROOT / "docs/generate.py"), "--check"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("name", ["speed", "faults", "quickstart"])
def test_a_block_of_the_readme_is_what_was_recorded(name):
    code = f"import readme, {name}; assert readme.with_block({name!r}, {name}.markdown()) == readme.README.read_text(encoding='utf-8')"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "benchmarks", capture_output=True, text=True)
    assert ran.returncode == 0, f"python benchmarks/{name}.py; {ran.stderr}"


def test_the_python_of_the_readme_runs():
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    scope = {}
    exec(compile(code, "README.md", "exec"), scope)
    assert scope["loss"].ndim == 0 and tuple(scope["h"].shape) == (8, 128)


def test_the_recipe_of_the_readme_is_the_quickstart():
    (shown,) = re.findall(r"```yaml\n(.*?)```", README, flags=re.S)
    assert shown == (ROOT / "configs/ecg/quickstart.yaml").read_text(encoding="utf-8")


def test_the_error_of_the_readme_is_the_error_shown(tmp_path):
    recipe = (ROOT / "configs/ecg/from_manifest.yaml").read_text(encoding="utf-8")
    mistaken = recipe.replace("width: 64", "widht: 64")
    (tmp_path / "my.yaml").write_text(mistaken)
    line = next(i for i, text in enumerate(mistaken.splitlines(), 1) if "widht" in text)
    command = [sys.executable, "-m", "counterpoint", "check", "my.yaml"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    message = f"my.yaml:{line}: encoders.ecg.widht: unknown key of encoder 'ecg.resnet1d'; did you mean 'width'?"
    assert ran.returncode == 2 and message in ran.stderr
    assert message in README


@pytest.mark.slow
def test_the_first_command_of_the_readme_prints_what_it_shows(tmp_path):
    """Names, rows and layout to the letter; figures within what another processor's rounding may change."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "counterpoint", "fit", "ecg/quickstart"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr
    shown = next(block for block in re.findall(r"```\n(.*?)```", README, flags=re.S) if "trained encoder" in block)
    number = r"\d+(?:\.\d+)?"
    printed = ran.stderr + ran.stdout
    assert re.sub(number, "#", printed).split() == re.sub(number, "#", shown).split()
    values = dict(re.findall(r"(trained encoder|untrained encoder|ecg.rfft)\s+(0\.\d+)", printed))
    assert float(values["trained encoder"]) > float(values["ecg.rfft"]) > 0.716
