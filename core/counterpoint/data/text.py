"""Text from a file, and as token ids that need no vocabulary: its bytes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from counterpoint.data.guard import MAX_BYTES, check_file, reading

BYTE_OFFSET = 3  # ids 0, 1, 2 are padding, end of text and unknown, as in ByT5
BYTE_VOCABULARY = 256 + BYTE_OFFSET


def read_text(path: Path | str, *, max_bytes: int = MAX_BYTES) -> str:
    """The UTF-8 text of a file; a byte order mark is left out."""
    check_file(path, max_bytes=max_bytes)
    with reading(path):
        text = Path(path).read_text(encoding="utf-8-sig")
        if not text.strip():
            raise ValueError("holds no text")
        return text


def text_ids(text: str) -> Tensor:
    """int64 (L,): the UTF-8 bytes of a text + 3, the ids of ByT5 (Xue et al., 2022, section 3.1), without end marker."""
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).long() + BYTE_OFFSET


def text_of(ids: Tensor) -> str:
    """The text that `text_ids` made these ids of."""
    return bytes((ids - BYTE_OFFSET).to(torch.uint8).numpy()).decode()
