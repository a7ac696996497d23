"""Columns of plain text, the same in a terminal and in a pipe."""

from collections.abc import Sequence


def columns(rows: Sequence[Sequence[object]], indent: str = "") -> str:
    """Rows of cells as lines, each column as wide as its widest cell."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts)]
    return "\n".join((indent + "  ".join(cell.ljust(w) for cell, w in zip(row, widths))).rstrip() for row in texts)


def shorten(text: str, width: int = 72) -> str:
    """`text`, cut at a word where it is longer than `width`."""
    return text if len(text) <= width else text[: width - 3].rpartition(" ")[0] + "..."
