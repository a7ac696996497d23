"""Whether training is the same to the bit: digests of the run that each test leaves, to hold two commits against each other.

    pytest tests/test_matrix.py --bits-to before.txt      # and again after the change
    diff <(sort before.txt) <(sort after.txt)

A line a file: test, file, and a digest of the weights, the metrics, or of all tensors in a checkpoint.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

KEPT = ("state_dict", "optimizer_states", "lr_schedulers", "meter")  # of a checkpoint; its loops hold times
FILES = ("*/encoder.safetensors", "*/metrics.csv", "*/checkpoints/**/*.ckpt")


def tensors(value) -> Iterator[torch.Tensor]:
    """Every tensor in a nest of mappings and sequences, mappings in the order of their keys."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            yield from tensors(value[key])
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors(part)


def digest(path: Path) -> str:
    if path.suffix != ".ckpt":
        return hashlib.sha256(path.read_bytes()).hexdigest()[:20]
    checkpoint = torch.load(path, weights_only=True, map_location="cpu")
    found = hashlib.sha256(" ".join(sorted(checkpoint["state_dict"])).encode())
    for tensor in tensors([checkpoint.get(part, {}) for part in KEPT]):
        found.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:20]


class Bits:
    """A plugin of pytest: appends a line for each file of the runs in a test's `tmp_path`."""

    def __init__(self, path: str):
        self.path = Path(path).absolute()  # tests change the folder they work in

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_teardown(self, item):
        folder = getattr(item, "funcargs", {}).get("tmp_path")
        if folder is not None:
            paths = sorted({path for pattern in FILES for path in folder.glob(pattern)})
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(f"{item.name} {path.relative_to(folder)} {digest(path)}\n" for path in paths)
