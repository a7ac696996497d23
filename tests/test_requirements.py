"""What installed packs require and what is there: a line for each library that does not suit, from metadata alone."""

import pytest
from packaging.specifiers import SpecifierSet

from counterpoint.packs.requirements import clashes
from counterpoint.packs.requirements import possible as has_version

PACK = "COUNTERPOINT_API = 1\n"


@pytest.fixture
def ask(tmp_path, install, monkeypatch):
    """Install libraries and distributions with requirements, and ask about those distributions."""

    def lines(libraries: dict[str, str], asks: dict[str, list[str]]) -> list[str]:
        for name, version in libraries.items():
            install(tmp_path, name, {}, version=version)
        for name, requires in asks.items():
            install(tmp_path, name, {}, requires=requires)
        monkeypatch.syspath_prepend(str(tmp_path))
        return clashes(asks)

    return lines


CASES = {
    "met": ({"xlib": "1.5"}, {"cp-a": ["xlib>=1.0,<2"]}, []),
    "too old": (
        {"xlib": "0.3.9"},
        {"cp-a": ["xlib<2,>=1.0"]},
        ["cp-a 1.0 needs xlib>=1.0,<2, installed is 0.3.9: pip install 'xlib>=1.0,<2'"],
    ),
    "absent": (
        {},
        {"cp-a": ["x-lib[fast]>=1.0"]},
        ["cp-a 1.0 needs x-lib>=1.0, which is not installed: pip install 'x-lib>=1.0'"],
    ),
    "absent, whatever its version": ({}, {"cp-a": ["xlib"]}, ["cp-a 1.0 needs xlib, which is not installed: pip install xlib"]),
    "an extra nobody asked for": ({}, {"cp-a": ["xlib>=1; extra == 'net'"]}, []),
    "another python": ({}, {"cp-a": ["xlib>=1; python_version < '3'", "ylib; sys_platform == 'plan9'"]}, []),
    "a marker that holds": (
        {"xlib": "0.9"},
        {"cp-a": ["xlib>=1; python_version > '3'"]},
        ["cp-a 1.0 needs xlib>=1, installed is 0.9: pip install 'xlib>=1'"],
    ),
    "an extra that is asked for": (
        {"zlib-x": "1.0"},
        {"cp-a": ["cp-b[net]>=1"], "cp-b": ["zlib-x>=2; extra == 'net'", "zlib-x>=3; extra == 'other'"]},
        ["cp-a 1.0 needs zlib-x>=2, installed is 1.0: pip install 'zlib-x>=2'"],
    ),
    "suits one of two, and another version suits both": (
        {"xlib": "1.1"},
        {"cp-a": ["xlib>=1.0"], "cp-b": ["xlib>=1.4,<2"]},
        ["cp-a 1.0 needs xlib>=1.0 and cp-b 1.0 needs xlib>=1.4,<2, installed is 1.1: pip install 'xlib>=1.0,>=1.4,<2'"],
    ),
    "no version suits both": (
        {"xlib": "1.1"},
        {"cp-a": ["xlib<2"], "cp-b": ["xlib>=2"], "cp-c": ["xlib>=1"]},
        [
            "cp-a 1.0 needs xlib<2 and cp-b 1.0 needs xlib>=2, installed is 1.1: no version suits both; "
            "pip install -U them, or give each an environment of its own"
        ],
    ),
    "no version suits both, and none is there": (
        {},
        {"cp-a": ["xlib==1.2.*"], "cp-b": ["xlib>=1.3"]},
        [
            "cp-a 1.0 needs xlib==1.2.* and cp-b 1.0 needs xlib>=1.3, which is not installed: no version suits both; "
            "pip install -U them, or give each an environment of its own"
        ],
    ),
    "of one mind": (
        {"xlib": "1.1"},
        {"cp-a": ["xlib>=2"], "cp-b": ["xlib>=2"]},
        ["cp-a 1.0, cp-b 1.0 need xlib>=2, installed is 1.1: pip install 'xlib>=2'"],
    ),
    "a pre-release and a local version": ({"xlib": "2.0rc1", "ylib": "2.1+cpu"}, {"cp-a": ["xlib>=1.9", "ylib>=2.1,<3"]}, []),
    "a core that is too old": (
        {"corelib": "0.1.0"},
        {"cp-a": ["corelib>=0.2"]},
        ["cp-a 1.0 needs corelib>=0.2, installed is 0.1.0: pip install 'corelib>=0.2'"],
    ),
    "what cannot be read": ({"xlib": "not a version"}, {"cp-a": ["xlib>=1", "???"]}, ["cp-a 1.0: its requirement '???' cannot be read"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_line_for_each_library_that_does_not_suit(case, ask):
    libraries, asks, lines = CASES[case]
    assert ask(libraries, asks) == lines


@pytest.mark.parametrize(
    "bounds, possible",
    [
        (">=1,<2", True),
        (">=2,<2", False),
        (">1,<2", True),
        (">=1,<2,!=1", True),
        ("<1", True),
        ("==1.2,>=1.3", False),
        ("~=1.4,<1.4", False),
        ("~=1.4,>=1.9", True),
        ("~=1.4.2,>=1.5", False),
        ("==2.*,<2.1,>=2.0.5", True),
        (">=1,!=1.*,<2", False),
        (">=1,!=1.*", True),
        ("", True),
    ],
)
def test_whether_any_version_lies_within_bounds(bounds, possible):
    assert has_version(SpecifierSet(bounds)) == possible


def test_packs_prints_them_and_goes_on(tmp_path, install, python):
    """The pack of the clash, a sound one, and the core, whose own requirements are met here."""
    install(
        tmp_path,
        "cp-asks",
        {"cp_asks.py": PACK},
        "[counterpoint]\nasks = cp_asks\n",
        requires=["pluggy<0.1", "counterpoint>=9"],
    )
    install(tmp_path, "cp-sound", {"cp_sound.py": PACK}, "[counterpoint]\nsound = cp_sound\n", requires=["pluggy"])
    install(
        tmp_path,
        "cp-torn",
        {"cp_torn.py": "import no_such_x\n"},
        "[counterpoint]\ntorn = cp_torn\n",
        requires=["no-such-x>=3"],
    )
    done = python(tmp_path, "-m", "counterpoint", "packs", COUNTERPOINT_PACKS="asks,sound,torn")
    assert done.returncode == 0 and "sound" in done.stdout, done.stderr
    told = done.stdout.partition("not met:\n")[2].partition("\n\n")[0].splitlines()
    assert "3 requirements not met:" in done.stdout
    assert told[0].startswith("  cp-asks 1.0 needs counterpoint>=9, installed is ")
    assert told[1] == "  cp-torn 1.0 needs no-such-x>=3, which is not installed: pip install 'no-such-x>=3'"
    assert (
        told[2].startswith("  counterpoint ")
        and "cp-asks 1.0 needs pluggy<0.1" in told[2]
        and "no version suits" in told[2]
    )


def test_a_distribution_that_is_not_there_asks_for_nothing():
    assert clashes(["no-such-distribution"]) == []


def test_asking_imports_nothing_heavy(tmp_path, python):
    code = "import sys; from counterpoint.cli import main; main(['packs']); sys.exit(bool({'torch', 'numpy', 'pydantic'} & {*sys.modules}))"
    assert python(tmp_path, "-c", code).returncode == 0


def test_where_all_is_met_nothing_is_said(tmp_path, install, python):
    install(tmp_path, "cp-sound", {"cp_sound.py": PACK}, "[counterpoint]\nsound = cp_sound\n", requires=["pluggy"])
    done = python(tmp_path, "-m", "counterpoint", "packs", COUNTERPOINT_PACKS="sound")
    assert "not met" not in done.stdout and "fault" not in done.stdout
