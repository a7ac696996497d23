"""The pages of the site: they build without a warning, and what they show of recipes, commands, hooks and faults holds."""

import ast
import importlib
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml

from counterpoint import cli, recipe
from counterpoint.packs import contract, registry
from counterpoint.recipe.annotations import section_fields
from counterpoint.recipe.recipe import Recipe
from shown import PAGES, ROOT, blocks, components, from_such_a_pack


def test_the_site_builds_without_a_warning(tmp_path, monkeypatch):
    """Every link, anchor and image leads somewhere, and every page is in the contents."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    monkeypatch.chdir(ROOT)
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path), strict=True))
    assert (tmp_path / "packs" / "ecg.html").is_file() and (tmp_path / "reference" / "commands.html").is_file()
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert not re.findall(
        r'<(?:script|link|img)[^>]*(?:src|href)="(?:https?:)?//', page
    )  # nothing is loaded from elsewhere


RECIPES = [(page, block) for page, text in PAGES.items() for block in blocks(text, "yaml")]


WHOLE = [
    (page, block)
    for page, block in RECIPES
    if {"data", "objective"} <= set(part := yaml.safe_load(block))
    and not any(from_such_a_pack(call["use"], page) for call in components(part))  # which its page's own test tries
]


@pytest.mark.parametrize("page, block", WHOLE)
def test_a_recipe_in_a_page_loads(page, block, tmp_path):
    (tmp_path / "shown.yaml").write_text(block, encoding="utf-8")
    recipe.load(tmp_path / "shown.yaml")


# The tutorial's blocks are pieces of files that its own test runs.
@pytest.mark.parametrize("page", [page for page in PAGES if page != "docs/tutorial/README.md"])
def test_what_the_python_of_a_page_imports_is_there(page):
    for block in blocks(PAGES[page], "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "counterpoint":
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


def assert_there(part, page: str) -> None:
    """Every component in a part of a recipe is installed, by whatever kind, and takes the parameters shown."""
    found = registry.installed()
    for call in components(part):
        name, shown = call["use"], set(call) - {"use"}
        takes = (set(found.find(kind, name).parameters()) for kind in registry.KINDS if name in found.names(kind))
        assert from_such_a_pack(name, page) or any(shown <= parameters for parameters in takes), call


@pytest.mark.parametrize("page", PAGES)
def test_a_part_of_a_recipe_in_a_page_names_what_there_is(page):
    """Sections, components and their parameters, also where a block is no whole recipe, and in code marks."""
    for block in blocks(PAGES[page], "yaml"):
        part = yaml.safe_load(block)
        assert set(part) <= {*section_fields(Recipe), "readers"}
        assert_there(part, page)
    text = re.sub(r"^```.*?^```", "", PAGES[page], flags=re.S | re.M)
    for marked in re.findall(r"`([^`]*use: [^`]*)`", text):
        if not marked.startswith(("counterpoint ", "use:")) and "<" not in marked:
            assert_there(yaml.safe_load(marked), page)


def commands(text: str) -> set[str]:
    """Every `counterpoint ...` shown: a line of a block, or in code marks, but for what is said not to be there."""
    lines = re.findall(r"^(?:    )?(counterpoint .+)$", text, flags=re.M)
    marked = re.findall(r"(?<!no )`(counterpoint [^`]+)`", " ".join(text.split()))
    return {line.partition("  #")[0] for line in [*lines, *marked]}


NOT_A_NAME = {"NAME", "COMMAND", "RECIPE", "RUN"}


@pytest.mark.parametrize("page", PAGES)
def test_a_command_in_a_page_exists(page):
    """Its options parse, and the recipes and components that it names are installed."""
    found = registry.installed()
    for line in commands(PAGES[page]):
        words = [word for word in shlex.split(line)[1:] if word not in ("[NAME]", "[KIND]", "[key=value ...]")]
        if words[0] in NOT_A_NAME or words[0].startswith("-"):
            continue
        if len(words) == 1:  # the command as such
            assert words[0] in cli.COMMANDS, line
            continue
        module, args = cli._command(words[0], words[1:])
        named = vars(args).get("recipe")
        if named and "/" in named and not named.startswith("<") and not from_such_a_pack(named, page):
            assert named in found.recipes(), line
        if module.__name__.endswith(".show") and args.name not in NOT_A_NAME and not from_such_a_pack(args.name, page):
            assert any(args.name in found.names(kind) for kind in registry.KINDS), line


def known_names() -> set[str]:
    """Every component by its name and without its pack, every key of a recipe, every pack, recipe, hook and command."""
    found = registry.installed()
    names = {name for kind in registry.KINDS for name in found.names(kind)}
    packs = {pack.entry for pack in found.discovery.packs}
    return {
        *names,
        *section_fields(Recipe),
        *packs,
        *found.recipes(),
        *contract.HOOKS,
        *(f"counterpoint {name}" for name in cli.COMMANDS),
    }


def test_what_is_said_not_to_be_there_is_not_and_what_stands_in_for_it_is():
    """`no X` in code marks is absent; any other name of that form is there."""
    text = " ".join(PAGES["docs/not_there.md"].split())
    absent, known = set(re.findall(r"\bno `([\w. ]+)`", text)), known_names()
    assert len(absent) > 5 and not absent & known
    named = set(re.findall(r"`([a-z0-9_]+(?:/[a-z0-9_]+)?|counterpoint [a-z-]+)`", text)) - absent
    assert named <= known, named - known


FAULTS = {  # what is in the 41st row's file, and overrides -> a file or a mistake that the page shows
    "no such file": (None, ()),
    "truncated": ("torn", ()),
    "most files have": ("one lead", ()),
    "readers: {<modality>": ("scan", ()),
    "there is no column": ("", ("data.inputs.ecg=path",)),
    "is not a group": ("", ("objective.positives=animal",)),
    "seconds need": ("", ("data.readers.ecg={use: ecg.signal}",)),
    "longer than the series": ("", ("data.readers.ecg.rate=300",)),
    "did you mean 'width'": ("", ("encoders.ecg.widht=3",)),
}


@pytest.fixture
def recordings(tmp_path, monkeypatch):
    """Forty recordings of 1,250 samples in `recordings.csv`; a last row whose file is at fault, on request."""
    (tmp_path / "ecg").mkdir()
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rows = ["file,patient,diagnosis"]
    for i in range(1, 41):
        np.save(f"ecg/{i:04}.npy", rng.standard_normal((2, 1250)).astype("float32"))
        rows.append(f"ecg/{i:04}.npy,P{i // 2},{('normal', 'afib')[i % 2]}")
    return rows


def put(rows: list[str], fault: str | None) -> None:
    name = "ecg/0041.nii.gz" if fault == "scan" else "ecg/0041.npy"
    whole = Path("ecg/0001.npy").read_bytes()
    if fault == "one lead":
        np.save(name, np.load("ecg/0001.npy")[:1])
    elif fault:
        Path(name).write_bytes(whole[:2000])
    Path("recordings.csv").write_text("\n".join([*rows, *([f"{name},P3,afib"] if fault != "" else [])]) + "\n")


@pytest.mark.parametrize("said", FAULTS)
def test_what_the_page_says_of_a_fault_is_said(said, recordings, capsys):
    fault, overrides = FAULTS[said]
    (row,) = [line for line in PAGES["docs/files.md"].splitlines() if line.startswith("|") and said in line]
    shown = re.search(r"`(.+?)`(?: \.\.\.)? \|$", row)[1]
    put(recordings, fault)
    assert (
        cli.main(["check", "ecg/from_manifest", "data.path=recordings.csv", "data.readers.ecg.rate=250", *overrides])
        == 2
    )
    assert shown in capsys.readouterr().err


def test_a_list_in_a_page_begins_after_an_empty_line():
    """Markdown of the site takes it for text otherwise, where other readers show a list."""
    for page, text in PAGES.items():
        plain = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
        assert not re.findall(r"^(?![-|#>\s]|\d+\. ).+\n(?:- |1\. )", plain, flags=re.M), page
