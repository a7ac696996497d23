"""The tutorial's pack: every block shown is in its files, every file is told of, and it keeps the contract and trains."""

import ast
import importlib
import importlib.util
import inspect
import re
import sys
import warnings
from pathlib import Path

import pytest
import torch

from counterpoint import cli
from counterpoint.errors import RunError
from counterpoint.evaluate.table import render
from counterpoint.fit.run import fit
from counterpoint.fit.scoring import evaluate
from counterpoint.recipe import load
from counterpoint.testing.pack import check_distribution

ROOT = Path(__file__).parents[1]
TUTORIAL = ROOT / "docs/tutorial/README.md"
PACK = ROOT / "docs/tutorial/graphs"
TEXT = TUTORIAL.read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(python|yaml|toml)\n# (\S+)\n(.*?)```", TEXT, flags=re.S)
OUTPUTS = dict(re.findall(r"```console\n\$ ([^\n]+)\n(.*?)```", TEXT, flags=re.S))
TESTS = sorted((PACK / "tests").glob("test_*.py"))
FUNCTIONS = [
    (path.stem, node.name)
    for path in TESTS
    for node in ast.parse(path.read_text(encoding="utf-8")).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
]
SMALL = ("trainer.accelerator=cpu", "trainer.max_epochs=2", "data.nodes=200", "loader.batch=100", "loggers=[]")


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    """The pack on the path, as an editable install leaves it, and no other pack; gone when this file is done."""
    site = tmp_path_factory.mktemp("site")
    info = site / "counterpoint_graphs-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: counterpoint-graphs\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[counterpoint]\ngraphs = counterpoint_graphs.pack\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        patch.syspath_prepend(str(PACK))
        patch.setenv("COUNTERPOINT_PACKS", "graphs")
        importlib.invalidate_caches()
        yield PACK
    for name in [name for name in sys.modules if name.partition(".")[0] == "counterpoint_graphs"]:
        del sys.modules[name]


def files() -> list[str]:
    found = [path for path in PACK.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return sorted(path.relative_to(PACK).as_posix() for path in found)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block[1])
def test_a_block_is_a_part_of_the_file_it_names(block):
    _, name, code = block
    text = (PACK / name).read_text(encoding="utf-8")
    assert code.strip("\n") in text, f"{name} has no such lines:\n{code}"


def test_every_block_of_code_names_its_file():
    assert len(BLOCKS) == len(re.findall(r"```(?:python|yaml|toml)\n", TEXT)) > 12


@pytest.mark.parametrize("name", files())
def test_every_file_of_the_pack_is_shown_or_named(name):
    assert f"`{name}`" in TEXT or any(name == shown for _, shown, _ in BLOCKS)


def test_the_first_command_prints_what_is_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["new-pack", "graphs"]) == 0
    assert capsys.readouterr().out == OUTPUTS["counterpoint new-pack graphs"]
    written = [path.relative_to("graphs").as_posix() for path in Path("graphs").rglob("*") if path.is_file()]
    assert set(written) <= set(files()) | {"tests/test_pack.py"}


def test_it_is_found_without_a_fault_and_lists_what_is_shown(pack, capsys):
    assert cli.main(["packs"]) == 0
    out, err = capsys.readouterr()
    assert "counterpoint-graphs" in out and "counterpoint-graphs" not in err
    assert cli.main(["list", "view"]) == 0
    listed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("graphs.")]
    assert listed == OUTPUTS["counterpoint list view | grep graphs"].splitlines()


def called(test: str, name: str, folder: Path) -> None:
    """A test of the pack's own; what it wants of pytest is a folder at most."""
    spec = importlib.util.spec_from_file_location(f"graphs_{test}", PACK / f"tests/{test}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function = getattr(module, name)
    function(**({"tmp_path": folder} if inspect.signature(function).parameters else {}))


@pytest.mark.parametrize("test, name", FUNCTIONS)
def test_the_pack_passes_its_own_tests(test, name, pack, tmp_path, monkeypatch):
    """Its contract, and that its views, objective and tables are those of the formulas."""
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch_geometric calls torch.jit.script
        called(test, name, tmp_path)


def trained(folder: Path, *overrides: str):
    recipe = load("graphs/quickstart", [*SMALL, *overrides])
    return fit(recipe, root=folder), recipe


def weights(run) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(run.weights)


def test_micro_batches_see_one_graph_and_give_the_same_weights(pack, tmp_path):
    """Views of the graph are the same in all micro-batches of a batch, though each makes its own."""
    double = ("trainer.precision=64-true", "evaluate=[]")
    whole, parts = (weights(trained(tmp_path, *double, f"loader.micro_batch={n}")[0]) for n in ("null", "30"))
    assert whole.keys() == parts.keys() and not torch.equal(
        *(w["node.encoder.convolutions.0.bias"] for w in (whole, parts))
    )
    for name, weight in whole.items():
        assert torch.allclose(weight, parts[name], atol=1e-9), name


def test_it_scores_beside_its_baselines_and_refuses_another_graph_later(pack, tmp_path):
    run, recipe = trained(tmp_path, "evaluate=[{use: knn, label: kind}]")
    names = [record["representation"] for record in evaluate(run, recipe)]
    assert names == ["trained encoder", "untrained encoder", "graphs.features 1", "graphs.features 2"]
    kept = run.facts()["given"]["node"]["graph"]
    assert re.fullmatch(r"200 nodes, \d+ edges, [0-9a-f]{16}", kept)
    run.write("run.json", (run.folder / "run.json").read_text().replace(kept, "200 nodes, 1 edges, 0000000000000000"))
    with pytest.raises(RunError, match=r"the data have changed since the run began \(node.graph 200 nodes, 1 edges"):
        fit(recipe, run=run)


@pytest.mark.slow
def test_wheel_and_sdist_hold_the_recipes_as_files(tmp_path):
    check_distribution(PACK, PACK / "counterpoint_graphs/recipes", tmp_path)


@pytest.mark.slow
def test_the_check_prints_what_is_shown(pack, capsys):
    assert cli.main(["check-pack", "graphs"]) == 0
    assert capsys.readouterr().out == OUTPUTS["counterpoint check-pack graphs"]


@pytest.mark.slow
def test_it_learns(pack, tmp_path):
    """On a network that no setting was chosen on: above the untrained encoder and the words themselves."""
    recipe = load("graphs/quickstart", ["trainer.accelerator=cpu", "data.seed=21"])
    records = evaluate(fit(recipe, root=tmp_path), recipe)
    found = {(r["evaluator"], r["representation"]): r["value"] for r in records if r["metric"] == "accuracy"}
    for worse in ("untrained encoder", "graphs.features 1"):
        assert found["knn kind", "trained encoder"] > found["knn kind", worse] + 0.05
    shape = lambda text: re.sub(r"\d+(\.\d+)?", "#", text)  # noqa: E731
    assert shape(render(records)) in shape(OUTPUTS["counterpoint fit graphs/quickstart"])
