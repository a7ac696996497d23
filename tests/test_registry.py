"""Names become components; a name, a target or a signature that is wrong says whose it is and what to do."""

import gc
import random
import sys
from pathlib import Path
from textwrap import dedent
from typing import Annotated, Any, Literal

import pytest

from counterpoint.errors import ComponentError, CounterpointError, DataError
from counterpoint.markers import KINDS, Given, Use
from counterpoint.packs import builtin, registry, targets
from counterpoint.packs.discovery import Discovery, Fault, Pack
from counterpoint.packs.importing import set_aside
from counterpoint.packs.registry import Component, Registry

PARTS = '''
    """Components of the tests, good and bad."""

    from __future__ import annotations

    import functools
    from dataclasses import dataclass
    from typing import TYPE_CHECKING, Annotated, Any, Literal

    from counterpoint.errors import DataError
    from counterpoint.markers import Channels, Given, Step

    if TYPE_CHECKING:
        from somewhere import Thing


    def crop(
        *,
        seconds: float,
        rate: Annotated[float, Given("rate")],
        pad: Literal["zero", "edge"] = "zero",
    ) -> Any:
        """A random window (Someone et al., 2020, section 3).

        seconds  length of the window
        """
        if seconds <= 0:
            raise ValueError(f"seconds must be positive, got {seconds}")
        return seconds, rate, pad


    class Net:
        """A net."""

        def __init__(self, *, channels: Channels, steps: list[Step] | None = None):
            self.channels = channels


    class Child(Net):
        """A net that inherits its parameters."""


    class Plain:
        """Without parameters."""


    @dataclass(kw_only=True)
    class Table:
        """A dataset."""

        path: str
        limit: int | None = None


    def wrapped(function):
        @functools.wraps(function)
        def inner(*args, **kwargs):
            return function(*args, **kwargs)

        return inner


    @wrapped
    def decorated(*, width: int = 8):
        """Decorated."""


    def torn(*, path: str):
        raise DataError(f"{path} is torn")


    def bug(*, width: int = 8):
        raise KeyError(width)


    text = """
    at the first column
    def hidden():
    """


    def undocumented(*, width: int = 8): ...
    def kwargs(*, width: int = 8, **others): ...
    def args(*widths: int): ...
    def positional(width: int, *, depth: int = 1): ...
    def only_positional(width: int, /): ...
    def unannotated(*, width=8): ...
    def reserved(*, use: str): ...
    def absent(*, thing: Thing): ...
    def broken_hint(*, thing: "list["): ...
'''


@pytest.fixture(scope="module", autouse=True)
def parts(tmp_path_factory):
    """A package of components on the path."""
    folder = tmp_path_factory.mktemp("parts")
    package = folder / "cp_parts"
    package.mkdir()
    loud = "import random\nrandom.seed(0)\nprint('loud')\ndef part(*, width: int = 1):\n    '''Loud.'''\n"
    files = {
        "__init__": "HEAVY = True\n",
        "parts": dedent(PARTS),
        "needy": "import tsai_x\n",
        "leaves": "raise SystemExit(1)\n",
        "loud": loud,
    }
    for name, text in files.items():
        (package / f"{name}.py").write_text(text)
    sys.path.insert(0, str(folder))
    yield package
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.startswith("cp_parts")]:
        del sys.modules[name]


def pack(entry: str, distribution: str, recipes: Path | None = None, **tables: dict[str, str]) -> Pack:
    return Pack(distribution, "1.0", entry, f"cp_{entry}.pack", tables, recipes)


def component(attribute: str, kind: str = "view", module: str = "parts") -> Component:
    return Component(kind, f"ecg.{attribute}", f"cp_parts.{module}:{attribute}", pack("ecg", "counterpoint-ecg"))


FAULT = Fault("cp-ill", "0.3", "ill", "/x/pack.py:3", "its import fails: RuntimeError: boom", "pip install -U cp-ill")


@pytest.fixture
def found():
    """Two distributions that share the pack name `twin`, one other pack, one that is broken, one left out."""
    packs = [
        pack("ecg", "counterpoint-ecg", view={"crop": "cp_parts.parts:crop"}, encoder={"net": "cp_parts.parts:Net"}),
        pack("twin", "cp-a", view={"crop": "cp_parts.parts:crop", "a": "cp_parts.parts:decorated"}),
        pack("twin", "Cp_B", view={"crop": "cp_parts.parts:decorated"}),
    ]
    return Registry(Discovery(packs, [FAULT], {"video": "it is not among the chosen packs (ecg)"}))


def message(function, *args) -> str:
    with pytest.raises(ComponentError) as caught:
        function(*args)
    return str(caught.value)


def test_every_name_listed_is_found_and_is_its_own(found):
    for kind in KINDS:
        names = found.names(kind)
        assert names == sorted(names)
        for name in names:
            assert found.find(kind, name).name == name
    assert {"ecg.crop", "twin.a", "cp-a/twin.crop", "Cp_B/twin.crop"} <= set(found.names("view"))
    assert {"info_nce", "clip", "vicreg"} <= set(found.names("objective"))


def test_a_clash_is_an_error_only_when_the_name_is_used(found):
    text = message(found.find, "view", "twin.crop")
    assert "cp-a 1.0 and Cp_B 1.0" in text and "'cp-a/twin.crop' or 'Cp_B/twin.crop'" in text
    assert found.find("view", "cp-a/twin.crop").target == "cp_parts.parts:crop"
    assert found.find("view", "cp_b/twin.crop").target == "cp_parts.parts:decorated"
    assert found.find("view", "twin.a").provider.distribution == "cp-a"


@pytest.mark.parametrize(
    "kind, name, expected",
    [
        ("objective", "info_ncee", "unknown objective 'info_ncee'; did you mean 'info_nce'?"),
        ("view", "crop", "unknown view 'crop'; did you mean 'ecg.crop'?"),
        ("encoder", "ecg.nett", "unknown encoder 'ecg.nett'; did you mean 'ecg.net'?"),
        ("encoder", "audio_text.net", "pack 'audio_text' is not installed; pip install counterpoint-audio-text"),
        ("encoder", "egc.net", "pack 'egc' is not installed; did you mean 'ecg'?"),
        (
            "encoder",
            "ill.net",
            "skipped cp-ill 0.3 (pack 'ill') at /x/pack.py:3: its import fails: RuntimeError: boom; pip",
        ),
        ("encoder", "video.net", "pack 'video' is installed, but it is not among the chosen packs (ecg)"),
        ("objective", "knn", "'knn' is of another kind: evaluator"),
        ("view", "cp-c/twin.crop", "unknown view 'cp-c/twin.crop'"),
        ("encoders", "ecg.net", "unknown kind of component 'encoders'; did you mean 'encoder'?"),
    ],
)
def test_a_name_that_is_not_there_is_answered_with_the_way_on(found, kind, name, expected):
    assert expected in message(found.find, kind, name)


def test_the_missing_part_of_a_faulty_pack_is_blamed_on_its_fault():
    fault = Fault("counterpoint-ecg", "1.0", "ecg", None, "counterpoint_encoders raises: KeyError: 'x'", "mend it")
    partial = Registry(Discovery([pack("ecg", "counterpoint-ecg", view={"crop": "cp_parts.parts:crop"})], [fault]))
    assert "fault in counterpoint-ecg 1.0 (pack 'ecg'): counterpoint_encoders raises" in message(
        partial.find, "encoder", "ecg.net"
    )
    assert partial.find("view", "ecg.crop").build(seconds=1.0, rate=2.0) == (1.0, 2.0, "zero")


def test_parameters_keep_their_annotations():
    seconds, rate, pad = component("crop").parameters().values()
    assert (seconds.name, seconds.hint, seconds.default, seconds.required) == ("seconds", float, None, True)
    assert (rate.hint, rate.given) == (Annotated[float, Given("rate")], "rate")
    assert (pad.hint, pad.default, pad.required, pad.given) == (Literal["zero", "edge"], "zero", False, None)


def test_a_class_has_the_parameters_of_its_constructor_or_of_the_inherited_one():
    own, inherited = component("Net").parameters(), component("Child").parameters()
    assert own == inherited and list(own) == ["channels", "steps"]
    assert own["steps"].hint == list[Annotated[Any, Use("view")]] | None
    assert component("Plain").parameters() == {}
    assert list(component("Table").parameters()) == ["path", "limit"]
    assert component("decorated").parameters()["width"].hint is int


def test_a_module_without_a_constructor_has_no_parameters():
    provider = pack("torch", "torch")
    assert Component("encoder", "torch.identity", "torch.nn:Module", provider).parameters() == {}
    generator = Component("view", "x", "counterpoint.views.generator:ViewGenerator", provider)
    assert generator.parameters() == {}


@pytest.mark.parametrize(
    "attribute, expected",
    [
        ("kwargs", "**others hides its parameters"),
        ("args", "*widths has no names"),
        ("positional", "parameter 'width' is not keyword-only"),
        ("only_positional", "parameter 'width' is not keyword-only"),
        ("unannotated", "parameter 'width' has no annotation"),
        ("reserved", "must not be called 'use'"),
        ("absent", "an annotation names 'Thing'"),
    ],
)
def test_a_signature_that_a_recipe_cannot_use_is_refused(attribute, expected):
    text = message(component(attribute).parameters)
    assert expected in text and f"view 'ecg.{attribute}'" in text and "counterpoint-ecg 1.0" in text


def test_an_annotation_that_is_no_type_is_refused_by_name():
    assert "view 'ecg.broken_hint'" in message(component("broken_hint").parameters)


def test_a_bad_value_is_the_users_mistake_and_other_errors_are_not():
    assert (
        message(lambda: component("crop").build(seconds=-1, rate=1.0))
        == "view 'ecg.crop': seconds must be positive, got -1"
    )
    assert message(lambda: component("crop").build(seconds=1)) == "view 'ecg.crop': rate must be given"
    assert message(lambda: component("crop").build(secnds=1)).endswith(
        "unknown parameter 'secnds'; did you mean 'seconds'?"
    )
    with pytest.raises(DataError, match="is torn"):
        component("torn").build(path="x.npy")
    with pytest.raises(KeyError):
        component("bug").build()


def test_a_target_that_does_not_import_names_pack_distribution_and_remedy(monkeypatch):
    monkeypatch.setattr(targets.metadata, "requires", lambda name: ["tsai-xs>=1"])
    text = message(component("net", module="needy").load)
    assert "counterpoint-ecg 1.0 (pack 'ecg')" in text and "No module named 'tsai_x'" in text
    assert text.endswith("pip install tsai_x")
    monkeypatch.setattr(targets.metadata, "requires", lambda name: ["Tsai.X >= 1 ; extra == 'nets'"])
    assert message(component("net", module="needy").load).endswith("pip install 'counterpoint-ecg[nets]'")
    assert "SystemExit: 1" in message(component("net", module="leaves").load)
    dead = message(component("nett").load)
    assert "has no attribute 'nett'" in dead and "cp_parts.parts:nett" in dead
    gone = message(component("net", module="gone").load)
    assert "No module named 'cp_parts.gone'" in gone and "pip install" not in gone


def test_importing_a_component_neither_prints_nor_seeds(capsys):
    random.seed(5)
    state = random.getstate()
    component("part", module="loud").load()
    assert random.getstate() == state
    assert capsys.readouterr().out == ""


def test_what_the_first_imports_make_is_set_aside_and_garbage_is_collected_again(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", sys)
    kept = gc.get_freeze_count()
    with set_aside():
        assert gc.isenabled()
    assert gc.get_freeze_count() == kept
    monkeypatch.delitem(sys.modules, "torch")
    try:
        with pytest.raises(ImportError), set_aside():
            assert not gc.isenabled()
            raise ImportError
        assert gc.isenabled() and gc.get_freeze_count() > kept
    finally:
        gc.unfreeze()


def test_summaries_are_read_without_importing(python, parts):
    code = f"""
        import sys
        from counterpoint.packs.discovery import Pack
        from counterpoint.packs.registry import Component
        pack = Pack("d", "1", "p", "m")
        for name in {["crop", "Net", "Table", "decorated", "undocumented", "hidden", "nowhere", "text"]}:
            print(Component("view", name, "cp_parts.parts:" + name, pack).summary)
        print(Component("view", "x", "cp_parts.needy:x", pack).summary, Component("view", "x", "no.such:x", pack).summary)
        print([name for name in sys.modules if name.startswith("cp_parts") or name == "torch"])
        """
    lines = python(parts.parent, "-c", dedent(code)).stdout.splitlines()
    assert lines[:4] == ["A random window (Someone et al., 2020, section 3).", "A net.", "A dataset.", "Decorated."]
    assert lines[4:] == ["", "", "", "", " ", "[]"]


def test_the_whole_docstring_is_at_hand():
    assert component("crop").doc.endswith("seconds  length of the window")


@pytest.mark.parametrize(
    "text, alive",
    [
        ("def part(): ...", True),
        ("class part: ...", True),
        ("try:\n    from x import part\nexcept ImportError:\n    other = 1", True),
        ("import a as part", True),
        ("if True:\n    first, part = 1, 2", True),
        ("from x import *", True),
        ("def __getattr__(name): ...", True),
        ("globals()['pa' + 'rt'] = 1", True),
        ("def other():\n    part = 1", False),
        ("class Other:\n    def part(self): ...", False),
        ("", False),
        ("def part(:", False),
    ],
)
def test_a_dead_target_is_told_from_a_live_one_by_its_source(parts, text, alive):
    (parts / "probe.py").write_text(text)
    assert (targets.missing("cp_parts.probe:part") is None) == alive
    assert "cp_parts.probe" not in sys.modules


def test_compiled_and_builtin_modules_are_not_called_dead():
    assert targets.missing("math:sqrt") is None and targets.missing("json:loads") is None
    assert targets.missing("_lsprof:Profiler") is None


def test_recipes_are_named_by_pack_and_told_apart_when_names_clash(tmp_path):
    for folder, names in {"ecg": ["quickstart", "comet"], "a": ["one", "both"], "b": ["both"]}.items():
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / f"{name}.yaml").write_text("# A recipe.\n")
    packs = [
        pack("ecg", "counterpoint-ecg", tmp_path / "ecg"),
        pack("twin", "cp-a", tmp_path / "a"),
        pack("twin", "cp-b", tmp_path / "b"),
    ]
    found = Registry(Discovery(packs, [FAULT]))
    assert list(found.recipes()) == ["ecg/comet", "ecg/quickstart", "cp-a/twin/both", "cp-b/twin/both", "twin/one"]
    assert found.recipe("cp-b/twin/both") == tmp_path / "b" / "both.yaml"
    for name, expected in {
        "ecg/quickstrat": "did you mean 'ecg/quickstart'?",
        "video/cvrl": "pip install counterpoint-video",
        "ill/x": "boom",
    }.items():
        with pytest.raises(CounterpointError) as caught:
            found.recipe(name)
        assert expected in str(caught.value)


def test_the_installed_registry_is_made_once_for_each_choice_of_packs(monkeypatch):
    monkeypatch.setenv("COUNTERPOINT_NO_PACKS", "1")
    first = registry.installed()
    assert registry.installed() is first and not first.discovery.packs
    monkeypatch.delenv("COUNTERPOINT_NO_PACKS")
    assert registry.installed() is not first


def test_the_core_is_made_of_known_kinds_and_well_formed_targets():
    assert set(builtin.TABLES) <= set(KINDS)
    for table in builtin.TABLES.values():
        assert all(targets.SHAPE.fullmatch(target) and "." not in name for name, target in table.items())


@pytest.mark.parametrize("kind, name", [(kind, name) for kind, table in builtin.TABLES.items() for name in table])
def test_a_component_of_the_core_is_there_documented_and_usable(kind, name):
    found = registry.installed().find(kind, name)
    assert targets.missing(found.target) is None
    assert found.summary and found.doc.startswith(found.summary)
    assert all(parameter.name == key for key, parameter in found.parameters().items())
