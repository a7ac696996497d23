"""Faulty packs, installed as distributions: each is named with its remedy, and everything else still works."""

import json
import zipfile
from importlib.util import find_spec
from textwrap import dedent

import pytest

from counterpoint import hookspecs, markers
from counterpoint.packs import contract

HEAD = "from counterpoint.hookspecs import hookimpl\nCOUNTERPOINT_API = 1\n"
ENCODERS = "@hookimpl\ndef counterpoint_encoders():\n    return {'net': '%s.encoders:net'}\n"
VIEWS = "@hookimpl\ndef counterpoint_view_generators():\n    return {'crop': '%s.views:crop'}\n"


def sound(package: str) -> str:
    return HEAD + ENCODERS % package + VIEWS % package


# name of the pack -> (the pack's module, part of the problem, part of the remedy, line at fault, encoders are lost)
FAULTS = {
    "raises": (
        f"{HEAD}raise RuntimeError('no GPU here\\nand more')\n",
        "RuntimeError: no GPU here",
        "pip uninstall cp-raises",
        3,
        True,
    ),
    "exits": (f"{HEAD}import sys\nsys.exit(3)\n", "its import fails: SystemExit: 3", "pip uninstall cp-exits", 4, True),
    "syntax": (f"{HEAD}def f(:\n", "SyntaxError: invalid syntax", "mend it", 3, True),
    "mute": (
        f"{HEAD}class E(BaseException):\n    def __str__(self): raise ValueError\nraise E\n",
        "its import fails: E",
        "mend it",
        5,
        True,
    ),
    "needs_extra": (
        f"{HEAD}import tsai_x\n",
        "No module named 'tsai_x'",
        "pip install 'cp-needs-extra[nets]'",
        3,
        True,
    ),
    "needs_pinned": (f"{HEAD}import sklearn_x.cluster\n", "No module named", "pip install 'sklearn_x>=2'", 3, True),
    "no_api": (
        sound("cp_no_api").replace("COUNTERPOINT_API = 1", ""),
        "COUNTERPOINT_API is missing",
        "add COUNTERPOINT_API = 1",
        0,
        True,
    ),
    "old_api": (sound("cp_old_api").replace("API = 1", "API = 0"), "older API 0", "pip install -U cp-old-api", 2, True),
    "new_api": (
        sound("cp_new_api").replace("API = 1", "API = 2"),
        "newer API 2",
        "pip install -U counterpoint",
        2,
        True,
    ),
    "text_api": (
        sound("cp_text_api").replace("API = 1", "API = '1'"),
        "must be an int, got '1'",
        "write COUNTERPOINT_API = 1",
        2,
        True,
    ),
    "misspelt": (
        sound("cp_misspelt").replace("counterpoint_encoders", "counterpoint_encoder"),
        "counterpoint_encoder is not a hook; did you mean 'counterpoint_encoders'?",
        "rename",
        3,
        True,
    ),
    "unmarked": (
        sound("cp_unmarked").replace("@hookimpl", "# hook", 1),
        "not marked as a hook",
        "@hookimpl above it",
        4,
        True,
    ),
    "no_function": (
        f"{HEAD}counterpoint_encoders = {{}}\n{VIEWS % 'cp_no_function'}",
        "counterpoint_encoders is not a function: dict",
        "write a function",
        3,
        True,
    ),
    "argument": (
        sound("cp_argument").replace("encoders()", "encoders(config)"),
        "takes no arguments; this one has: config",
        "remove",
        3,
        True,
    ),
    "wrapper": (
        sound("cp_wrapper").replace("@hookimpl", "@hookimpl(wrapper=True)", 1).replace("return", "yield", 1),
        "is a hook wrapper",
        "plain @hookimpl",
        3,
        True,
    ),
    "hook_raises": (
        sound("cp_hook_raises").replace("return {'net'", "return {}['gone'] or {'net'"),
        "counterpoint_encoders raises: KeyError: 'gone'",
        "mend it",
        5,
        True,
    ),
    "hook_exits": (
        sound("cp_hook_exits").replace("return", "raise SystemExit(1) or", 1),
        "raises: SystemExit: 1",
        "mend",
        5,
        True,
    ),
    "wrong_type": (
        sound("cp_wrong_type").replace("return {'net': 'cp_wrong_type.encoders:net'}", "return ['net']"),
        "must return a dict of name -> 'module:attribute', got list",
        "return such a dict",
        3,
        True,
    ),
    "wrong_key": (sound("cp_wrong_key").replace("{'net'", "{7: 'a:b', 'net'"), "got 7", "correct this entry", 3, False),
    "wrong_target": (
        sound("cp_wrong_target").replace("{'net'", "{'dot': 'a.b.c', 'net'"),
        "'dot' must be a str 'module:attribute', got 'a.b.c'",
        "correct this entry",
        3,
        False,
    ),
    "recursion": (f"{HEAD}def f(): f()\nf()\n", "RecursionError: maximum recursion depth", "mend it", 3, True),
    "coding": (f"# coding: ascii\n{HEAD}x = 'é'\n", "its import fails: SyntaxError", "mend it", None, True),
    "no_coding": (f"# coding: nowhere\n{HEAD}", "SyntaxError: ", "mend it", None, True),
    "escapes": (
        f"{HEAD}raise ValueError('\\x1b[31mred\\x07 \\u202ealert')\n",
        "ValueError: [31mred alert",
        "mend it",
        3,
        True,
    ),
    "huge": (
        sound("cp_huge").replace("return {'net'", "return {f'n{i}': 'a:b' for i in range(20_000)} or {'net'"),
        "counterpoint_encoders returned 20,000 entries, at most 10,000 are taken",
        "name fewer",
        3,
        True,
    ),
    "odd_names": (
        sound("cp_odd_names").replace("{'net'", "{'\\x1b[2Jx': 'a:b', 'net'"),
        "got '\\x1b[2Jx'",
        "correct this entry",
        3,
        False,
    ),
    "deep": (
        sound("cp_deep").replace("return", "return counterpoint_encoders() or", 1),
        "counterpoint_encoders raises: RecursionError",
        "mend it",
        5,
        True,
    ),
    "no_folder": (
        f"{sound('cp_no_folder')}@hookimpl\ndef counterpoint_recipes():\n    return '/nowhere/recipes'\n",
        "'/nowhere/recipes' is not a folder",
        "return the folder",
        9,
        False,
    ),
}
LOST_PACKS = {
    "recursion",
    "coding",
    "no_coding",
    "escapes",
    "raises",
    "exits",
    "syntax",
    "mute",
    "needs_extra",
    "needs_pinned",
    "no_api",
    "old_api",
    "new_api",
    "text_api",
}
REQUIRES = {"needs_extra": ["tsai-x>=1; extra == 'nets'"], "needs_pinned": ["sklearn_x>=2 ; python_version > '3'"]}
ENCODER_MODULE = "def net(*, width: int = 8):\n    '''A net.'''\n"

DISCOVER = """
import json, random, sys
import numpy
random.seed(1); numpy.random.seed(1)
before = random.getstate(), numpy.random.get_state()[1].tolist()
from counterpoint.packs import discovery
found = discovery.discover()
after = random.getstate(), numpy.random.get_state()[1].tolist()
json.dump({
    "packs": {f"{p.distribution}:{p.entry}": {"version": p.version, "tables": p.tables} for p in found.packs},
    "faults": [vars(fault) for fault in found.faults],
    "dead": [vars(fault) for fault in discovery.dead_targets(found)],
    "left_out": found.left_out,
    "rng_kept": before == after,
    "torch": "torch" in sys.modules,
    "loud": "cp_prints.pack" in sys.modules,
}, sys.stdout)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory, install):
    """Every faulty pack beside a sound one."""
    site = tmp_path_factory.mktemp("site")

    def pack(name: str, module: str, entry: str | None = None, **files: str) -> None:
        package, entry = f"cp_{name}", entry or name
        files = {f"{package}/{path}.py": text for path, text in {"__init__": "", "pack": module, **files}.items()}
        points = f"[counterpoint]\n{entry} = {package}.pack\n"
        install(site, f"cp-{name.replace('_', '-')}", files, points, requires=REQUIRES.get(name, ()))

    for name, (module, *_) in FAULTS.items():
        pack(name, module, encoders=ENCODER_MODULE, views="def crop(): pass\n")
    for name in ("sound", "twin_a", "twin_b", "prints", "seeds"):
        extra = {"prints": "print('hello')\n", "seeds": "import random, numpy\nrandom.seed(0); numpy.random.seed(0)\n"}
        text = sound(f"cp_{name}") + extra.get(name, "")
        pack(name, text, "twin" if "twin" in name else name, encoders=ENCODER_MODULE, views="def crop(): pass\n")
    dead = "{'gone': 'cp_dead.nowhere:net', 'wrong': 'cp_dead.encoders:nett', 'net': 'cp_dead.encoders:net'}"
    pack(
        "dead",
        HEAD + ENCODERS.replace("{'net': '%s.encoders:net'}", dead),
        encoders=f"import no_such_thing\n{ENCODER_MODULE}",
    )
    install(site, "cp-absent", {}, "[counterpoint]\nabsent = cp_absent.pack\n")
    install(site, "cp-malformed", {}, "[counterpoint]\nmalformed = ???\n")
    return site


@pytest.fixture(scope="module")
def found(site, python):
    process = python(site, "-c", DISCOVER)
    assert process.returncode == 0, process.stderr
    return {**json.loads(process.stdout), "stderr": process.stderr}


def faults_of(found, distribution: str) -> list[dict]:
    return [fault for fault in found["faults"] if fault["distribution"] == distribution]


@pytest.mark.fault("R12")
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_with_place_and_remedy(found, site, name):
    _, problem, remedy, line, _ = FAULTS[name]
    (fault,) = faults_of(found, f"cp-{name.replace('_', '-')}")
    assert (fault["version"], fault["entry"]) == ("1.0", name)
    assert problem in fault["problem"]
    assert remedy in fault["remedy"]
    file = site / f"cp_{name}" / "pack.py"
    assert line is None or fault["where"] == (f"{file}:{line}" if line else str(file))
    assert fault["problem"].isprintable()


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_costs_no_more_than_what_it_breaks(found, name):
    pack = found["packs"].get(f"cp-{name.replace('_', '-')}:{name}")
    if name in LOST_PACKS:
        assert pack is None
    else:
        assert pack["tables"]["view"] == {"crop": f"cp_{name}.views:crop"}
        encoders_lost = FAULTS[name][-1]
        assert pack["tables"].get("encoder") == (None if encoders_lost else {"net": f"cp_{name}.encoders:net"})


def test_sound_packs_are_whole_beside_all_the_others(found):
    tables = {"encoder": {"net": "cp_sound.encoders:net"}, "view": {"crop": "cp_sound.views:crop"}}
    assert found["packs"]["cp-sound:sound"] == {"version": "1.0", "tables": tables}
    assert not faults_of(found, "cp-sound")
    assert not found["torch"]


@pytest.mark.fault("R12")
def test_two_distributions_with_one_entry_point_name_are_both_kept(found):
    assert {"cp-twin-a:twin", "cp-twin-b:twin"} <= set(found["packs"])


@pytest.mark.fault("R12")
def test_prints_at_import_go_to_stderr(found):
    assert found["loud"] and "hello" in found["stderr"]  # stdout held nothing but the JSON


@pytest.mark.fault("R12")
def test_a_pack_that_seeds_leaves_the_random_state_as_it_was(found):
    assert "cp-seeds:seeds" in found["packs"]
    assert found["rng_kept"]


@pytest.mark.fault("R12")
def test_a_module_that_does_not_exist_is_named(found):
    (fault,) = faults_of(found, "cp-absent")
    assert "No module named 'cp_absent'" in fault["problem"] and "cp-absent" in fault["remedy"]
    (fault,) = faults_of(found, "cp-malformed")
    assert fault["entry"] == "malformed" and "its import fails" in fault["problem"]


@pytest.mark.fault("R12")
def test_dead_targets_are_found_without_importing(found):
    problems = sorted(f["problem"] for f in found["dead"] if f["distribution"] == "cp-dead")
    assert problems == [
        "encoder 'gone' = 'cp_dead.nowhere:net': there is no module 'cp_dead.nowhere'",
        "encoder 'wrong' = 'cp_dead.encoders:nett': module 'cp_dead.encoders' has no 'nett'",
    ]


def test_a_choice_of_packs_imports_no_other(site, python):
    only = json.loads(python(site, "-c", DISCOVER, COUNTERPOINT_PACKS="sound,cp_twin.b,soun").stdout)
    assert sorted(only["packs"]) == ["cp-sound:sound", "cp-twin-b:twin"]
    assert [(fault["entry"], fault["remedy"]) for fault in only["faults"]] == [
        ("soun", "correct the name; did you mean 'sound'?")
    ]
    assert not only["loud"] and "it is not among the chosen packs" in only["left_out"]["prints"]


def test_no_packs_imports_none(site, python):
    none = json.loads(python(site, "-c", DISCOVER, COUNTERPOINT_NO_PACKS="1").stdout)
    assert not none["packs"] and not none["faults"] and not none["loud"]
    assert "switched off" in none["left_out"]["sound"]


def test_only_ctrl_c_passes(tmp_path, install, python):
    install(tmp_path, "cp-slow", {"cp_slow.py": "raise KeyboardInterrupt\n"}, "[counterpoint]\nslow = cp_slow\n")
    assert python(tmp_path, "-m", "counterpoint", "packs").returncode == 130


@pytest.mark.fault("R12")
def test_a_damaged_entry_points_file_hides_no_other_pack(tmp_path, install, python):
    install(tmp_path, "cp-good", {"cp_good.py": sound("cp_good")}, "[counterpoint]\ngood = cp_good\n")
    install(tmp_path, "cp-torn", {}, "[counterpoint]\ntorn")
    found = json.loads(python(tmp_path, "-c", DISCOVER).stdout)
    assert "cp-good:good" in found["packs"]
    assert "entry points cannot be read" in faults_of(found, "cp-torn")[0]["problem"]


@pytest.mark.fault("R12")
def test_one_distribution_names_a_pack_once(tmp_path, install, python):
    points = "[counterpoint]\ngood = cp_good\ngood = cp_other\n"
    install(tmp_path, "cp-good", {"cp_good.py": sound("cp_good"), "cp_other.py": sound("cp_other")}, points)
    found = json.loads(python(tmp_path, "-c", DISCOVER).stdout)
    assert found["packs"]["cp-good:good"]["tables"]["encoder"] == {"net": "cp_good.encoders:net"}
    assert "declared twice" in faults_of(found, "cp-good")[0]["problem"]


@pytest.mark.skipif(find_spec("pip") is None, reason="pip is not installed")
def test_a_pack_installed_by_pip_is_found_with_its_recipes(tmp_path, python):
    wheel, site = tmp_path / "cp_wheel-2.1-py3-none-any.whl", tmp_path / "site"
    recipes = "@hookimpl\ndef counterpoint_recipes():\n    from pathlib import Path\n    return str(Path(__file__).parent / 'recipes')\n"
    files = {
        "cp_wheel/__init__.py": "",
        "cp_wheel/pack.py": sound("cp_wheel") + recipes,
        "cp_wheel/recipes/quickstart.yaml": "# First steps.\ndata: {}\n",
        "cp_wheel-2.1.dist-info/METADATA": "Metadata-Version: 2.1\nName: cp-wheel\nVersion: 2.1\n",
        "cp_wheel-2.1.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "cp_wheel-2.1.dist-info/entry_points.txt": "[counterpoint]\nwheel = cp_wheel.pack\n",
    }
    files["cp_wheel-2.1.dist-info/RECORD"] = "".join(f"{name},,\n" for name in files)
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    arguments = ["install", "--no-index", "--no-deps", "--disable-pip-version-check", "--target", str(site), str(wheel)]
    assert python(tmp_path, "-m", "pip", *arguments).returncode == 0
    code = "from counterpoint.packs.registry import installed as i; print(i().recipe('wheel/quickstart'), i().find('encoder', 'wheel.net').provider)"
    printed = python(site, "-c", code).stdout.split()
    assert printed == [str(site / "cp_wheel/recipes/quickstart.yaml"), "cp-wheel", "2.1"]


def test_every_hook_of_the_contract_is_read():
    specified = {name for name in vars(hookspecs) if name.startswith("counterpoint_")}
    assert set(contract.HOOKS) == specified
    assert set(contract.KINDS.values()) <= set(markers.KINDS)


def test_torch_keeps_its_random_state():
    import torch

    from counterpoint.packs.isolation import isolated

    state = torch.get_rng_state()
    with isolated():
        torch.manual_seed(7)
    assert torch.equal(state, torch.get_rng_state())


def test_a_documented_minimal_pack_has_no_fault(tmp_path, install, python):
    module = '''
        """The pack of the contract's own documentation."""
        from counterpoint.hookspecs import hookimpl
        import counterpoint.hookspecs as counterpoint_hookspecs  # an import is no misspelt hook

        COUNTERPOINT_API = 1


        @hookimpl(specname="counterpoint_encoders")
        def encoders():
            return {"net": "cp_min.encoders:net"}
        '''
    install(
        tmp_path,
        "cp-min",
        {"cp_min/__init__.py": "", "cp_min/pack.py": dedent(module)},
        "[counterpoint]\nmin = cp_min.pack\n",
    )
    found = json.loads(python(tmp_path, "-c", DISCOVER).stdout)
    assert not faults_of(found, "cp-min")
    assert found["packs"]["cp-min:min"]["tables"] == {"encoder": {"net": "cp_min.encoders:net"}}


MEDDLES = """
import locale, os, signal, sys, warnings
os.chdir("/")
sys.path[:] = ["/nowhere"]
sys.setrecursionlimit(77777)
warnings.simplefilter("error")
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for name in ("C.UTF-8", "C", "POSIX"):
    try:
        locale.setlocale(locale.LC_ALL, name)
    except locale.Error:
        pass
import torch
torch.set_default_dtype(torch.float64)
torch.set_num_threads(3)
torch.set_grad_enabled(False)
"""
LOOKED = """
import json, locale, os, signal, sys, warnings
import torch
state = lambda: [os.getcwd(), sys.path[:], sys.getrecursionlimit(), len(warnings.filters), locale.setlocale(locale.LC_ALL),
                 str(signal.getsignal(signal.SIGINT)), str(signal.getsignal(signal.SIGTERM)),
                 str(torch.get_default_dtype()), torch.get_num_threads(), torch.is_grad_enabled()]
torch.set_num_threads(2)
before = state()
from counterpoint.packs import discovery
found = discovery.discover(only=["meddles"])
after = state()
json.dump({"same": [a == b for a, b in zip(before, after)], "packs": len(found.packs)}, sys.stdout)
"""


@pytest.mark.fault("R12")
def test_what_belongs_to_the_process_is_put_back(tmp_path, install, python, record_property):
    """Working directory, module path, warnings, signals, locale, and torch's types, threads and gradients."""
    install(
        tmp_path,
        "cp-meddles",
        {"cp_meddles.py": MEDDLES + sound("cp_meddles")},
        "[counterpoint]\nmeddles = cp_meddles\n",
    )
    done = python(tmp_path, "-c", LOOKED)
    told = json.loads(done.stdout)
    assert told["packs"] == 1 and all(told["same"]), (told, done.stderr)
    record_property("survived", len(told["same"]))


@pytest.mark.fault("R12")
def test_an_entry_point_of_any_name_is_shown_in_a_line(tmp_path, install, python, record_property):
    names = ["a b", "größe", "-rf", "x" * 300, "a.b", "'; rm", "{0}", "%s"]
    points = "[counterpoint]\n" + "".join(f"{name} = cp_odd_{i}\n" for i, name in enumerate(names))
    install(tmp_path, "cp-odd", {f"cp_odd_{i}.py": sound(f"cp_odd_{i}") for i in range(len(names) - 1)}, points)
    done = python(tmp_path, "-m", "counterpoint", "packs")
    assert done.returncode in (0, 2) and "Traceback" not in done.stderr, done.stderr
    listed = python(tmp_path, "-m", "counterpoint", "list", "encoder")
    assert listed.returncode == 0 and "Traceback" not in listed.stderr, listed.stderr
    record_property("survived", len(names))
