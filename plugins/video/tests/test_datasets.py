"""The data sets: game play rendered once, real videos, and the layout of Kinetics."""

import importlib.util

import numpy as np
import pytest
import torch
from filming import numbers, write

from counterpoint.data.folder import folder
from counterpoint.data.sources import Debian
from counterpoint.errors import ComponentError, DataError
from counterpoint_video.data import camera, games
from counterpoint_video.data.camera import Camera, spans
from counterpoint_video.data.games import Games
from counterpoint_video.readers.clip import Clip

emulator = pytest.mark.skipif(importlib.util.find_spec("ale_py") is None, reason="the extra `games` is not installed")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COUNTERPOINT_DATA", str(tmp_path / "cache"))
    return tmp_path


@emulator
def test_games_are_rendered_once_the_same_each_time_and_apart_for_train_and_test(cache, monkeypatch, capsys):
    monkeypatch.setattr(games, "names", lambda: ["pong", "breakout"])
    small = {"clips": (2, 1), "frames": 6, "size": 16}
    train, test = Games(**small), Games(**small, split="test")
    assert len(train) == 4 and len(test) == 2 and train.labels["game"].tolist() == [0, 0, 1, 1]
    assert "2 of 2 games" in capsys.readouterr().err
    sample = train[0].inputs["video"]
    assert sample.dtype == torch.uint8 and sample.shape == (1, 6, 16, 16) and sample.float().std() > 0
    assert {film.numpy().tobytes() for film in train.film}.isdisjoint(film.numpy().tobytes() for film in test.film)
    first = train.film.clone()
    monkeypatch.setenv("COUNTERPOINT_DATA", str(cache / "another"))
    assert torch.equal(Games(**small).film, first)


@emulator
def test_a_game_that_cannot_be_played_is_named_and_leaves_nothing(cache, monkeypatch):
    monkeypatch.setattr(games, "names", lambda: ["pong", "no_such_game"])
    with pytest.raises(DataError, match="rendering no_such_game failed"):
        Games(clips=(1, 1), frames=2, size=8)
    assert not list((cache / "cache").rglob("*.npy"))


def test_without_the_emulator_the_command_is_said(cache, monkeypatch):
    monkeypatch.setattr(games, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'counterpoint-video\[games\]'"):
        Games()


@pytest.mark.parametrize("make", [Games, Camera])
def test_a_wrong_split_or_size_is_said(make):
    with pytest.raises(DataError, match="no split 'tset'; did you mean 'test'"):
        make(split="tset")
    with pytest.raises(ComponentError, match="at least 1"):
        make(frames=0)


@pytest.mark.parametrize("length, extent, every", [(100, 24, 8), (101, 20, 1), (10, 3, 2), (10, 2, 5), (120, 93, 8)])
def test_spans_stay_in_their_split(length, extent, every):
    used = {
        split: {i for first in spans(length, extent, every, split) for i in range(first, first + extent)}
        for split in ("train", "test")
    }
    assert used["train"].isdisjoint(used["test"]) and max(used["train"] | used["test"], default=0) < length


def test_camera_gives_spans_of_its_videos_and_their_speed(cache, monkeypatch):
    for name, count in (("a.mp4", 50), ("b.avi", 40)):
        write(cache / name, count=count)
    monkeypatch.setattr(camera, "SOURCES", {"here": Debian("nothing", holds=str(cache))})
    monkeypatch.setattr(camera, "FILES", {"a": ("here", str(cache / "a.mp4")), "b": ("here", str(cache / "b.avi"))})
    train = Camera(frames=4, every=2, size=16, speeds=True)
    test = Camera(frames=2, every=2, size=16, split="test")
    assert train.spec.labels == {"speed": 3} and train.spec.groups == {"video": 2} and test.spec.labels == {}
    for i in range(0, len(train), 5):
        shown = numbers(train[i].inputs["video"])
        step = (1, 2, 4)[train.labels["speed"][i]]
        assert shown == list(range(shown[0], shown[0] + 4 * step, step)) and shown[-1] < 40
    assert numbers(test[0].inputs["video"]) == [40, 41]


def test_missing_packages_are_named(cache, monkeypatch):
    monkeypatch.setattr(camera, "SOURCES", {"opencv": Debian("opencv-doc", holds="usr/share/no/such/thing")})
    with pytest.raises(DataError, match="opencv-doc"):
        Camera()


def test_the_layout_of_kinetics(tmp_path):
    """train/<class>/*.mp4 and val/<class>/*.mp4: what is not for training is the test."""
    for split, count in (("train", 3), ("val", 2)):
        for action in ("abseiling", "zumba"):
            (tmp_path / split / action).mkdir(parents=True)
            for i in range(count):
                write(tmp_path / split / action / f"{i}.mp4", count=6)
    data = {
        s: folder(path=str(tmp_path), modality="video", reader=Clip(frames=4, size=16), split=s)
        for s in ("train", "test")
    }
    assert data["train"].spec.splits == ("train", "test") and len(data["train"]) == 6 and len(data["test"]) == 4
    assert data["test"].labels["class"].tolist() == [0, 0, 1, 1] and data["test"].spec.labels == {"class": 2}
    assert data["train"].spec.modalities["video"]["channels"] == 3
    assert data["train"][0].inputs["video"].shape == (3, 4, 16, 16)


@pytest.mark.slow
def test_the_real_videos():
    train, test = Camera(size=32), Camera(size=32, split="test")
    assert set(np.unique(train.groups["video"])) == set(range(7)) and len(train) > 100 and len(test) > 10
    assert all(film.float().std() > 10 for film in train.films)
