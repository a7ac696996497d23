"""What the site adds to the pages of this folder: every pack's README, how to contribute and the changes, which stand elsewhere.

Links between files of the repository work where the files stand; on the site they are turned to the pages.
"""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import dirname, normpath, relpath

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
READMES = {f"plugins/{path.parent.name}/README.md": f"packs/{path.parent.name}.md" for path in sorted(ROOT.glob("plugins/*/README.md"))}  # fmt: skip
PAGES = {
    **READMES,
    "README.md": "index.md",
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
}  # file of the repository -> page of the site
LINK = re.compile(r"(?<=\]\()([^)#:\s]+)(?=[)#])")


def on_files(files, config):
    """The pages whose text stands outside `docs`."""
    for source, page in PAGES.items():
        if page != "index.md":
            text = (ROOT / source).read_text(encoding="utf-8")
            files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown, page, config, files):
    """The text of a page, with links to files of the repository as links to pages."""
    sources = {name: source for source, name in PAGES.items()}
    page_name = page.file.src_uri
    source = sources.get(page_name, "") if page_name != "index.md" else ""
    return LINK.sub(lambda found: turned(found[0], source or f"docs/{page_name}", page_name), markdown)


def turned(link: str, source: str, page: str) -> str:
    """A relative link in a file of the repository, as its page on the site has to say it."""
    target = normpath(f"{dirname(source)}/{link}") if dirname(source) else normpath(link)
    there = PAGES.get(target, target.removeprefix("docs/") if target.startswith("docs/") else None)
    return relpath(there, dirname(page) or ".") if there else link
