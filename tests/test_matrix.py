"""Every objective that knows no domain trains in every pack: the same words, whatever the data are."""

import csv
import json
import math
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from counterpoint.fit.run import fit
from counterpoint.packs.builtin import TABLES
from counterpoint.recipe import load
from own_files import PACKS, SAMPLES

OWN = {
    "ecg": "ecg",
    "medical": "scan",
    "audio_text": "audio",
    "video": "video",
    "code_search": "code",
    "points3d": "shape",
}
TEXT = {"use": "text_transformer", "width": 8, "depth": 1, "heads": 2}
WORDS = ("first", "second")  # modalities of text beside the pack's own
COLUMNS = ("own", *WORDS, "who", "kind", "age")
SETTINGS = {  # what a recipe has: (modality, views), of the pack's own data and of two texts
    "views": ((0, 2),),
    "pair": ((0, 1), (1, 1)),
    "pair of views": ((0, 2), (1, 2)),
    "views and a text": ((0, 2), (1, 1)),
    "three": ((0, 1), (1, 1), (2, 1)),
}
NO_MAPS = frozenset(OWN) - {"medical"}  # no encoder that gives a map
AXES = {"ecg": 1, "medical": 3, "video": 3, "code_search": 1}  # of what an encoder sees as it was read


class Ask(NamedTuple):
    """What an objective needs that most do not: a setting, parameters, changes of the recipe; `without`: packs that cannot."""

    setting: str = "views"
    told: dict = {}
    change: Callable[[dict, str], None] | None = None
    without: frozenset[str] = frozenset()


def heads(z: str, *names: str) -> Callable[[dict, str], None]:
    """Every modality with several heads, one of which is contrasted."""

    def change(recipe: dict, pack: str) -> None:
        several = {"use": "several", "z": z, "heads": {name: {"use": "mlp", "dim": 8} for name in (z, *names)}}
        recipe["heads"] = dict.fromkeys(recipe["heads"], several)

    return change


def tokens(recipe: dict, pack: str) -> None:
    """Encoders that give tokens, and heads that take them."""
    if pack == "medical":
        recipe["encoders"]["scan"] = {"use": "medical.vit", **VIT}
    recipe["heads"] = {m: {"use": "tokens", "dim": 8} for m in recipe["heads"]}


def maps(recipe: dict, pack: str) -> None:
    """An encoder with a map, and a head that projects it and scores it against prototypes."""
    recipe["encoders"] = {OWN[pack]: {"use": "medical.vit", **VIT}}
    recipe["heads"] = {OWN[pack]: {"use": "slots", "dim": 8, "hidden": 8, "prototypes": 4}}


def captions(recipe: dict, pack: str) -> None:
    tokens(recipe, pack)
    recipe["objective"] |= {"text": "first", "width": 8, "alone": 1, "crossing": 1, "heads": 2}


def decoder(recipe: dict, pack: str) -> None:
    heads("mean", "logvar")(recipe, pack)
    recipe["objective"] |= {"axes": AXES[pack], "width": 8, "depth": 1, "heads": 2}


def mixed(recipe: dict, pack: str) -> None:
    recipe["views"][OWN[pack]].append({"use": "mix"})


def edited(recipe: dict, pack: str) -> None:
    recipe["views"]["first"].append({"use": "token_swap"})


VIT = {"shape": [12, 12, 12], "patch": 6, "width": 8, "depth": 1, "heads": 2}
SHORT_QUEUE = {"queue": 16}
QUEUED = ("moco", "hard_contrastive", "esimcse", "contriever", "mochi", "feat_transform", "hallucinator", "nnclr")
ASKS: dict[str, Ask] = {
    **{name: Ask("pair") for name in ("clip", "siglip", "oneencoder", "convirt", "contrastive_gap", "msd_medical_vlp")},
    **{name: Ask("pair", SHORT_QUEUE) for name in ("albef",)},
    **{name: Ask("views", SHORT_QUEUE) for name in QUEUED},
    **{name: Ask("three") for name in ("mv_infonce", "mv_dhel", "symile", "gram")},
    **{name: Ask("pair", change=tokens) for name in ("filip", "cico")},
    **{name: Ask("pair", {"group": "who"}) for name in ("sigmoid_multi_positive", "x_ego_cecl")},
    **{name: Ask("views", {"group": "who"}) for name in ("g_simclr", "mcl_multistage")},
    **{name: Ask("views", {"teacher": True}) for name in ("mod_x", "dcd", "selfdistill_fpt")},
    "autotcl": Ask(told={"stretches": 3}, change=tokens),
    "coca": Ask("pair", change=captions),
    "matching": Ask("pair", change=tokens),
    "cmim": Ask("views", change=decoder, without=frozenset(OWN) - AXES.keys()),
    "pixpro": Ask(change=maps, without=NO_MAPS),
    "slotcon": Ask(told={"hidden": 8}, change=maps, without=NO_MAPS),
    "cleanclip": Ask("pair of views"),
    "cwcl": Ask("pair", {"source": "first"}),
    "dialog2flow": Ask("views and a text", {"source": "first"}),
    "supcon": Ask(told={"label": "kind"}),
    "supremix": Ask(told={"label": "age"}),
    "sepclr": Ask(told={"label": "kind"}, change=heads("common", "salient")),
    "amcl": Ask(told={"heads": ["a", "b"]}, change=heads("a", "b")),
    "unfused": Ask(told={"exits": ["b"], "group": "who"}, change=heads("a", "b")),  # without layers, as most encoders
    "mlcd": Ask(told={"classes": 8, "groups": ["who"]}),
    "interclr": Ask(told={"clusters": 2, "least": 1, "every": 1, "pool": 6, "negatives": 4, **SHORT_QUEUE}),
    "beclr": Ask(told={"memory": 8, "clusters": 2, "neighbours": 1, "start": 0}),
    "swav": Ask(told={"prototypes": 6}),
    "m3col": Ask("pair", change=mixed, without=frozenset({"code_search"})),  # token ids cannot be mixed
    "tsvlc": Ask("pair", change=edited),
}


def recipe_of(pack: str, setting: str, folder: Path) -> dict:
    """The pack's recipe for own files, made small, with the modalities and views of a setting."""
    whole = yaml.safe_load(load(f"{pack}/from_manifest", PACKS[pack](folder)).as_yaml())
    own, data = OWN[pack], whole["data"]
    rows = _rows(folder / data["path"], data["inputs"][own])
    with (folder / "all.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    names = (own, *WORDS)
    count = {names[place]: views for place, views in SETTINGS[setting]}
    chosen = lambda section, other: {m: section.get(m, other) for m in count}  # noqa: E731
    steps = chosen(whole["views"], [])
    whole["data"] = {
        "use": "manifest", "path": "all.csv", "inputs": {m: "own" if m == own else m for m in count}, "groups": ["who"],
        "labels": ["kind", "age"], "readers": chosen(data["readers"], {"use": "text", "tokenizer": "bytes", "max_tokens": 24}),
    }  # fmt: skip
    whole["encoders"] = chosen(whole["encoders"], TEXT)
    whole["views"] = {m: _with_views(steps[m], n) for m, n in count.items()}
    whole["heads"] = {m: {"use": "mlp", "dim": 8} for m in count}
    short = {"max_epochs": None, "max_steps": 3, "accelerator": "cpu"}
    loader = {"batch": 6, "workers": 0}
    return {
        **whole, "tune": {}, "evaluate": [], "baselines": {}, "loggers": [], "trainer": short, "loader": loader,
        "stages": [], "optimizer": {"use": "adamw"}, "schedule": {"use": "constant"}, "name": None, "weights": {},
    }  # fmt: skip


def _rows(path: Path, column: str) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        own = [row[column] for row in csv.DictReader(file)]
    texts = [(f"a sample of kind {i % 3}", f"number {i}") for i in range(SAMPLES)]
    return [[cell, *texts[i], f"P{i // 2}", f"k{i % 3}", str(20 + i)] for i, cell in enumerate(own)]


def _with_views(steps: list, views: int) -> list:
    """The steps with as many views as wanted; clips of a video are always two, and more than asked for does no harm."""
    makes_two = any(step["use"] in ("copies", "video.clips") for step in steps)
    if views == 2:
        return steps if makes_two else [{"use": "copies", "n": 2}, *steps]
    return [{**step, "n": 1} if step["use"] == "copies" else step for step in steps]


@pytest.fixture(scope="module")
def recipes(tmp_path_factory):
    """(pack, setting) -> a folder with its files, and its recipe; made when first asked for."""
    made: dict[tuple[str, str], tuple[Path, dict]] = {}

    def get(pack: str, setting: str) -> tuple[Path, dict]:
        if (pack, setting) not in made:
            folder = tmp_path_factory.mktemp(pack)
            whole = recipe_of(pack, setting, folder)
            made[pack, setting] = folder, {key: value for key, value in whole.items() if value is not None}
        return made[pack, setting]

    return get


def trained(folder: Path, recipe: dict, runs: Path):
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe), encoding="utf-8")
    return fit(load(path), root=runs)


@pytest.fixture(scope="module")
def teachers(recipes, tmp_path_factory):
    """pack -> a run that has seen its views."""
    made: dict[str, str] = {}

    def get(pack: str) -> str:
        if pack not in made:
            folder, recipe = recipes(pack, "views")
            made[pack] = str(
                trained(folder, {**recipe, "objective": {"use": "nt_xent"}}, tmp_path_factory.mktemp("teacher")).folder
            )
        return made[pack]

    return get


def cells():
    """Every objective with every pack that it goes with."""
    return [(name, pack) for name in TABLES["objective"] for pack in PACKS if pack not in ASKS.get(name, Ask()).without]


@pytest.mark.parametrize(("objective", "pack"), cells())
def test_any_objective_trains_in_any_pack(objective, pack, recipes, teachers, tmp_path, monkeypatch):
    ask = ASKS.get(objective, Ask())
    folder, shared = recipes(pack, ask.setting)
    monkeypatch.chdir(folder)
    recipe = deepcopy(shared)
    told = {name: value for name, value in ask.told.items() if name != "teacher"}
    if "teacher" in ask.told:
        recipe["teacher"] = {"run": teachers(pack)}
    recipe["objective"] = {"use": objective, **told}
    if ask.change is not None:
        ask.change(recipe, pack)
    run = trained(folder, recipe, tmp_path)
    rows = [row.split(",") for row in (run.folder / "metrics.csv").read_text().splitlines()]
    losses = [float(row[3]) for row in rows if row[2] == "loss"]
    assert losses and all(math.isfinite(loss) for loss in losses) and run.weights.is_file()
