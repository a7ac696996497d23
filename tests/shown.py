"""What the pages of the documentation show: their blocks, and the components that stand in them."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
WRITTEN = [
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("docs/tutorial/*.md"),
    *ROOT.glob("plugins/*/README.md"),
    ROOT / "README.md",
]
PAGES = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in sorted(WRITTEN)}


def blocks(text: str, language: str = "") -> list[str]:
    """The fenced blocks of a page in one language."""
    return [body for found, body in re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.S | re.M) if found == language]


def made_there(page: str) -> set[str]:
    """The packs that a page has the reader make: its recipes may name them, though they are not installed."""
    return set(re.findall(r"counterpoint_([a-z0-9]+)", PAGES[page])) - {path.name for path in ROOT.glob("plugins/*")}


def from_such_a_pack(name: str, page: str) -> bool:
    return re.split(r"[./]", name)[0] in made_there(page)


def components(value):
    """Every mapping with `use` in a part of a recipe, from the outside in."""
    if isinstance(value, dict) and value.get("use", "...") != "...":
        yield value
    for inside in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from components(inside)
