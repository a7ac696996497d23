"""The page of hooks: each stands there with its signature, and its example works, alone and with the others."""

import ast
import importlib
import inspect
import re

import numpy as np
import pytest

from counterpoint import cli, hookspecs
from counterpoint.packs import contract, registry
from counterpoint.testing.kit import UNTRIED_KINDS, examine
from shown import PAGES, ROOT, blocks

HOOKS = [name for name in vars(hookspecs) if name.startswith("counterpoint_")]


def section(hook: str) -> str:
    """What the page of hooks says of one, from its heading to the next."""
    return re.search(rf"^## `{hook}\(.*?(?=^## )", PAGES["docs/hooks.md"], flags=re.S | re.M)[0]


def files(text: str) -> dict[str, str]:
    """The files that a text shows, each block begun by a comment with its name; a file's blocks stand one after another."""
    found: dict[str, str] = {}
    for block in [*blocks(text, "python"), *blocks(text, "yaml")]:
        if name := re.match(r"# (counterpoint_seismo/\S+)\n", block):
            found[name[1]] = found.get(name[1], "") + block[name.end() :] + "\n\n"
    return found


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_section_with_its_signature_and_sentence(hook):
    spec = getattr(hookspecs, hook)
    head, _, rest = section(hook).partition("\n\n")
    assert head == f"## `{hook}{inspect.signature(spec)}`"
    assert rest.startswith(f"> {inspect.getdoc(spec)}\n\n")


def test_every_example_of_a_hook_is_found_without_fault_alone(tmp_path, install, python):
    """One pack for each hook: the head of the page, and what the hook's section shows."""
    head = PAGES["docs/hooks.md"].partition("\n## ")[0]
    for hook in HOOKS:
        shown = files(head + section(hook))
        own = {name.replace("seismo", hook): text.replace("seismo", hook) for name, text in shown.items()}
        own[f"counterpoint_{hook}/__init__.py"] = ""
        install(tmp_path, f"cp-{hook.replace('_', '-')}", own, f"[counterpoint]\n{hook} = counterpoint_{hook}.pack\n")
    code = (
        "from counterpoint.packs import discovery; found = discovery.discover();"
        "print(sorted([p.entry, *p.tables, *(['recipe'] if p.recipes else [])] for p in found.packs));"
        "print([str(f) for f in [*found.faults, *discovery.dead_targets(found)]])"
    )
    ran = python(tmp_path, "-c", code, PYTHONPATH=f"{tmp_path}:{ROOT / 'core'}", COUNTERPOINT_PACKS=",".join(HOOKS))
    found, faults = map(ast.literal_eval, ran.stdout.splitlines())
    assert found == sorted([hook, contract.KINDS.get(hook, "recipe")] for hook in HOOKS) and faults == []


@pytest.fixture
def seismo(tmp_path, monkeypatch, install):
    """The pack that the examples of all hooks make together, on the path."""
    shown = files(PAGES["docs/hooks.md"]) | {"counterpoint_seismo/__init__.py": ""}
    install(tmp_path / "site", "counterpoint-seismo", shown, "[counterpoint]\nseismo = counterpoint_seismo.pack\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("COUNTERPOINT_PACKS", "seismo")
    monkeypatch.chdir(tmp_path)
    importlib.invalidate_caches()
    registry._installed.cache_clear()
    yield tmp_path
    registry._installed.cache_clear()


def test_the_examples_of_all_hooks_keep_the_contract_and_train(seismo, capsys):
    report = examine("seismo")
    assert not report.findings and {who.split()[0] for who in report.untried} == {*UNTRIED_KINDS}, report
    assert cli.main(["fit", "seismo/quickstart"]) == 0
    assert "nearest quake" in capsys.readouterr().out
    for i, name in enumerate("abcd"):
        np.savetxt(seismo / f"{name}.trace", np.sin(np.arange(50 + i)))
    read = (
        registry.installed()
        .find("dataset", "folder")
        .build(
            path=str(seismo),
            modality="wave",
            pattern="*.trace",
            reader=registry.installed().find("reader", "seismo.trace").build(),
        )
    )
    assert read.spec.modalities["wave"]["rate"] == 100.0 and read[0].inputs["wave"].shape[0] == 1


def test_what_the_page_says_of_other_versions_is_said():
    class Entry:
        module, distribution, said = "counterpoint_absent.pack", "cp-absent", ""

        def blame(self, problem, remedy, where=None):
            self.said += f"{problem}; {remedy}\n"

    entry, unsaid = Entry(), type("Module", (), {})
    versions = [unsaid, *(type("Module", (), {"COUNTERPOINT_API": v}) for v in (0, hookspecs.API_VERSION + 1))]
    assert not any(contract.spoken_version(module, entry) for module in versions)
    table = PAGES["docs/pack_api.md"].partition("## What is said")[2].partition("## ")[0]
    skipped = [line for line in table.splitlines() if "| it is skipped |" in line]
    shown = [text for line in skipped for text in re.findall(r"`(.+?)`", line)]
    assert len(shown) == 5 and all(text in entry.said for text in shown), entry.said
