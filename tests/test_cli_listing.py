"""The commands that list and show: their output, their exit codes, and that they wait for nothing heavy."""

import json
import os
import re
import subprocess
import sys

import pytest

from counterpoint import cli
from counterpoint.cli.show import spell
from counterpoint.cli.table import columns, shorten
from counterpoint.packs import contract

PACK = """
from pathlib import Path

from counterpoint.hookspecs import hookimpl

COUNTERPOINT_API = 1


@hookimpl
def counterpoint_encoders():
    return {f"net_{i}": f"%(package)s.parts:net_{i}" for i in range(8)}


@hookimpl
def counterpoint_view_generators():
    return {f"view_{i}": f"%(package)s.parts:view_{i}" for i in range(8)} | {"both": "%(package)s.parts:net_0"}


@hookimpl
def counterpoint_evaluators():
    return {"both": "%(package)s.parts:net_0"}


@hookimpl
def counterpoint_recipes():
    return str(Path(__file__).parent / "recipes")
"""

PART = '''
def {name}(*, channels: Channels, width: int = 32, pool: Literal["mean", "max"] = "mean", steps: list[Step] | None = None):
    """The {name} of the tests (Someone et al., 2020, section 3).

    width  of the representation
    """
    return torch.nn.Linear(channels, width)
'''

PARTS = "import torch\nfrom typing import Literal\nfrom counterpoint.markers import Channels, Step\n\n" + "\n".join(
    PART.format(name=f"{what}_{i}") for what in ("net", "view") for i in range(8)
)
HEAVY = ("torch", "lightning", "sklearn", "pandas", "numpy")


@pytest.fixture(scope="module")
def site(tmp_path_factory, install):
    """Seven sound packs and a broken one."""
    site = tmp_path_factory.mktemp("site")
    for name in "abcdefg":
        package = f"cp_{name}"
        files = {
            f"{package}/__init__.py": "",
            f"{package}/pack.py": PACK % {"package": package},
            f"{package}/parts.py": PARTS,
            f"{package}/recipes/quickstart.yaml": f"\n# First steps with {name}.\n# More.\ndata: {{}}\n",
        }
        install(site, f"cp-{name}", files, f"[counterpoint]\n{name} = {package}.pack\n")
    install(site, "cp-ill", {"cp_ill.py": "raise RuntimeError('boom')\n"}, "[counterpoint]\nill = cp_ill\n")
    return site


@pytest.fixture
def run(site, python, tmp_path):
    """Run a command in an empty folder: exit code, stdout, stderr."""

    def command(*args: str, **environment: str) -> tuple[int, str, str]:
        process = python(site, "-m", "counterpoint", *args, cwd=tmp_path, **environment)
        assert "Traceback" not in process.stderr
        return process.returncode, process.stdout, process.stderr

    return command


def imported_by(python, site, *args: str) -> tuple[set[str], float]:
    """The modules that a command imports and its seconds of CPU, the interpreter's start included."""
    code = (
        "import sys, io, contextlib, json, time\nfrom counterpoint.cli import main\nout = io.StringIO()\n"
        f"with contextlib.redirect_stdout(out): code = main({list(args)!r})\n"
        "assert code == 0 and out.getvalue()\njson.dump([list(sys.modules), time.process_time()], sys.stdout)"
    )
    process = python(site, "-c", code)
    modules, seconds = json.loads(process.stdout)
    return set(modules), seconds


def test_listing_everything_imports_no_component(site, python):
    modules, seconds = imported_by(python, site, "list")
    assert "cp_a.pack" in modules
    assert not modules & {*HEAVY, "cp_a.parts", "rich", "pydantic"}
    assert seconds < 1.5  # 0.2 s on an idle machine; a single heavy import costs more than this bound


def test_help_and_version_import_neither_packs_nor_pluggy(site, python):
    for option in ("--help", "--version"):
        modules, seconds = imported_by(python, site, option)
        assert not modules & {*HEAVY, "pluggy", "rich", "counterpoint.packs.registry", "cp_a.pack"}
        assert seconds < 0.75


def test_list_gives_name_summary_and_provider(run):
    code, out, err = run("list", "encoder")
    assert run("list", "encoders")[:2] == (code, out)
    lines = out.splitlines()
    assert code == 0
    lines = [fields for line in lines if (fields := re.split(r" {2,}", line))[-1].startswith("cp-")]
    assert lines[0] == ["a.net_0", "The net_0 of the tests (Someone et al., 2020, section 3).", "cp-a 1.0"]
    assert [name for name, *_ in lines] == [f"{name}.net_{i}" for name in "abcdefg" for i in range(8)]
    assert err.splitlines()[0] == "skipped cp-ill 1.0: its import fails: RuntimeError: boom"


def test_list_without_a_kind_has_a_heading_for_each(run):
    headings = [line for line in run("list")[1].splitlines() if line and not line.startswith(" ")]
    assert {"encoder", "view", "objective", "evaluator"} <= set(headings)


def test_show_gives_each_parameter_a_line_and_the_whole_docstring(run):
    code, out, _ = run("show", "c.net_3")
    lines = [line.split(None, 1) for line in out.splitlines()]
    assert code == 0 and lines[0] == ["encoder", "c.net_3  (cp-c 1.0, cp_c.parts:net_3)"]
    assert [" ".join(line).split() for line in lines[2:6]] == [
        ["channels", "int", "from", "the", "data"],
        ["width", "int", "32"],
        ["pool", "'mean'", "|", "'max'", "'mean'"],
        ["steps", "list[view]", "|", "None", "None"],
    ]
    assert "Someone et al., 2020" in out and out.endswith("width  of the representation\n")


def test_show_asks_for_the_kind_when_two_have_the_name(run):
    code, out, err = run("show", "a.both")
    assert (code, out) == (2, "") and "--kind view or --kind evaluator" in err
    assert run("show", "a.both", "--kind", "view")[1].startswith("view a.both")


@pytest.mark.parametrize(
    "args, expected",
    [
        (["show", "a.net_33"], "did you mean 'a.net_3"),
        (["show", "ill.net"], "skipped cp-ill 1.0"),
        (["show", "ultrasound.net"], "pip install counterpoint-ultrasound"),
        (["show", "a.net_0", "--kind", "vieww"], "did you mean 'view'?"),
        (["list", "encodres"], "did you mean 'encoder'?"),
        (["lsit"], "unknown command 'lsit'; did you mean 'list'?"),
        (["cp", "a/quickstrat"], "did you mean 'a/quickstart'?"),
        (["cp", "a/quickstart", "no/such/folder/x.yaml"], "No such file or directory"),
        (["list", "--nope"], "unrecognized arguments: --nope"),
    ],
)
def test_a_mistake_is_one_short_message_and_exit_code_2(run, args, expected):
    code, out, err = run(*args)
    assert (code, out) == (2, "")
    assert expected in err.splitlines()[-1] and len(err.splitlines()) <= 5


def test_packs_counts_by_kind_and_tells_every_fault(run, site):
    code, out, _ = run("packs")
    rows = [line.split() for line in out.splitlines()]
    assert code == 0
    assert rows[0][3:] == [*(f"{kind}s" for kind in contract.KINDS.values()), "recipes"]
    assert ["a", "cp-a", "1.0", "0", "0", "8", "9", "0", "1", "0", "1"] in rows
    assert "cp-ill 1.0 (pack 'ill'): its import fails: RuntimeError: boom" in out
    assert f"at {site / 'cp_ill.py'}:1; pip install -U cp-ill" in out


def test_no_packs_works_before_and_after_the_command(run):
    for args in (["--no-packs", "list"], ["list", "--no-packs"]):
        code, out, err = run(*args)
        assert code == 0 and "info_nce" in out and "a.net_0" not in out and not err
    assert "left out: a: packs are switched off (--no-packs)" in run("packs", "--no-packs")[1]
    assert "packs are switched off" in run("show", "a.net_0", "--no-packs")[2]


def test_recipes_are_listed_with_their_first_comment_and_copied_once(run, tmp_path):
    listed = dict(re.split(r" {2,}", line, maxsplit=1) for line in run("recipes")[1].splitlines())
    assert listed["a/quickstart"] == "First steps with a."
    assert run("cp", "a/quickstart")[:2] == (0, "quickstart.yaml\n")
    (tmp_path / "quickstart.yaml").write_text("mine")
    code, out, err = run("cp", "b/quickstart")
    assert (code, out) == (2, "") and "quickstart.yaml exists and is not overwritten" in err
    assert (tmp_path / "quickstart.yaml").read_text() == "mine"
    assert run("cp", "b/quickstart", "mine.yaml")[0] == 0
    assert "First steps with b." in (tmp_path / "mine.yaml").read_text()


def test_a_reader_that_leaves_is_no_error(site):
    command = [sys.executable, "-m", "counterpoint", "list"]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True)
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 141
    assert "BrokenPipe" not in err and "Traceback" not in err


def test_main_returns_the_exit_code_and_leaves_the_environment(monkeypatch, capsys):
    monkeypatch.delenv("COUNTERPOINT_NO_PACKS", raising=False)
    assert cli.main(["--no-packs", "list", "objective"]) == 0
    assert "COUNTERPOINT_NO_PACKS" not in os.environ
    assert cli.main(["list", "--help"]) == 0
    assert cli.main(["--nope"]) == 2
    assert "info_nce" in capsys.readouterr().out


def test_a_table_is_as_wide_as_its_cells():
    lines = columns([("a", 1, "x"), ("long", 100, "")]).splitlines()
    assert lines == ["a     1    x", "long  100"]
    assert columns([]) == ""
    assert shorten("one two three", 10) == "one..." and len(shorten("word " * 40)) <= 72


def test_types_are_spelled_as_a_person_would_write_them():
    from typing import Any

    from counterpoint.markers import Rate, Step

    spelled = {spell(hint) for hint in (Rate, Step, dict[str, list[Step]], tuple[int, ...], int | None, Any)}
    assert spelled == {"float", "view", "dict[str, list[view]]", "tuple[int, ...]", "int | None", "Any"}
