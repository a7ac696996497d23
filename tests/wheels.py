"""Wheels of this tree, and environments that hold them alone: the editable installs of the tree are out of sight."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[1]
OURS = ("COUNTERPOINT_", "PYTHON")


def built(source: Path, folder: Path) -> Path:
    """The wheel of a source tree, as `python -m build` makes it with what is installed here."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", str(source), "--outdir"]
    done = subprocess.run([*build, str(folder / source.name)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next((folder / source.name).glob("*.whl"))


def libraries(folder: Path) -> Path:
    """Links to what is installed here, but for our own editable distributions."""
    folder.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "counterpoint" not in entry.name:
            (folder / entry.name).symlink_to(entry)
    return folder


class Environment:
    """A virtual environment of its own; without `links` it is empty but for pip."""

    def __init__(self, folder: Path, links: Path | None = None):
        self.folder, self.bin = folder, folder / "bin"
        venv = [sys.executable, "-m", "venv", *(["--without-pip"] if links else []), str(folder)]
        subprocess.run(venv, check=True, capture_output=True)
        if links:
            (next(folder.glob("lib/python*/site-packages")) / "libraries.pth").write_text(
                f"{links}\n", encoding="utf-8"
            )
        kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        data = {name: os.environ[name] for name in ("COUNTERPOINT_DATA",) if name in os.environ}
        self.variables = kept | data | {"OMP_NUM_THREADS": "1", "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}"}

    def run(self, *words: str | Path, cwd: Path) -> subprocess.CompletedProcess:
        """A command of the environment: `pip`, `python` or `counterpoint`, and its words."""
        command = [self.bin / words[0], *words[1:]] if words[0] != "pip" else [self.bin / "python", "-m", *words]
        return subprocess.run(command, cwd=cwd, env=self.variables, capture_output=True, text=True)

    def succeed(self, *words: str | Path, cwd: Path) -> str:
        """What the command prints; AssertionError with all it said when it fails."""
        done = self.run(*words, cwd=cwd)
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        return done.stdout
