"""A file opened so that reading never takes more memory than the file has bytes, whatever a length in it claims."""

from __future__ import annotations

import io
import os


class Within(io.BufferedReader):
    """`open(path, "rb")` for parsers that believe lengths: python's own file allocates what `read(n)` asks for."""

    def __init__(self, path: str | os.PathLike):
        super().__init__(io.FileIO(path))
        self._size = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))
