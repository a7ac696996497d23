"""A pack as `counterpoint new-pack` writes it: it installs, keeps the contract and trains; and what mistakes in it are told."""

import importlib
import os
import re
import warnings
from pathlib import Path

import pytest
import torch

import counterpoint
from counterpoint import cli
from counterpoint.testing import Example, check_pack
from counterpoint.testing.kit import examine
from own_files import PACKS

CORE = str(Path(counterpoint.__file__).parents[1])
PLACES = {"pack": "pack.py", "data": "data.py", "encoders": "encoders.py", "views": "views.py", "objectives": "objectives.py", "recipe": "recipes/quickstart.yaml"}  # fmt: skip


def written(folder, name, monkeypatch):
    """A new pack on the path, as an editable install leaves it."""
    monkeypatch.chdir(folder)
    assert cli.main(["new-pack", name]) == 0
    info = folder / name / f"counterpoint_{name}-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: counterpoint-{name}\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(f"[counterpoint]\n{name} = counterpoint_{name}.pack\n")
    monkeypatch.syspath_prepend(str(folder / name))
    monkeypatch.setenv("COUNTERPOINT_PACKS", name)
    importlib.invalidate_caches()
    return folder / name / f"counterpoint_{name}"


@pytest.mark.slow
def test_as_written_its_own_tests_pass_and_it_learns(tmp_path, monkeypatch, python):
    written(tmp_path, "learns", monkeypatch)
    path = os.pathsep.join([str(tmp_path / "learns"), CORE])
    run = lambda *words: python(tmp_path, "-m", *words, cwd=tmp_path, PYTHONPATH=path)  # noqa: E731
    tested = run("pytest", "-q", "-p", "no:cacheprovider", "learns/tests")
    assert tested.returncode == 0 and "2 passed" in tested.stdout, tested.stdout
    done = run("counterpoint", "fit", "learns/quickstart")
    value = dict(re.findall(r"(trained encoder|untrained encoder) +(\d\.\d+)", done.stdout))
    assert float(value["trained encoder"]) > float(value["untrained encoder"]) + 0.2, done.stdout


@pytest.mark.parametrize(
    "name, expected",
    [
        ("toy", "is the name of an installed pack (counterpoint-toy 0.1.0)"),
        ("clip", "is the name of the core's objective 'clip'"),
        ("two-words", "expected a python identifier of lower-case letters"),
        ("class", "expected a python identifier"),
        ("../up", "expected a python identifier"),
        ("there", "there exists and is not overwritten"),
    ],
)
def test_a_name_that_cannot_be_is_refused_in_one_line(name, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    assert cli.main(["new-pack", name]) == 2
    out, err = capsys.readouterr()
    assert out == "" and expected in err and len(err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["there"] and not list((tmp_path / "there").iterdir())


def test_where_nothing_fits_together_each_part_is_tried_all_the_same(tmp_path, monkeypatch):
    """An encoder that cannot be built does not hide that the view is not sound."""
    package = written(tmp_path, "two_mistakes", monkeypatch)
    for name, right, wrong in (
        ("encoders", "nn.GroupNorm(4,", "nn.GroupNorm(5,"),
        ("views", "        length = data.shape[-1]", "        length = data.shape[-1]\n        data *= 2.0"),
    ):
        text = (package / f"{name}.py").read_text()
        assert right in text
        (package / f"{name}.py").write_text(text.replace(right, wrong))
    report = examine("two_mistakes")
    assert {finding.who for finding in report.findings} == {
        "recipe two_mistakes/quickstart",
        "view 'two_mistakes.jitter'",
    }
    assert report.untried.keys() == {"encoder 'two_mistakes.convolutions'"}, report


def test_the_commands_are_listed_and_a_pack_that_is_not_there_is_said(capsys):
    assert cli.main(["--help"]) == 0
    assert {"new-pack", "check-pack"} <= set(capsys.readouterr().out.split())
    assert cli.main(["check-pack", "nowhere"]) == 2
    assert capsys.readouterr().err.startswith("error: check-pack: no pack 'nowhere'; pack 'nowhere' is not installed")


# What is changed in which file, the line that must be named, and what must be said.
MISTAKES = {
    "shape": ("encoders", "self.layers(data).mean(-1)", "self.layers(data)[..., :2].flatten(1)", "class Convolutions", "h has another shape than it declares"),
    "draw": ("views", "draw: Draw) -> Tensor:\n", "draw: Draw) -> Tensor:\n        draw = Draw(draw.seed, draw.ids[:1])\n", "class Jitter", "all samples of a batch share one random draw"),
    "place": ("views", "        length = data.shape[-1]", "        length = data.shape[-1]\n        data *= 2.0", "class Jitter", "changes its input in place"),
    "generator": ("views", "draw.normal(*data.shape[1:])", "torch.randn(data.shape)", "class Jitter", "the same seed makes another view"),
    "heavy": ("pack", "from pathlib", "import torch\nfrom pathlib", "import torch", "imports torch"),
    "annotation": ("encoders", "width: int = 32", "width=32", "def __init__", "parameter 'width' has no annotation"),
    "default": ("encoders", "width: int = 32", "width: int = 'wide'", "def __init__", "the default of 'width' is not what its annotation says"),
    "dead": ("pack", "views:Jitter", "views:Jiter", "views:Jiter", "its target does not resolve"),
    "docstring": ("objectives", 'class Triplets(Objective):\n    """', 'class Triplets(Objective):\n    text = """', "class Triplets", "it has no docstring"),
    "nan": ("objectives", "return mean(terms, outputs), {}", "return sum(terms, outputs.zero()) / len(terms) if terms else outputs.zero() / 0, {}", "class Triplets", "a batch with no row at all"),
    "sample": ("data", '{"wave": self.waves[index]}', '{"wave": self.waves[index].numpy()}', "class Waves", "the inputs of sample 0 are not what the spec says"),
    "printing": ("pack", "COUNTERPOINT_API", "print('hello')\nCOUNTERPOINT_API", "print(", "prints when it is imported"),
    "random": ("pack", "COUNTERPOINT_API", "import random\nrandom.random()\nCOUNTERPOINT_API", "random.random()", "draws random numbers"),
    "version": ("pack", "COUNTERPOINT_API = 1", "COUNTERPOINT_API = 99", "COUNTERPOINT_API", "it is written for the newer API 99"),
    "unused": ("encoders", "        self.layers, self.width", "        self.spare = nn.Linear(2, 2)\n        self.layers, self.width", "class Convolutions", "2 of 14 parameters get no gradient"),
    "batch": ("encoders", ".mean(-1)  #", ".mean(-1) - data.mean()  #", "class Convolutions", "in evaluation, h of a row is another one alone"),
    "device": ("views", "        self.shift, self.scale", "        self.taps = torch.ones(3)\n        self.shift, self.scale", "class Jitter", "a tensor in it does not move"),
    "recipe": ("recipe", "max_epochs", "max_epoch", "trainer:", "did you mean 'max_epochs'?"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_with_its_line(mistake, tmp_path, monkeypatch):
    where, right, wrong, line, message = MISTAKES[mistake]
    package = written(tmp_path, f"has_{mistake}", monkeypatch)
    path = package / PLACES[where]
    text = path.read_text()
    assert right in text
    path.write_text(text.replace(right, wrong, 1))
    found = [str(finding) for finding in examine(f"has_{mistake}").findings]
    number = next(i for i, row in enumerate(path.read_text().splitlines(), 1) if line in row)
    place = f"{path.relative_to(tmp_path)}:{number}: "
    told = [text for text in found if message in text and text.startswith(place)]
    assert told, "\n".join(found)
    assert all(word in told[0] for word in ("expected", "got", "mend"))


def test_a_pack_without_mistakes_and_what_its_tests_hand_over(tmp_path, monkeypatch):
    """A component that no recipe uses is tried on an example, or named as not tried."""
    package = written(tmp_path, "sound", monkeypatch)
    (package / "more.py").write_text(
        '"""More."""\n\nfrom torch import Tensor, nn\n\n\nclass Words(nn.Module):\n    """Token ids (n, L) -> (n, 4)."""\n\n'
        "    def __init__(self, *, vocabulary: int = 9):\n        super().__init__()\n"
        "        self.table, self.width = nn.Embedding(vocabulary, 4), 4\n\n"
        "    def forward(self, data: Tensor) -> Tensor:\n        return self.table(data).mean(1)\n"
    )
    text = (package / "pack.py").read_text()
    row = '"convolutions": "counterpoint_sound.encoders:Convolutions"'
    (package / "pack.py").write_text(text.replace(row, f'{row}, "words": "counterpoint_sound.more:Words"'))
    with pytest.warns(UserWarning, match=r"encoder 'sound.words' was not tried: no recipe uses it"):
        alone = check_pack("sound")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        handed = check_pack("sound", {"encoder words": Example(data=torch.randint(0, 9, (4, 6)))})
    assert not handed.untried and handed.passed == alone.passed + 8


@pytest.mark.parametrize("pack", PACKS)
def test_the_packs_of_this_project_keep_the_contract(pack, tmp_path, monkeypatch):
    """Their quickstarts on real data, and the recipe for a user's own files on a few files."""
    monkeypatch.chdir(tmp_path)
    small = Example(overrides=tuple(PACKS[pack](tmp_path)))
    with warnings.catch_warnings(record=True) as untried:
        report = check_pack(pack, {"recipe from_manifest": small})
    assert f"recipe {pack}/from_manifest" not in report.untried, untried
