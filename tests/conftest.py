"""Distributions as pip leaves them on disk, and a fresh interpreter that sees them."""

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
import torch

from bits import Bits
from faults import FaultTable

if not torch.cuda.is_available():  # Triton reads it when it is imported: its kernels then run on a CPU
    os.environ["TRITON_INTERPRET"] = "1"


def pytest_addoption(parser):
    parser.addoption("--faults-to", help="where the table of the tests marked `fault` is written, as JSON")
    parser.addoption("--bits-to", help="where digests of the runs that tests leave are appended: see tests/bits.py")


def pytest_configure(config):
    config.pluginmanager.register(FaultTable(config.getoption("--faults-to")), "faults")
    if path := config.getoption("--bits-to"):
        config.pluginmanager.register(Bits(path), "bits")


def _install(
    site: Path, distribution: str, files: dict[str, str], points: str = "", version="1.0", requires=()
) -> None:
    """Write a distribution into a site folder: its files, METADATA, entry_points.txt and RECORD."""
    info = f"{distribution.replace('-', '_')}-{version}.dist-info"
    metadata = [f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}"]
    files = {
        **files,
        f"{info}/METADATA": "\n".join(metadata + [f"Requires-Dist: {r}" for r in requires]) + "\n",
        f"{info}/entry_points.txt": points,
        f"{info}/INSTALLER": "pip\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in files)
    for name, text in files.items():
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text), encoding="utf-8")


def _python(site: Path, *args: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess:
    """Run the interpreter with `site` in front of its path."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COUNTERPOINT_")}
    path = os.pathsep.join(filter(None, [str(site), inherited.get("PYTHONPATH")]))
    environment = {**inherited, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        [sys.executable, *args], capture_output=True, text=True, env=environment, cwd=cwd, timeout=120
    )


@pytest.fixture(scope="session")
def install():
    return _install


@pytest.fixture(scope="session")
def python():
    return _python


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tests run side by side on few cores."""
    import torch

    torch.set_num_threads(1)
