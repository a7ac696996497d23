"""From nothing to a trained encoder of one's own pack: every command as a newcomer types it, without editing a file."""

import re
import shutil
import time

import pytest

from wheels import ROOT, Environment, built, libraries

OFFLINE = ("--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--quiet")


def walk(environment, folder, *pip):
    """The four commands after the core is installed; their seconds without the installation, and what they printed."""
    said, spent = {}, 0.0
    for words in (
        ("counterpoint", "new-pack", "seismo"),
        ("pip", "install", *pip, "./seismo"),
        ("counterpoint", "check-pack", "seismo"),
        ("counterpoint", "fit", "seismo/quickstart"),
    ):
        begun = time.monotonic()
        said[words[1]] = environment.succeed(*words, cwd=folder)
        spent += (time.monotonic() - begun) * (words[0] != "pip")
    return spent, said


def check(environment, folder, said):
    assert said["new-pack"].startswith("seismo\n")
    assert re.search(r"seismo 0\.1\.0: \d+ checks passed", said["check-pack"]) and "not tried" not in said["check-pack"]
    values = {name: float(value) for name, value in re.findall(r"(\S+ encoder) +(\d\.\d+)", said["fit"])}
    assert values["trained encoder"] > values["untrained encoder"] + 0.2, said["fit"]
    installed = list(environment.folder.glob("lib/python*/site-packages/counterpoint_seismo/**/*"))
    assert installed and not [path for path in installed if "tmpl" in path.name]
    listed = environment.succeed("counterpoint", "packs", cwd=folder)
    assert "counterpoint-seismo" in listed and "fault" not in listed and "not met" not in listed


def test_the_path_with_the_libraries_that_are_here(tmp_path):
    """The core's wheel in a virtual environment that sees this one's libraries, and nothing else of this tree."""
    environment = Environment(tmp_path / "env", libraries(tmp_path / "libraries"))
    environment.succeed("pip", "install", *OFFLINE, built(ROOT, tmp_path / "wheels"), cwd=tmp_path)
    code = "import counterpoint; print(counterpoint.__file__)"
    assert environment.succeed("python", "-c", code, cwd=tmp_path).startswith(str(tmp_path / "env"))
    _, said = walk(environment, tmp_path, *OFFLINE)
    check(environment, tmp_path, said)


@pytest.mark.slow
def test_the_path_from_an_empty_environment(tmp_path):
    """Everything from the package index, some gigabytes; the four commands take less than three minutes past installation."""
    environment = Environment(tmp_path / "env")
    begun = time.monotonic()
    environment.succeed("pip", "install", "--no-cache-dir", "--quiet", built(ROOT, tmp_path / "wheels"), cwd=tmp_path)
    print(f"installed in {time.monotonic() - begun:.0f} s")
    spent, said = walk(environment, tmp_path, "--quiet")
    print(f"new-pack, check-pack and fit in {spent:.0f} s")
    check(environment, tmp_path, said)
    shutil.rmtree(environment.folder)  # pytest keeps the folders of its last runs
    assert spent < 180
