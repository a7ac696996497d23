"""API versions: a pack written for the first one works today, and what becomes of it when there is another."""

import hashlib
import importlib
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from counterpoint import cli, hookspecs
from counterpoint.fit.run import fit
from counterpoint.fit.scoring import evaluate
from counterpoint.packs import compat, contract, discovery, registry
from counterpoint.recipe import load
from counterpoint.testing import Example, check_pack
from counterpoint.testing.pack import components

FROZEN = Path(__file__).parent / "packs" / "api1"
HASHES = {
    "counterpoint_api1/__init__.py": "e3b0c44298fc1c14",
    "counterpoint_api1/callbacks.py": "ec8c1cae98d602cd",
    "counterpoint_api1/data.py": "8902c8ca384fb2ae",
    "counterpoint_api1/encoders.py": "d22a7d48a19cfafe",
    "counterpoint_api1/evaluators.py": "d10ef560a794a2d9",
    "counterpoint_api1/objectives.py": "6f5031b3ee1ec12a",
    "counterpoint_api1/pack.py": "7bea6a84bf7552e8",
    "counterpoint_api1/recipes/from_manifest.yaml": "f1eb1253ae039cb4",
    "counterpoint_api1/recipes/quickstart.yaml": "9672513ab111d891",
    "counterpoint_api1/views.py": "2351e1cccc92475f",
    "counterpoint_api1-1.0.dist-info/METADATA": "fef800d9cc0fd1cc",
    "counterpoint_api1-1.0.dist-info/entry_points.txt": "e4a9de7b7e244ba8",
}


@pytest.fixture
def api1(monkeypatch):
    """The frozen pack installed, and no other looked at."""
    monkeypatch.syspath_prepend(str(FROZEN))
    monkeypatch.setenv("COUNTERPOINT_PACKS", "api1")
    importlib.invalidate_caches()
    registry._installed.cache_clear()
    yield "api1"
    registry._installed.cache_clear()


@pytest.fixture
def api2(api1, monkeypatch):
    """A core that speaks API 2, in which hooks, a table and encoders are others than in API 1."""

    @hookspecs.hookspec
    def counterpoint_views():
        """What `counterpoint_view_generators` was."""

    kinds = {
        "counterpoint_views" if hook == "counterpoint_view_generators" else hook: k
        for hook, k in contract.KINDS.items()
    }
    monkeypatch.delattr(hookspecs, "counterpoint_view_generators")
    monkeypatch.setattr(hookspecs, "counterpoint_views", counterpoint_views, raising=False)
    monkeypatch.setattr(hookspecs, "API_VERSION", 2)
    monkeypatch.setattr(contract, "KINDS", kinds)
    monkeypatch.setattr(contract, "HOOKS", (*kinds, contract.RECIPES))
    monkeypatch.setattr(compat, "CHANGES", CHANGES)


def tagged(encoder: nn.Module) -> nn.Module:
    """Encoders of the made-up API 2 have a tag."""
    encoder.tag = "made for API 1"
    return encoder


CHANGES = (
    compat.Change("counterpoint_view_generators is counterpoint_views", "counterpoint_view_generators", now="counterpoint_views"),
    compat.Change("the first objective is called `first`, too", "counterpoint_objectives", result=lambda t: {"first": next(iter(t.values()))} | t),
    compat.Change("an encoder has a tag", "counterpoint_encoders", component=tagged),
)  # fmt: skip


def files() -> dict[str, str]:
    found = [path for path in sorted(FROZEN.rglob("*")) if path.is_file() and "__pycache__" not in path.parts]
    return {str(p.relative_to(FROZEN)): hashlib.sha256(p.read_bytes()).hexdigest()[:16] for p in found}


def test_the_frozen_pack_is_as_it_was_written():
    """Whoever changes the core so that it no longer works, changes the core again: not this pack."""
    assert files() == HASHES


def test_it_has_every_hook_of_its_version():
    text = (FROZEN / "counterpoint_api1/pack.py").read_text(encoding="utf-8")
    assert all(hook in text for hook in contract.HOOKS)


def test_a_pack_of_the_first_version_is_whole_keeps_the_contract_and_trains(api1, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = discovery.discover()
    assert [pack.api for pack in found.packs] == [1] and not found.faults and not discovery.dead_targets(found)
    small = Example(overrides=(f"data.path={series(tmp_path)}",))
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)  # nothing is deprecated yet
        warnings.simplefilter("ignore", UserWarning)
        report = check_pack("api1", {"recipe from_manifest": small})
    assert all(who.startswith(("reader", "evaluator", "callback")) for who in report.untried), report
    recipe = load("api1/quickstart", ["trainer.max_epochs=null", "trainer.max_steps=2"])
    run = fit(recipe, root=tmp_path / "runs")
    assert sys.modules["counterpoint_api1.callbacks"].Count.seen >= 2 and run.weights.is_file()
    metrics = {row["metric"] for row in evaluate(run, recipe)}
    assert {"tone/spread", "words/known", "tone/rows"} <= metrics


def series(folder: Path) -> Path:
    """Files for the frozen pack's reader, and the table that names them."""
    rows = ["file,source,kind"]
    for i in range(8):
        (folder / f"{i}.col").write_text("\n".join(f"{(i + 1) * t % 7}" for t in range(40)), encoding="utf-8")
        rows.append(f"{i}.col,s{i // 2},k{i // 2 % 2}")
    (folder / "series.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder / "series.csv"


def test_only_versions_that_were_released_are_spoken(monkeypatch):
    assert compat.spoken() == (1,) and compat.CHANGES == ()
    monkeypatch.setattr(hookspecs, "API_VERSION", 2)
    assert compat.spoken() == (2, 1)
    monkeypatch.setattr(hookspecs, "API_VERSION", 3)
    assert compat.spoken() == (3, 2)


def test_the_next_version_reads_a_pack_of_this_one(api2):
    """Renamed hooks, changed tables and changed components of a made-up API 2, against the frozen pack."""
    (pack,) = discovery.discover().packs
    assert set(pack.tables["view"]) == {"jitter", "halves", "scale"}
    assert set(pack.tables["objective"]) == {"first", "pull", "follow"}
    assert pack.recipes.is_dir() and not discovery.discover().faults
    encoder = registry.installed().find("encoder", "api1.words").build(vocabulary=5)
    assert encoder.tag == "made for API 1" and encoder(torch.zeros(2, 3, dtype=torch.int64)).shape == (2, 16)
    assert not hasattr(registry.installed().find("encoder", "text_transformer").build(vocabulary=5, width=8), "tag")
    module = importlib.import_module("counterpoint_api1.pack")
    assert {"view jitter", "objective first", "encoder net"} <= components(module).keys()


def test_the_next_version_says_once_what_changed_and_where_to_read_it(api2, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["packs"]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "is written for API" in line]
    assert len(said) == 1 and said[0].startswith("  counterpoint-api1 1.0 (pack 'api1') is written for API 1")
    assert all(change.what in said[0] for change in CHANGES) and compat.PAGE in said[0]
    assert cli.main(["fit", "api1/quickstart", "objective.pull={use: api1.first}", "--print-config"]) == 0
    warned = [line for line in capsys.readouterr().err.splitlines() if "API 1" in line]
    assert len(warned) == 1 and warned[0].startswith("deprecated: counterpoint-api1 1.0")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_kit_warns_of_it_and_finds_no_fault(api2):
    """Its recipe trains three steps with the core of the next version."""
    with pytest.warns(FutureWarning, match="counterpoint_view_generators is counterpoint_views"):
        report = check_pack("api1")
    assert "recipe api1/quickstart" in report.tried and "recipe api1/quickstart" not in report.untried


@pytest.mark.parametrize(
    "version, ours, problem, remedy",
    [
        (1, 3, "older API 1; this core speaks 3 and 2 (docs/pack_api.md)", "pip install -U cp-x"),
        (0, 1, "older API 0; this core speaks 1 (docs/pack_api.md)", "pip install -U cp-x"),
        (4, 3, "newer API 4; this core speaks 3 and 2 (docs/pack_api.md)", "pip install -U counterpoint"),
        (True, 1, "must be an int, got True", "write COUNTERPOINT_API = 1"),
    ],
)
def test_what_is_not_spoken_is_refused_with_what_to_install(
    version, ours, problem, remedy, monkeypatch, install, tmp_path
):
    monkeypatch.setattr(hookspecs, "API_VERSION", ours)
    install(
        tmp_path,
        "cp-x",
        {f"cp_x{ours}{version}.py": f"COUNTERPOINT_API = {version}\n"},
        f"[counterpoint]\nx = cp_x{ours}{version}\n",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = discovery.discover(only=["x"])
    (fault,) = found.faults
    assert not found.packs and problem in fault.problem and fault.remedy.startswith(remedy)


def test_an_old_name_of_a_hook_is_no_hook_of_a_pack_of_today(api2, install, tmp_path, monkeypatch):
    text = "from counterpoint.hookspecs import hookimpl\nCOUNTERPOINT_API = 2\n@hookimpl\ndef counterpoint_view_generators():\n    return {}\n"
    install(tmp_path, "cp-today", {"cp_today.py": text}, "[counterpoint]\ntoday = cp_today\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (fault,) = discovery.discover(only=["today"]).faults
    assert "counterpoint_view_generators is not a hook; did you mean" in fault.problem
    assert not discovery.discover(only=["today"]).deprecated


def test_the_page_lists_every_version():
    page = (Path(__file__).parents[1] / compat.PAGE).read_text(encoding="utf-8")
    assert f"| {hookspecs.API_VERSION} |" in page and "COUNTERPOINT_API" in page
    assert all(change.what in page for change in compat.CHANGES)
