"""The README's blocks of recorded figures: `<!-- benchmark: NAME -->` to `<!-- end of NAME -->`."""

from __future__ import annotations

from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def with_block(name: str, markdown: str) -> str:
    """The README with the block of that name written anew."""
    before, begin, rest = README.read_text(encoding="utf-8").partition(f"<!-- benchmark: {name} -->\n")
    _, end, after = rest.partition(f"<!-- end of {name} -->")
    if not end:
        raise SystemExit(f"README.md has no block {name!r}")
    return before + begin + markdown + end + after


def write_block(name: str, markdown: str) -> None:
    README.write_text(with_block(name, markdown), encoding="utf-8")
