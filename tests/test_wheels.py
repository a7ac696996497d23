"""What a user installs: the wheels of the core and of every pack, side by side, without the source tree."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

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
    libraries = next(path for path in sys.path if path.endswith("site-packages"))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), libraries]), "OMP_NUM_THREADS": "1"}

    def counterpoint(*words):
        command = [sys.executable, "-S", "-m", "counterpoint", *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    where = subprocess.run(
        [sys.executable, "-S", "-c", "import counterpoint, counterpoint_ecg; print(counterpoint.__file__, counterpoint_ecg.__file__)"],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert where.stdout.count(str(site)) == 2, where.stderr
    packs = counterpoint("packs").stdout
    assert "counterpoint-ecg" in packs and "fault" not in packs
    done = counterpoint("fit", "ecg/quickstart", "trainer.max_epochs=2")
    assert done.returncode == 0, done.stderr
    assert "trained encoder" in done.stdout and "ecg.rfft" in done.stdout
