"""The pack as the core meets it: its tables, its recipes, and what a wheel of it holds."""

from pathlib import Path

import pytest

from counterpoint.testing.pack import check_component, check_distribution, check_light, components, loaded_by
from counterpoint_video import pack

TARGETS = components(pack)


@pytest.mark.parametrize("name", TARGETS)
def test_a_component_is_there_keyword_only_annotated_and_documented(name):
    check_component(TARGETS[name])


def test_the_pack_imports_nothing_heavy():
    assert pack.COUNTERPOINT_API == 1
    check_light("counterpoint_video.pack", ["av", "torchvision", "transformers", "ale_py"])


def test_a_component_imports_its_library_when_it_is_built():
    names = (
        "readers.clip",
        "data.camera",
        "data.games",
        "encoders.pixels",
        "encoders.r2plus1d",
        "encoders.r3d",
        "encoders.videomae",
        "views.clips",
        "views.space",
        "views.colour",
    )
    modules = ", ".join(f"counterpoint_video.{name}" for name in names)
    assert not loaded_by(f"import {modules}", ["torchvision", "transformers", "ale_py", "lightning"])


def test_recipes_are_there():
    folder = Path(pack.counterpoint_recipes())
    assert {path.stem for path in folder.glob("*.yaml")} == {"cvrl", "from_manifest", "quickstart", "camera"}


@pytest.mark.slow
def test_wheel_and_sdist_hold_the_recipes_as_files(tmp_path):
    check_distribution(Path(__file__).parents[1], Path(pack.counterpoint_recipes()), tmp_path)
