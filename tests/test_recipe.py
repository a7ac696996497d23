"""Recipes: what is read, what is refused and how it is told, what is built, and the way back to YAML."""

import ast
import importlib.util
import inspect
import subprocess
import sys
import time
import typing
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from counterpoint.errors import ComponentError, CounterpointError, RecipeError, suggest
from counterpoint.markers import Channels, Encoder, Rate, Step
from counterpoint.recipe import Recipe, TrainerOptions, load
from counterpoint.recipe import yaml as recipe_yaml

# ---- components ----


@dataclass
class Built:
    """What every component here makes: its name and what it was called with."""

    name: str
    params: dict[str, Any]


THING, EDGES = object(), {"hz": [1.0]}


def table(*, path: str = "x.csv", split: str = "train"): ...
def shuffle(*, groups: int | None = None): ...
def conv(*, channels: Channels, width: int = 32, dropout: float = 0.0): ...
def two(*, one: Encoder, other: Encoder | None = None): ...
def mlp(*, dim: int = 128, layers: tuple[int, ...] = (2, 3)): ...
def copies(*, n: int = 2): ...
def noise(*, snr_db: float, kind: Literal["white", "pink"] = "white", path: Path = Path("a/b")): ...
def crop(*, seconds: float, rate: Rate): ...
def band(*, rate: Annotated[float | None, *Rate.__metadata__] = 100.0, edges: dict[str, list[float]] = EDGES): ...
def chain(*, steps: list[Step], names: dict[str, Step] | None = None, inner: Step | None = None): ...
def info_nce(*, temperature: float = 0.1, positives: str | None = None, flag: bool = False): ...
def koleo(*, weight: int = 1): ...
def adamw(*, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999)): ...
def cosine(*, warmup: int = 0): ...
def knn(*, label: str, k: int | list[int] = 20): ...
def stop(*, metric: str = "loss"): ...
def opaque(*, thing: Any = THING, size: int = 1): ...
def picky(*, p: float):
    if p > 1:
        raise ComponentError(f"p is a probability; got {p}")


KINDS = {
    "dataset": [table],
    "sampler": [shuffle],
    "encoder": [conv, two],
    "head": [mlp],
    "view": [copies, noise, crop, band, chain, picky],
    "objective": [info_nce, koleo, opaque],
    "optimizer": [adamw],
    "schedule": [cosine],
    "refresh": [],
    "evaluator": [knn],
    "callback": [stop],
}


@dataclass
class Parameter:
    name: str
    hint: Any
    default: Any
    required: bool


@dataclass
class Component:
    kind: str
    name: str
    target: Any

    def parameters(self):
        hints = typing.get_type_hints(self.target, include_extras=True)
        found = inspect.signature(self.target).parameters.values()
        empty = inspect.Parameter.empty
        return {p.name: Parameter(p.name, hints[p.name], p.default, p.default is empty) for p in found}

    def build(self, **params):
        self.target(**params)
        return Built(self.name, params)


@dataclass
class Registry:
    recipe_files: dict[str, Path] = field(default_factory=dict)
    found: list[str] = field(default_factory=list)

    def find(self, kind, name):
        for factory in KINDS[kind]:
            if name == f"x.{factory.__name__}":
                self.found.append(name)
                return Component(kind, name, factory)
        raise ComponentError(f"unknown {kind} {name!r}{suggest(name, self.names(kind))}")

    def names(self, kind):
        return [f"x.{factory.__name__}" for factory in KINDS[kind]]

    def recipes(self):
        return self.recipe_files

    def recipe(self, name):
        if name not in self.recipe_files:
            raise CounterpointError(f"unknown recipe {name!r}{suggest(name, self.recipe_files)}")
        return self.recipe_files[name]


@pytest.fixture(autouse=True)
def bare_defaults(monkeypatch):
    """The components that a recipe has unless it names others carry the core's bare names."""
    find = Registry.find
    core = ("shuffle", "mlp", "adamw", "cosine")

    def bare(self, kind, name):
        return find(self, kind, f"x.{name}" if name in core else name)

    monkeypatch.setattr(Registry, "find", bare)


SMALL = """\
data:      {use: x.table}
encoders:
  ecg: {use: x.conv}
objective: x.info_nce
"""
FULL = """\
# Everything that a recipe may say.
data: {use: x.table, path: "no"}
loader: {batch: 16, micro_batch: 4, workers: 0, sampler: {use: shuffle, groups: 3}, on_bad: skip}
encoders:
  ecg: {use: x.conv, width: 8, dropout: 1e-3}
  ppg: {use: x.two, one: x.conv, other: {use: x.conv, channels: 2}}
heads: {ppg: {use: mlp, dim: 16, layers: [4]}}
views:
  ecg:
    - x.copies
    - use: x.chain
      steps: [{use: x.noise, snr_db: 20, kind: pink, path: c}, {use: x.crop, seconds: 8}]
      names: {first: {use: x.noise, snr_db: 3}}
      inner: {use: x.band}
objective:
  nce: {use: x.info_nce, temperature: 0.2, positives: "on"}
  spread: x.koleo
weights: {spread: 0.1}
optimizer: {use: adamw, lr: 3e-4, betas: [0.9, 0.95]}
schedule: {use: cosine, warmup: 10}
momentum: {decay: 0.99, final: 1}
tune:
  ecg: {train: [head, norm], lr: 0.5}
  ppg: {train: none, lora: {rank: 4, targets: [q, v]}}
trainer: {max_epochs: 3, devices: [0, 1], precision: bf16-mixed, max_time: "00:01:00:00", gradient_clip_val: 1}
evaluate: [{use: x.knn, label: animal, k: [1, 5]}]
baselines: {ecg: [{use: x.conv, width: 4}]}
callbacks: [x.stop]
loggers: [csv]
compile: true
seed: 7
name: full-1.b
stages:
  - {name: first, objective: x.koleo, weights: {}, trainer: {max_epochs: 1}}
  - {name: second, loader: {batch: 8}, views: {ppg: [x.copies]}}
"""
DATA, ENCODERS, OBJECTIVE = SMALL.splitlines()[0], "\n".join(SMALL.splitlines()[1:3]), SMALL.splitlines()[3]


@pytest.fixture
def read(tmp_path, monkeypatch):
    """read(text, *overrides): the recipe, from a file that messages call recipe.yaml."""
    monkeypatch.chdir(tmp_path)

    def reader(text: str | bytes, *overrides: str) -> Recipe:
        Path("recipe.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return load("recipe.yaml", overrides, Registry())

    return reader


@pytest.fixture
def mistakes(read):
    """mistakes(text, *overrides): the lines of the report."""

    def reader(text: str | bytes, *overrides: str) -> list[str]:
        with pytest.raises(RecipeError) as caught:
            read(text, *overrides)
        assert str(caught.value).splitlines() == caught.value.problems  # one line each
        return caught.value.problems

    return reader


# ---- reading ----


def test_a_small_recipe_has_every_default(read):
    recipe = read(SMALL)
    assert recipe.encoders["ecg"].params == {"width": 32, "dropout": 0.0}
    assert recipe.heads["ecg"].name == "x.mlp" and recipe.views == {"ecg": []}
    assert list(recipe.objective) == ["loss"] and recipe.objectives is recipe.objective
    assert (recipe.loader.batch, recipe.loader.micro_batch, recipe.loader.workers) == (64, None, "auto")
    assert recipe.loader.sampler.name == "x.shuffle" and recipe.optimizer.name == "x.adamw"
    assert recipe.schedule.name == "x.cosine" and recipe.tune["ecg"].train == "all"
    assert recipe.trainer == TrainerOptions() and recipe.loggers == ["tensorboard"] and recipe.seed == 0
    assert recipe.name is None and recipe.source == "recipe.yaml"


def test_a_full_recipe_is_read_as_written(read):
    recipe = read(FULL)
    assert recipe.data.params["path"] == "no" and recipe.encoders["ecg"].params["dropout"] == 1e-3
    assert recipe.encoders["ppg"].params["other"].params["channels"] == 2
    chain = recipe.views["ecg"][1].params
    assert chain["steps"][0].params == {"snr_db": 20.0, "kind": "pink", "path": Path("c")}
    assert chain["steps"][1].path == "views.ecg[1].steps[1]" and chain["steps"][1].where == "recipe.yaml:12"
    assert chain["names"]["first"].params["snr_db"] == 3.0
    assert recipe.views["ppg"] == [] and recipe.heads["ecg"].params["dim"] == 128
    assert recipe.tune["ppg"].lora.alpha == 16.0 and recipe.tune["ecg"].train == ["head", "norm"]
    assert recipe.trainer.devices == [0, 1] and recipe.optimizer.params["betas"] == (0.9, 0.95)
    assert {"x.noise", "x.crop", "x.band", "x.mlp", "x.koleo"} <= {call.name for call in recipe.calls()}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("yes", "yes"), ("on", "on"), ("Off", "Off"), ("true", True), ("FALSE", False), ("~", None),
        ("", None), ("1e-3", 1e-3), ("1E5", 1e5), (".5", 0.5), ("-1.", -1.0), ("0o17", 15), ("0x1F", 31), ("017", 17),
        ("1:30", "1:30"), ("12:30:45", "12:30:45"), ("2024-01-01", "2024-01-01"), ("1_000", "1_000"),
        ("-.inf", -float("inf")), ("'1'", "1"), ('"true"', "true"), ("<<", "<<"), ("e5", "e5"), ("1.2.3", "1.2.3"),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text, value):
    found = recipe_yaml.parse(f"key: {text}", "f").plain()["key"]
    assert found == value and type(found) is type(value)
    assert recipe_yaml.parse(recipe_yaml.dump({"key": value}), "f").plain() == {"key": value}


@pytest.mark.parametrize(
    "text", ["no", "1e-3", "0o17", "~", "null", "", "12:30:00", "a: b", "# x", "é\n\tz", "- a", "*a"]
)
def test_strings_survive_the_way_through_yaml(text):
    value = {"key": text, text: [text, {"deep": text}]}
    assert recipe_yaml.parse(recipe_yaml.dump(value), "f").plain() == value


def test_an_installed_recipe_is_found_by_name(tmp_path):
    file = tmp_path / "quickstart.yaml"
    file.write_text(SMALL)
    registry = Registry({"x/quickstart": file})
    assert load("x/quickstart", (), registry) == load(file, (), registry)
    with pytest.raises(CounterpointError, match="unknown recipe 'x/quikstart'; did you mean 'x/quickstart'"):
        load("x/quikstart", (), registry)
    with pytest.raises(CounterpointError, match=r"no such file; did you mean '.*quickstart.yaml'"):
        load(str(tmp_path / "quickstrt.yaml"), (), registry)
    with pytest.raises(CounterpointError, match="is not a file"):
        (tmp_path / "folder.yaml").mkdir()
        load(tmp_path / "folder.yaml", (), registry)


def test_loading_is_quick_and_finds_only_what_is_named(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text(SMALL)
    load(file, (), Registry())
    registry, start = Registry(), time.process_time()
    load(file, (), registry)
    assert time.process_time() - start < 0.1
    assert set(registry.found) == {"x.table", "x.conv", "x.info_nce", "x.shuffle", "x.mlp", "x.adamw", "x.cosine"}


def test_loading_imports_neither_lightning_nor_torch():
    code = "import sys, counterpoint.recipe; print([m for m in ('lightning', 'torch', 'sklearn') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


# ---- mistakes ----


@pytest.mark.fault("R13")
def test_every_mistake_is_in_one_report_in_the_order_of_the_lines(mistakes):
    text = """\
data: {use: x.table, pth: a}
loader: {batch: 0, micro_batch: true, workers: many}
encoders:
  ecg:
    use: x.conv
    widht: 3
heads: {egc: x.mlp}
views:
  ecg:
    - {use: x.chain, steps: [x.copies, {use: x.chain, steps: [], inner: {use: x.noise, snr_bd: 3}}]}
objective: {nce: {use: x.info_nce, temperature: abc}, spread: {use: x.koloe}}
weights: {nec: 1, spread: .nan}
evaluate: [{use: x.knn}]
trianer: {max_epochs: 3}
trainer: {limit_train_batches: 3, precision: bf16}
"""
    assert mistakes(text, "seed=soon") == [
        "recipe.yaml:1: data.pth: unknown key of dataset 'x.table'; did you mean 'path'?",
        "recipe.yaml:2: loader.batch: expected a number greater than or equal to 1, got 0",
        "recipe.yaml:2: loader.micro_batch: expected an integer, got true",
        "recipe.yaml:2: loader.workers: expected an integer or 'auto', got 'many'",
        "recipe.yaml:6: encoders.ecg.widht: unknown key of encoder 'x.conv'; did you mean 'width'?",
        "recipe.yaml:7: heads.egc: 'egc' is not a modality: `encoders` has no such key; did you mean 'ecg'?",
        "recipe.yaml:10: views.ecg[0].steps[1].inner.snr_bd: unknown key of view 'x.noise'; did you mean 'snr_db'?",
        "recipe.yaml:10: views.ecg[0].steps[1].inner.snr_db: missing; view 'x.noise' needs it",
        "recipe.yaml:11: objective.nce.temperature: expected a number, got 'abc'",
        "recipe.yaml:11: objective.spread: unknown objective 'x.koloe'; did you mean 'x.koleo'?",
        "recipe.yaml:12: weights.nec: 'nec' is not an objective; did you mean 'nce'?",
        "recipe.yaml:12: weights.spread: expected a finite number, got nan",
        "recipe.yaml:13: evaluate[0].label: missing; evaluator 'x.knn' needs it",
        "recipe.yaml:14: trianer: unknown key of the recipe; did you mean 'trainer'?",
        "recipe.yaml:15: trainer.limit_train_batches: the loop counts batches itself, so that a resumed run is exact; "
        "shorten the run with max_steps or max_epochs",
        "recipe.yaml:15: trainer.precision: expected '32-true', '16-mixed', 'bf16-mixed', '16-true', 'bf16-true', "
        "'64-true', 'transformer-engine' or 'transformer-engine-float16', got 'bf16'; did you mean 'bf16-true'?",
        "command line: seed=soon: expected an integer, got 'soon'",
    ]


@pytest.mark.fault("R13")
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("encoders: {ecg: x.conv}\nobjective: x.koleo", "recipe.yaml:1: data: missing; the recipe needs it"),
        (f"{DATA}\nencoders: {{}}\n{OBJECTIVE}", "recipe.yaml:2: encoders: expected at least one, as in `encoders: {ecg:"),
        (f"{SMALL}encoders.ecg: 1", "recipe.yaml:5: encoders.ecg: unknown key of the recipe; did you mean 'encoders'?"),
        (f"{SMALL}views: {{ecg: {{use: x.copies}}}}", "views.ecg: expected a list of views, as in [...]; got a mapping of"),
        (f"{SMALL}views: [x.copies]", "recipe.yaml:5: views: expected a mapping of names to lists of views; got a list"),
        (f"{SMALL}optimizer: {{lr: 1}}", "optimizer: expected an optimizer, as in {use: x.adamw, ...}; got a mapping of 'lr'"),
        (f"{SMALL}schedule:", "recipe.yaml:5: schedule: expected a schedule, as in {use: x.cosine, ...}; got null"),
        (f"{SMALL}optimizer: {{use: 3}}", "optimizer: expected an optimizer, as in {use: x.adamw, ...}; got 3"),
        (f"{SMALL}trainer: 3", "recipe.yaml:5: trainer: expected a mapping with any of accelerator, devices"),
        (f"{SMALL}trainer: {{max_time: 1:30}}", "expected days:hours:minutes:seconds, as in 00:12:00:00; got '1:30'"),
        (f"{SMALL}trainer: {{max_steps: 0}}", "trainer.max_steps: expected a positive integer, or -1 for no limit; got 0"),
        (f"{SMALL}trainer: {{devices: [0, a]}}", "recipe.yaml:5: trainer.devices[1]: expected an integer, got 'a'"),
        (f"{SMALL}trainer: {{callbacks: []}}", "write `callbacks: [{use: ...}]` beside `trainer`"),
        (f"{SMALL}tune: {{ecg: {{train: al}}}}", "expected 'all' or 'none' or a list, got 'al'; did you mean 'all'?"),
        (f"{SMALL}tune: {{ecg: {{lora: {{rank: 0}}}}}}", "tune.ecg.lora.targets: missing; tune.ecg.lora needs it"),
        (f"{SMALL}weights: {{los: 1}}", "recipe.yaml:5: weights.los: 'los' is not an objective; did you mean 'loss'?"),
        (f"{SMALL}baselines: {{egc: [x.conv]}}", "recipe.yaml:5: baselines.egc: 'egc' is not a modality"),
        (f"{DATA}\n{ENCODERS}\n  a.b: x.conv\n{OBJECTIVE}", "encoders.a.b: expected a name of letters, digits, '_' and '-'"),
        (f"{DATA}\nencoders: {{ecg: {{use: x.conv, width: no}}}}\n{OBJECTIVE}", "expected an integer, got 'no'"),
        (f"{DATA}\nencoders: {{ecg: {{use: x.conv, width: 1.5}}}}\n{OBJECTIVE}", "expected an integer, got 1.5"),
        (f"{DATA}\nencoders: {{ecg: {{use: x.conv, dropout: true}}}}\n{OBJECTIVE}", "expected a number, got true"),
        (f"{SMALL}evaluate: [{{use: x.knn, label: 3}}]", "recipe.yaml:5: evaluate[0].label: expected a string, got 3"),
        (f"{SMALL}evaluate: [{{use: x.knn, label: a, k: [1, [2]]}}]", "evaluate[0].k[1]: expected an integer, got [2]"),
        (f"{SMALL}optimizer: {{use: adamw, betas: [1, 2, 3]}}", "optimizer.betas: expected at most 2 entries, got [1, 2, 3]"),
        (f"{SMALL}heads: {{ecg: {{use: mlp, layers: 3}}}}", "heads.ecg.layers: expected a list, got 3"),
        (f"{SMALL}stages: [{{name: a}}, {{name: a}}]", "stages[1].name: 'a' is the name of an earlier stage"),
        (f"{SMALL}stages: [{{name: a, encoders: {{}}}}]", "recipe.yaml:5: stages[0].encoders: unknown key of stages[0]"),
        (f"{SMALL}stages: [{{name: a, trainer: {{max_epoch: 3}}}}]", "stages[0].trainer.max_epoch: unknown key"),
        (f"{SMALL}weights: {{loss: 2}}\nstages: [{{name: a, objective: {{b: x.koleo}}}}]", "give it `weights` too"),
    ],
)  # fmt: skip
def test_a_mistake_says_where_what_and_what_else(mistakes, text, line):
    problems = mistakes(text)
    assert any(line in problem for problem in problems), problems


# ---- hostile recipes ----

BOMB = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi"))


@pytest.mark.fault("R13")
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("!!python/object/apply:os.system ['touch pwned']", "recipe.yaml:1: the tag 'tag:yaml.org,2002:python/object"),
        (f"{SMALL}name: !!str a", "recipe.yaml:5: the tag 'tag:yaml.org,2002:str' is not taken"),
        (f"{SMALL}name: !own a", "recipe.yaml:5: the tag '!own' is not taken"),
        (f"{SMALL}seed: 1\nname: a\nseed: 2", "recipe.yaml:7: the key 'seed' stands twice (first at recipe.yaml:5)"),
        (f"{DATA}\nencoders: {{ecg: x.conv, ecg: x.conv}}", "recipe.yaml:2: the key 'ecg' stands twice"),
        (BOMB, "recipe.yaml:1: &a: anchors and aliases are not taken; write the value out"),
        ("a: *a", "recipe.yaml:1: *a: anchors and aliases are not taken"),
        ("? [a]\n: b", "recipe.yaml:1: a key must be a word"),
        ("data:\n\tuse: x.table", "recipe.yaml:2: not YAML: a tab stands where YAML takes only spaces"),
        ("data: {\n\tuse: x.table}", "recipe.yaml:2: not YAML: a tab stands where YAML takes only spaces"),
        (f"{SMALL}---\na: 1", "recipe.yaml:5: a second document (`---`) starts here"),
        ("", "recipe.yaml: the recipe is empty"),
        ("# nothing\n", "recipe.yaml: the recipe is empty"),
        ("---\n", "recipe.yaml: the recipe is empty"),
        ("- a\n- b", "recipe.yaml:1: expected a mapping (`data: ...`, `encoders: ...`), got a list"),
        ("just words", "recipe.yaml:1: expected a mapping (`data: ...`, `encoders: ...`), got 'just words'"),
        ("data: a: b", "recipe.yaml:1: not YAML: mapping values are not allowed here; quote a value that holds ': '"),
        ("data: {use: a", "recipe.yaml:1: not YAML: expected ',' or '}'"),
        ("data: 'a\nb: 1", "not YAML: "),
        (b"data: \xff\xfe", "recipe.yaml:1: byte 0xff is not UTF-8; save the recipe as UTF-8 text"),
        (b"data: 1\nname: \x00", "recipe.yaml:2: not YAML: special characters are not allowed"),
        ("data: " + "[" * 100_000, "recipe.yaml:1: more than 50 lists and mappings inside one another"),
        ("data: " + "{a: " * 100, "recipe.yaml:1: more than 50 lists and mappings inside one another"),
        ("data: [" + "1," * 60_000, "recipe.yaml:1: more than 50000 values in one recipe"),
        (f"{SMALL}seed: {'9' * 10_000}", "recipe.yaml:5: the number 9999999999... has 10000 digits"),
        (f"{SMALL}name: ../../etc", "recipe.yaml:5: name: expected letters, digits, '.', '_' and '-', without a leading"),
        (f"{SMALL}name: .hidden", "without a leading dot; got '.hidden'"),
        (f"{SMALL}name: /etc/passwd", "without a leading dot; got '/etc/passwd'"),
        (f"{SMALL}name: 'a\n\n  b'", r"without a leading dot; got 'a\nb'"),
        (f"{SMALL}name: $(touch pwned)", "without a leading dot; got '$(touch pwned)'"),
        (f"{SMALL}stages: [{{name: ../up}}]", "recipe.yaml:5: stages[0].name: expected letters"),
        (f'{SMALL}"\\e[31mred\\nline": 1', r"recipe.yaml:5: '\x1b[31mred\nline': unknown key of the recipe"),
        (f"{SMALL}1: 2", "recipe.yaml:5: 1: unknown key of the recipe"),
        (f"{SMALL}<<: {{seed: 3}}", "recipe.yaml:5: '<<': unknown key of the recipe"),
        (f"{DATA}\nencoders: {{ecg: os.system}}\n{OBJECTIVE}", "recipe.yaml:2: encoders.ecg: unknown encoder 'os.system'"),
    ],
)  # fmt: skip
def test_a_hostile_recipe_is_refused_in_a_line(mistakes, text, line):
    problems = mistakes(text)
    assert any(line in problem for problem in problems), problems
    assert all(len(problem) < 400 and problem.isprintable() for problem in problems)
    assert [path.name for path in Path().iterdir()] == ["recipe.yaml"]  # nothing was run, nothing written


@pytest.mark.fault("R13")
def test_a_recipe_of_ten_megabytes_is_refused_unread(mistakes):
    start = time.process_time()
    problems = mistakes(SMALL + "# " + "x" * 10_000_000)
    assert problems == ["recipe.yaml: a recipe is a text of at most 1 MB; this file has 10.0 MB"]
    assert time.process_time() - start < 1


@pytest.mark.fault("R13")
def test_a_flood_of_mistakes_is_told_in_a_page(mistakes):
    keys = "".join(f"k{i}: 1\n" for i in range(5000))
    problems = mistakes(f"{SMALL}{keys}weights: {{loss: a}}\nloggers: [{'1, ' * 5000}]")
    assert len(problems) < 50
    assert "recipe.yaml:1: 4980 more unknown keys of the recipe" in problems
    assert any("weights.loss: expected a number, got 'a'" in problem for problem in problems)


@pytest.mark.fault("R13")
def test_shell_text_is_text(read):
    recipe = read(SMALL.replace("x.table}", 'x.table, path: "$(touch pwned); `id` {{7*7}} ${HOME}"}'))
    assert recipe.data.params["path"] == "$(touch pwned); `id` {{7*7}} ${HOME}"
    assert not Path("pwned").exists()


# ---- overrides ----


def test_overrides_change_replace_and_add(read):
    recipe = read(
        FULL,
        "objective.nce.temperature=0.5",
        "views.ecg[1].steps[0].snr_db=1e1",
        "views.ecg[2]={use: x.noise, snr_db: 3}",
        "data=x.table",
        "trainer.max_epochs=9",
        "tune.ppg.lora.rank=2",
        "views.ecg[0].n=5",
        "encoders.new=x.conv",
        "heads.new.dim=4",
        "stages[0].trainer.max_epochs=2",
    )
    assert recipe.objective["nce"].params["temperature"] == 0.5
    assert recipe.views["ecg"][1].params["steps"][0].params["snr_db"] == 10.0
    assert recipe.views["ecg"][2].params["snr_db"] == 3.0 and recipe.views["ecg"][0].params["n"] == 5
    assert recipe.data.params["path"] == "x.csv" and recipe.trainer.max_epochs == 9
    assert recipe.tune["ppg"].lora.rank == 2 and recipe.heads["new"].params["dim"] == 4 and recipe.views["new"] == []
    assert recipe.stages[0].trainer.max_epochs == 2


def test_overrides_reach_what_the_recipe_does_not_name(read):
    recipe = read(
        SMALL, "optimizer.lr=1e-2", "objective.temperature=1", "heads.ecg.dim=8", "loader.sampler.groups=2", "name="
    )
    assert recipe.optimizer.params["lr"] == 0.01 and recipe.objective["loss"].params["temperature"] == 1.0
    assert recipe.heads["ecg"].params["dim"] == 8 and recipe.loader.sampler.params["groups"] == 2
    assert list(read(SMALL, "encoders={ppg: x.conv}").heads) == ["ppg"]
    assert list(read(FULL, "objective=x.koleo", "weights={}", "stages=[]").objective) == ["loss"]


@pytest.mark.fault("R13")
@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("objective.temperature=abc", "command line: objective.temperature=abc: expected a number, got 'abc'"),
        ("objective.temprature=1", "command line: objective.temprature=1: unknown key of objective 'x.info_nce'; did you"),
        ("objectiv.temperature=1", "command line: objectiv.temperature=1: objectiv: unknown key of the recipe; did you"),
        ("objective={use: x.koleo, wait: 1}", "objective.wait: unknown key of objective 'x.koleo'; did you mean 'weight'?"),
        ("views.ecg.n=1", "command line: views.ecg.n=1: views.ecg is a list; write one of views.ecg[0]"),
        ("views.ecg[2]=x.copies", "views.ecg has 1 entries, counted from 0; [1] adds one"),
        ("views[0]=x.copies", "command line: views[0]=x.copies: views is a mapping, not a list; valid: ecg"),
        ("seed.x=1", "command line: seed.x=1: seed is 3, which has no 'x' inside"),
        ("seed", "command line: seed: expected key.path=value, as in objective.temperature=0.1"),
        ("=1", "command line: =1: expected key.path=value"),
        ("a..b=1", "command line: a..b=1: expected key.path=value"),
        ("name={a: b", "command line: name={a: b: not YAML: "),
        ("name=!!python/object:os.system x", "the tag 'tag:yaml.org,2002:python/object:os.system' is not taken"),
        ("name=../../etc", "command line: name=../../etc: expected letters, digits"),
    ],
)  # fmt: skip
def test_a_wrong_override_names_itself(mistakes, override, line):
    problems = mistakes(SMALL + "seed: 3\nviews: {ecg: [x.copies]}", override, "seed=[]")
    assert any(line in problem for problem in problems), problems
    assert any(problem.startswith("command line: seed=[]: expected an integer") for problem in problems)


# ---- building ----


def test_build_fills_what_the_data_knows_and_builds_what_is_inside(read):
    recipe = read(FULL)
    given = {"channels": 12, "rate": 500.0}
    assert recipe.encoders["ecg"].build(given).params == {"channels": 12, "width": 8, "dropout": 1e-3}
    two = recipe.encoders["ppg"].build(given)
    assert two.params["one"].params["channels"] == 12 and two.params["other"].params["channels"] == 2
    chain = recipe.views["ecg"][1].build(given)
    assert [step.params.get("rate") for step in chain.params["steps"]] == [None, 500.0]
    assert chain.params["names"]["first"] == Built("x.noise", {"snr_db": 3.0, "kind": "white", "path": Path("a/b")})
    assert recipe.views["ecg"][1].params["inner"].build().params == {"edges": {"hz": [1.0]}}  # its own default for rate
    assert chain.params["inner"].params["rate"] == 500.0


def test_build_says_what_the_data_does_not(read):
    recipe = read(FULL)
    lines = recipe.views["ecg"][1].lacking({"channels": 1})
    path = "views.ecg[1].steps[1].rate"
    assert lines == [f"recipe.yaml:12: {path}: the data does not say it; add `{path}: ...`"]
    with pytest.raises(RecipeError) as caught:
        recipe.encoders["ppg"].build({})
    assert caught.value.problems == [
        "recipe.yaml:6: encoders.ppg.one.channels: the data does not say it; add `encoders.ppg.one.channels: ...`"
    ]


def test_a_mistake_that_the_factory_finds_has_line_and_path(read):
    recipe = read(f"{SMALL}views:\n  ecg:\n    - {{use: x.chain, steps: [{{use: x.picky, p: 3}}]}}")
    with pytest.raises(RecipeError) as caught:
        recipe.views["ecg"][0].build()
    assert caught.value.problems == ["recipe.yaml:7: views.ecg[0].steps[0]: p is a probability; got 3.0"]


def test_messages_after_the_check_find_their_line(read):
    recipe = read(FULL, "trainer.devices=4")
    assert recipe.where("loader.batch") == "recipe.yaml:3: loader.batch"
    assert recipe.where("views.ecg[1].steps[1].seconds") == "recipe.yaml:12: views.ecg[1].steps[1].seconds"
    assert recipe.where("trainer.accelerator") == "recipe.yaml:25: trainer.accelerator"
    assert recipe.where("trainer.devices") == "command line: trainer.devices=4"
    assert recipe.objective["spread"].at == "recipe.yaml:17: objective.spread"
    first = recipe.stage_recipes()[0][1]
    assert first.where("objective") == "recipe.yaml:34: stages[0].objective"
    assert first.where("loader.batch") == "recipe.yaml:3: loader.batch"
    assert read(SMALL).where("optimizer.lr") == "recipe.yaml: optimizer.lr"


# ---- stages and the way back ----


def test_a_stage_is_the_recipe_with_its_sections_replaced(read):
    recipe = read(FULL)
    (name, first), (other, second) = recipe.stage_recipes()
    assert (name, other) == ("first", "second")
    assert (
        first.objective["loss"].name == "x.koleo"
        and first.weights == {}
        and first.trainer == TrainerOptions(max_epochs=1)
    )
    assert first.loader == recipe.loader and first.views == recipe.views and first.stages == []
    assert second.loader.batch == 8 and second.loader.micro_batch is None and second.objective == recipe.objective
    assert second.views["ecg"] == [] and [call.name for call in second.views["ppg"]] == ["x.copies"]
    assert read(SMALL).stage_recipes() == [("train", read(SMALL))]


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        (SMALL, []),
        (FULL, []),
        (SMALL, ["objective={one: x.koleo}"]),
        (SMALL, ["objective={loss: x.koleo}", "weights.loss=1e-7"]),
        (SMALL, ["objective=x.opaque", "objective.size=2"]),
        (SMALL, ["objective.positives='1e-3'", "data.path='12:30:00 # \"é\"'", "seed=0o17"]),
        (FULL, ["views.ecg[1].inner.edges={no: [1e-9, .inf], \"1\": []}", "loader.workers=auto", "schedule.warmup=0x1F"]),
        (FULL, ["views.ecg[1].inner.rate=null", "stages=[]", "trainer.deterministic=warn"]),
    ],
)  # fmt: skip
def test_the_whole_configuration_reloads_to_an_equal_recipe(read, text, overrides):
    recipe = read(text, *overrides)
    again = read(recipe.as_yaml())
    assert again == recipe
    assert again.as_yaml() == recipe.as_yaml()
    for (_, stage), (_, stage_again) in zip(recipe.stage_recipes(), again.stage_recipes()):
        assert stage == stage_again == read(stage.as_yaml())


def test_recipes_that_differ_are_unequal(read):
    assert read(SMALL) != read(SMALL, "objective.temperature=0.11")
    assert read(SMALL) != read(SMALL, "trainer.max_epochs=2")
    assert read(SMALL) != read(SMALL, "encoders.ecg.channels=2")


def test_the_whole_configuration_names_every_default_but_what_the_data_knows(read):
    text = read(SMALL).as_yaml()
    assert "ecg: {use: x.conv, width: 32, dropout: 0.0}" in text and "channels" not in text
    assert "objective: {use: x.info_nce, temperature: 0.1, positives: null, flag: false}" in text
    assert "optimizer:" in text and "max_steps: -1" in text
    override = read(text, "objective.temperature=0.3")  # the paths are those of the recipe it came from
    assert override.objective["loss"].params["temperature"] == 0.3


def test_trainer_options_are_arguments_of_the_trainer_of_lightning_and_none_is_left_out():
    lightning = Path(importlib.util.find_spec("lightning").origin).parent  # read, not imported: that takes seconds
    tree = ast.parse((lightning / "pytorch" / "trainer" / "trainer.py").read_text())
    (trainer,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Trainer"]
    (init,) = [node for node in trainer.body if getattr(node, "name", "") == "__init__"]
    arguments = {argument.arg for argument in [*init.args.args, *init.args.kwonlyargs]} - {"self"}
    options = {f.name for f in fields(TrainerOptions)}
    assert options <= arguments
    assert set(TrainerOptions.REFUSED) == arguments - options
