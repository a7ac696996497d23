"""Tar archives of samples for tests."""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np


def npy(x) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.asarray(x, dtype=np.float32))
    return stream.getvalue()


def write(path: Path, samples: Sequence[tuple[str, Mapping[str, bytes]]], **options) -> Path:
    """An archive with a file `key.ending` for each content; compressed where its name says so."""
    with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz", **options) as archive:
        for key, files in samples:
            for ending, content in files.items():
                info = tarfile.TarInfo(f"{key}.{ending}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def sample(number: int) -> tuple[str, dict[str, bytes]]:
    """Two channels of 40 numbers, a text that every fourth lacks, and what it is."""
    x = np.random.default_rng(number).normal(size=(2, 40))
    files = {"npy": npy(x), "json": json.dumps({"patient": f"P{number // 3}", "age": number + 0.5}).encode()}
    if number % 4:
        files["txt"] = f"number {number} of {number % 3}".encode()
    return f"{number:05d}", files | {"cls": str(number % 3).encode()}


def shards_of(folder: Path, sizes: Sequence[int], suffixes: Sequence[str] = (".tar",)) -> Path:
    """`sizes` samples in as many archives, numbered through."""
    folder.mkdir(exist_ok=True)
    edges = np.r_[0, np.cumsum(sizes)].tolist()
    for part, (a, b) in enumerate(pairwise(edges)):
        write(folder / f"s-{part:03d}{suffixes[part % len(suffixes)]}", [sample(i) for i in range(a, b)])
    return folder
