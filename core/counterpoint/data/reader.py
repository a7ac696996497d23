"""What a reader is: it turns one cell of a table, a path or a text, into a tensor."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, ClassVar

from torch import Tensor

from counterpoint.errors import CounterpointError


class Reader:
    """How the cells of one modality become tensors; `manifest` and `folder` take one by name for each modality.

    suffixes     lower-case endings of the files it reads (".nii", ".nii.gz"); "" among them: whatever the name is
    directories  a cell may name a directory (a DICOM series)
    headless     endings of formats without a header: their facts cost as much as reading, so one file is asked alone
    varies       facts that may differ from file to file; the spec then says None. A file that differs in another fact
                 from most files is refused

    What is raised inside `facts` and `read` becomes one line that names the file. `read` may draw from python's, numpy's
    and torch's global generators (which window, which caption): they are seeded for every sample.
    """

    suffixes: ClassVar[tuple[str, ...]] = ()
    directories: ClassVar[bool] = False
    headless: ClassVar[tuple[str, ...]] = ()
    varies: ClassVar[frozenset[str]] = frozenset({"length"})

    def is_file(self, cell: str) -> bool:
        """Whether the cell is the name of a file, and not the thing itself."""
        return True

    def files(self, cell: str) -> Sequence[str]:
        """The files that reading a cell opens: of a directory, those in it."""
        if not self.is_file(cell):
            return ()
        if not os.path.isdir(cell):
            return (cell,)
        return [entry.path for entry in os.scandir(cell) if entry.is_file() and not entry.name.startswith(".")]

    def fit(self, cells: Sequence[str]) -> None:
        """Learn from the cells of the training split what reading needs, such as a tokenizer's vocabulary."""

    def given(self) -> dict[str, Any]:
        """Facts that hold whatever is in the files; they overrule those of the files."""
        return {}

    def facts(self, path: str) -> dict[str, Any]:
        """What the header of one file alone says: channels, length, rate (Hz), ..."""
        return {}

    def expect(self, facts: dict[str, Any]) -> None:
        """Hear what most files have, before anything is read."""

    def read(self, path: str) -> Tensor | list[Tensor]:
        """One sample, or the rows of it; raises what names the fault."""
        raise TypeError(f"{type(self).__name__} must define read(path)")

    def text(self, cell: str) -> str | None:
        """The text that a cell stands for, where it is one: it travels in `Sample.fields`."""
        return None

    def assets(self) -> dict[str, str]:
        """Text files, by name, that the trained encoder needs beside its weights (a tokenizer)."""
        return {}

    def reads(self, path: str) -> bool:
        """Whether the ending of a file's name is one of `suffixes`."""
        return path.lower().endswith(self.suffixes)


def assets_of(readers: Mapping[str, Reader]) -> dict[str, str]:
    """The assets of readers by modality, each under the name of its modality."""
    return {f"{m}.{name}": text for m, reader in readers.items() for name, text in reader.assets().items()}


def no_reader(path: str, reader: Reader) -> str:
    """What to say of a file that `reader` does not read: which reader does."""
    suffix = PurePath(path).suffix.lower()
    valid = f"no reader for {suffix!r} files here; readable: {', '.join(sorted(reader.suffixes))}"
    others = [name for name, other in _installed() if suffix and any(end.endswith(suffix) for end in other.suffixes)]
    return (
        f"{valid}; {' or '.join(others)} reads it: say readers: {{<modality>: {{use: {others[0]}}}}}"
        if others
        else valid
    )


def _installed() -> list[tuple[str, type[Reader]]]:
    """Name and class of every reader that can be imported; looked for only when a file has no reader."""
    from counterpoint.packs.registry import installed

    found = []
    for component in installed().components("reader"):
        try:
            found.append((component.name, component.load()))
        except CounterpointError:
            continue
    return found
