"""The blocks of recorded figures in the pages: `<!-- benchmark: NAME -->` to `<!-- end of NAME -->`.

python benchmarks/page_blocks.py            writes every block anew from benchmarks/results; nothing is run
python benchmarks/page_blocks.py --check    names the blocks that are not what was recorded
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[1]
BLOCKS = {  # block -> the page that holds it, and the script and its function that make it from the records
    "headlines": ("README.md", "quickstart", "headlines"),
    "scores": ("docs/scores.md", "quickstart", "scores"),
    "costs": ("docs/scores.md", "quickstart", "costs"),
    "speed": ("docs/speed.md", "speed", "markdown"),
    "faults": ("docs/reliability.md", "faults", "markdown"),
}


def with_block(name: str) -> str:
    """The page that holds the block of that name, with the block made anew."""
    page, script, maker = BLOCKS[name]
    before, begin, rest = (ROOT / page).read_text(encoding="utf-8").partition(f"<!-- benchmark: {name} -->\n")
    _, end, after = rest.partition(f"<!-- end of {name} -->")
    if not end:
        raise SystemExit(f"{page} has no block {name!r}")
    return before + begin + getattr(import_module(script), maker)() + end + after


def write_blocks(*names: str) -> None:
    for name in names:
        (ROOT / BLOCKS[name][0]).write_text(with_block(name), encoding="utf-8")


def main() -> None:
    stale = [name for name in BLOCKS if with_block(name) != (ROOT / BLOCKS[name][0]).read_text(encoding="utf-8")]
    if "--check" in sys.argv:
        sys.exit(f"not what was recorded: {', '.join(stale)}: python benchmarks/page_blocks.py" if stale else 0)
    write_blocks(*stale)


if __name__ == "__main__":
    main()
