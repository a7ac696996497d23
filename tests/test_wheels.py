"""What a user installs: the wheels of the core and of every pack, side by side, without the source tree."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from own_files import PACKS

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_wheels_do_what_the_tree_does(tmp_path):
    """Listing and a short training from the wheels alone; the editable installs are out of sight (-S leaves them out)."""
    site = tmp_path / "site"
    for source in (ROOT, *(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))):
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", str(source), "--outdir", str(tmp_path)]
        subprocess.run(build, check=True, capture_output=True)
    for wheel in tmp_path.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(site)
    libraries = tmp_path / "libraries"  # what is installed here, but for our own editable distributions
    libraries.mkdir()
    for entry in Path(next(path for path in sys.path if path.endswith("site-packages"))).iterdir():
        if "counterpoint" not in entry.name:
            (libraries / entry.name).symlink_to(entry)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(libraries)]), "OMP_NUM_THREADS": "1"}

    def counterpoint(*words):
        command = [sys.executable, "-S", "-m", "counterpoint", *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    modules = ["counterpoint", *(f"counterpoint_{name}" for name in PACKS)]
    where = subprocess.run(
        [sys.executable, "-S", "-c", f"import {', '.join(modules)}; print({', '.join(f'{m}.__file__' for m in modules)})"],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert where.stdout.count(str(site)) == len(modules), where.stderr
    listed = counterpoint("packs")
    assert all(f"counterpoint-{name.replace('_', '-')}" in listed.stdout for name in PACKS)
    assert "fault" not in listed.stdout and "skipped" not in listed.stderr, listed.stderr
    done = counterpoint("fit", "ecg/quickstart", "trainer.max_epochs=2")
    assert done.returncode == 0, done.stderr
    assert "trained encoder" in done.stdout and "ecg.rfft" in done.stdout
    assert counterpoint("new-pack", "seismo").returncode == 0
    for name in PACKS:  # every recipe that a wheel carries is a sound one
        whole = counterpoint("fit", f"{name}/quickstart", "--print-config")
        assert whole.returncode == 0, whole.stderr
    (tmp_path / "uninstalled").mkdir()
    for gone in PACKS:  # one after another uninstalled: the others stay whole
        for path in site.glob(f"counterpoint_{gone}*"):
            path.rename(tmp_path / "uninstalled" / path.name)
        left = counterpoint("packs")
        assert left.returncode == 0 and f"counterpoint-{gone.replace('_', '-')} " not in left.stdout, left.stderr
        assert "fault" not in left.stdout and "skipped" not in left.stderr, left.stderr
