"""The documentation says what the code does: hooks, components, recorded figures, the README's snippets and first command."""

import inspect
import json
import os
import re
import subprocess
import sys
from statistics import mean

import pytest
import torch

import counterpoint
from counterpoint import hookspecs
from shown import PAGES, ROOT, blocks

README = PAGES["README.md"]
HOOKS = [name for name in vars(hookspecs) if name.startswith("counterpoint_")]


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_documented_with_its_signature(hook):
    page = (ROOT / "docs/packs.md").read_text(encoding="utf-8")
    arguments = ", ".join(inspect.signature(getattr(hookspecs, hook)).parameters)
    assert f"`{hook}({arguments})`" in page
    assert getattr(hookspecs, hook).__doc__


def test_the_contract_fits_one_screen():
    assert len(inspect.getsource(hookspecs).splitlines()) < 60


def test_the_first_page_shows_what_the_readme_shows():
    page = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    assert re.findall(r"```\n(.*?)```", page, flags=re.S) == re.findall(r"```\n(.*?)```", README, flags=re.S)[:2]


def test_the_reference_is_up_to_date():
    ran = subprocess.run([sys.executable, str(ROOT / "docs/generate.py"), "--check"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_the_readme_is_short_and_its_links_lead_somewhere():
    """The site has no page of the README, so that its builder does not look at these."""
    assert len(README.splitlines()) <= 155
    for link in re.findall(r"\]\(([^)\s]+)\)", README):
        name, _, anchor = link.partition("#")
        assert (ROOT / name).is_file(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", (ROOT / name).read_text(encoding="utf-8"), flags=re.M)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}, link


RECORDED = [(name, page) for page, text in PAGES.items() for name in re.findall("<!-- benchmark: (.+?) -->", text)]


@pytest.mark.parametrize("name, page", RECORDED)
def test_a_block_of_a_page_is_what_was_recorded(name, page):
    same = f"page_blocks.with_block({name!r}) == (page_blocks.ROOT / {page!r}).read_text(encoding='utf-8')"
    code = f"import page_blocks; assert page_blocks.BLOCKS[{name!r}][0] == {page!r} and {same}"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "benchmarks", capture_output=True, text=True)
    assert ran.returncode == 0, f"python benchmarks/page_blocks.py; {ran.stderr}"


def test_every_block_stands_in_its_page():
    command = [sys.executable, str(ROOT / "benchmarks/page_blocks.py"), "--check"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0 and len(RECORDED) == len(set(RECORDED)) >= 5, ran.stderr


def test_every_pack_has_a_headline_beside_the_strongest_of_what_is_not_trained():
    lines = re.findall(r"^\| \[`(\w+)`\].*\| (.+) \| ([\d.]+) \| ([\d.]+), (.+) \|$", README, flags=re.M)
    assert {pack for pack, *_ in lines} == {path.name for path in ROOT.glob("plugins/*")}
    for pack, metric, trained, baseline, named in lines:
        record = json.loads((ROOT / f"benchmarks/results/quickstart-{pack}.json").read_text(encoding="utf-8"))
        scores = [s for one in record["runs"] for s in one["scores"] if s["metric"] == metric]
        names = {score["representation"] for score in scores}
        means = {name: mean(s["value"] for s in scores if s["representation"] == name) for name in names}
        assert f"{means.pop('trained encoder'):.3f}" == trained
        assert f"{max(means.values()):.3f}" == baseline == f"{means[named]:.3f}"
        assert "untrained encoder" in means and all(score["higher_is_better"] for score in scores)


def test_the_python_of_the_readme_runs():
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    scope = {}
    exec(compile(code, "README.md", "exec"), scope)
    assert scope["loss"].ndim == 0 and tuple(scope["h"].shape) == (8, 128)


def test_the_recipe_of_the_readme_is_the_quickstart():
    (shown,) = re.findall(r"```yaml\n(.*?)```", README, flags=re.S)
    assert shown == (ROOT / "configs/ecg/quickstart.yaml").read_text(encoding="utf-8")


def test_the_error_of_the_readme_is_the_error_shown(tmp_path):
    recipe = (ROOT / "configs/ecg/from_manifest.yaml").read_text(encoding="utf-8")
    mistaken = recipe.replace("width: 64", "widht: 64").replace("temperature: 0.1", "temprature: 0.1")
    (tmp_path / "my.yaml").write_text(mistaken)
    command = [sys.executable, "-m", "counterpoint", "check", "my.yaml"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    (shown,) = [block for block in blocks(README) if "did you mean" in block]
    assert ran.returncode == 2 and ran.stderr == shown


@pytest.mark.slow
def test_the_first_command_of_the_readme_prints_what_it_shows(tmp_path):
    """Names, rows and layout to the letter; figures within what another processor's rounding may change."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "counterpoint", "fit", "ecg/quickstart"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr
    shown = next(block for block in re.findall(r"```\n(.*?)```", README, flags=re.S) if "trained encoder" in block)
    number = r"\d+(?:\.\d+)?"
    printed = ran.stderr + ran.stdout
    assert re.sub(number, "#", printed).split() == re.sub(number, "#", shown).split()
    values = dict(re.findall(r"(trained encoder|untrained encoder|ecg.rfft)\s+(0\.\d+)", printed))
    assert float(values["trained encoder"]) > float(values["ecg.rfft"]) > 0.716
    encoder = counterpoint.load(tmp_path / "runs/quickstart-1")
    assert encoder(torch.zeros(3, 1, 2000)).h.shape[0] == 3  # as the last lines say
