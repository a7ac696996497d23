"""Datasets on tiny trees of the layouts they read; the real furniture where it has been fetched."""

import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from counterpoint.data import sources
from counterpoint.errors import ComponentError, DataError
from counterpoint_points3d.data import furniture
from counterpoint_points3d.data.catalogue import libraries, pieces, surfaces
from counterpoint_points3d.data.furniture import Furniture
from counterpoint_points3d.data.modelnet import modelnet

sys.path.insert(0, str(Path(__file__).parent))
from files import VERTICES, obj, off

TABLE = """# Copyright of somebody
id=Library
name=A library

id#1=Library#chair
name#1=Chair
tags#1=Blend Swap, Seat, Furniture
category#1=Office
model#1=/lib/chair/chair.obj
width#1=50
depth#1=60
height#1=100.5

id#2=Library#bill
name#2=Bill 50\\u20ac
tags#2=
category#2=Miscellaneous
model#2=/lib/bill.obj
modelRotation#2=0 0 1 0 1 0 -1 0 0
width#2=10
depth#2=20
height#2=1
"""


def library(folder, count: int = 2, table: str = TABLE, name: str = "A.sh3f", models: int = 0):
    """A zip as Sweet Home 3D writes it; beyond the two pieces of `table`, six kinds by turns, up to `models` of own files."""
    rows = [
        f"name#{i}={('Chair', 'table', 'Lamp', 'Bed', 'Wardrobe', 'sofa')[i % 6]} {i // 6}\ntags#{i}=Seat, Wood\ncategory#{i}=Room {i % 2}\n"
        f"model#{i}=/lib/{f'{i}' if i <= models else 'bill'}.obj\nwidth#{i}=10\ndepth#{i}=20\nheight#{i}={i}\n"
        for i in range(3, count + 1)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / name, "w") as archive:
        archive.writestr("PluginFurnitureCatalog.properties", (table + "".join(rows)).encode("latin-1"))
        archive.writestr("lib/chair/chair.obj", obj(VERTICES * 7.0))
        archive.writestr("lib/bill.obj", obj())
        for i in range(3, models + 1):
            archive.writestr(f"lib/{i}.obj", obj())
    return folder / name


def test_a_library_is_read_from_its_zip(tmp_path):
    chair, bill = pieces(library(tmp_path))
    assert (chair.name, chair.tags, chair.category) == ("Chair", ("Seat", "Furniture"), "Office")
    assert chair.size == (0.5, 1.005, 0.6) and bill.name == "Bill 50€" and bill.tags == ()
    assert [path.name for path in libraries(tmp_path)] == ["A.sh3f"]


def test_a_surface_is_turned_and_as_large_as_the_catalogue_says(tmp_path):
    chair, bill = surfaces(library(tmp_path))
    for mesh, size in ((chair, (0.5, 1.005, 0.6)), (bill, (0.1, 0.01, 0.2))):
        np.testing.assert_allclose(np.ptp(mesh.vertices, axis=0), size)
        np.testing.assert_allclose(mesh.vertices.max(0) + mesh.vertices.min(0), 0, atol=1e-12)
    before = np.sign(VERTICES - VERTICES.mean(0)) @ np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]]).T
    np.testing.assert_array_equal(np.sign(bill.vertices), before)


@pytest.mark.parametrize(
    "table, message",
    [
        (TABLE.replace("category#2", "kategorie#2"), r"A\.sh3f: .*model 2 has no category"),
        (TABLE.replace("/lib/bill.obj", "/../../etc/passwd"), r"holds no \.\./\.\./etc/passwd"),
        (TABLE.replace("width#1=50", "width#1=wide"), r"A\.sh3f: could not convert"),
    ],
)
def test_a_damaged_library_is_named(tmp_path, monkeypatch, table, message):
    prepare(tmp_path, monkeypatch, table=table)
    with pytest.raises(DataError, match=message):
        Furniture(tokenizer="bytes")


def prepare(tmp_path, monkeypatch, **given):
    """A cache with one small library in the place of Debian's."""
    monkeypatch.setenv("COUNTERPOINT_DATA", str(tmp_path))
    monkeypatch.setattr(furniture, "FURNITURE", sources.Debian("a-test", "no/such/folder/a-test"))
    monkeypatch.setattr(furniture, "FOLDER", "no/such/folder/a-test")
    return library(tmp_path / "debian/a-test/no/such/folder/a-test", **given)


def test_furniture_holds_out_exactly_a_share_of_the_pieces(tmp_path, monkeypatch):
    prepare(tmp_path, monkeypatch, count=60, models=60)
    train, test = (Furniture(split=split, tokenizer="bytes") for split in ("train", "test"))
    assert (len(train), len(test)) == (48, 12)
    assert not {piece.model for piece in train.pieces} & {piece.model for piece in test.pieces}
    again = Furniture(split="test", tokenizer="bytes", points=8)
    assert [piece.model for piece in again.pieces] == [piece.model for piece in test.pieces]


def test_furniture_is_cut_by_name_and_named_with_its_tags_in_training_alone(tmp_path, monkeypatch):
    prepare(tmp_path, monkeypatch, count=60)
    train, test = (
        Furniture(split=split, tokenizer="bytes", points=128, holdout_by="name") for split in ("train", "test")
    )
    assert len(train) + len(test) == 60 and 0 < len(test) < 30
    assert not set(train.groups["name"].tolist()) & set(test.groups["name"].tolist())
    assert train.spec.groups == test.spec.groups and train.spec.labels == {"category": 4}
    assert train.spec.modalities["shape"] == {"channels": 6, "length": 128, "normals": True}
    torch.manual_seed(0)
    np.random.seed(0)
    sample = test[0]
    assert sample.inputs["shape"].shape == (6, 128) and sample.inputs["shape"].dtype == torch.float32
    assert not torch.equal(sample.inputs["shape"], test[0].inputs["shape"])
    texts = lambda data, index: {bytes((data[index].inputs["name"] - 3).tolist()).decode() for _ in range(30)}  # noqa: E731
    name = train.pieces[5].name
    assert texts(train, 5) == {name, f"{name}, Seat, Wood", f"{name}, Wood, Seat"}
    assert texts(test, 0) == {test.pieces[0].name} == {test[0].fields["name"]}
    plain = Furniture(tokenizer="bytes", tags=False)
    assert texts(plain, 5) == {plain.pieces[5].name}


def test_points_of_furniture_are_sampled_once(tmp_path, monkeypatch):
    path = prepare(tmp_path, monkeypatch, count=6)
    state = np.random.get_state()[1].copy()
    first = Furniture(tokenizer="bytes", holdout=0.0)
    assert np.array_equal(np.random.get_state()[1], state)
    assert first.clouds.shape == (6, 6, furniture.KEPT) and first.clouds.dtype == np.float16
    extent = np.ptp(first.clouds[0, :3].astype(float), axis=1)
    np.testing.assert_allclose(extent, [0.5, 1.005, 0.6], rtol=2e-3)
    monkeypatch.setattr(furniture, "surfaces", lambda library: pytest.fail("sampled again"))
    again = Furniture(tokenizer="bytes", holdout=0.0)
    assert np.array_equal(again.clouds, first.clouds)
    monkeypatch.undo()
    prepare(tmp_path, monkeypatch, count=7)  # another library is another key
    assert len(Furniture(tokenizer="bytes", holdout=0.0)) == 7 and path.exists()


def test_furniture_that_is_not_there_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("COUNTERPOINT_DATA", str(tmp_path))
    monkeypatch.setattr(furniture, "FURNITURE", sources.Debian("a-test", "no/such/folder"))
    with pytest.raises(DataError, match="counterpoint data a-test"):
        Furniture(tokenizer="bytes")
    with pytest.raises(ComponentError, match="points is 4 to 4096"):
        Furniture(points=5000)
    assert [source.name for source in Furniture.sources_of(tokenizer="bytes")] == ["a-test"]


@pytest.fixture
def models(tmp_path):
    for kind in ("chair", "night_stand"):
        for split, count in (("train", 3), ("test", 2)):
            (tmp_path / kind / split).mkdir(parents=True)
            for number in range(count):
                head = "OFF" if number == 1 else "OFF\n"
                (tmp_path / kind / split / f"{kind}_{number:04d}.off").write_bytes(off(head=head))
    (tmp_path / "chair/test/.hidden.off").write_bytes(b"")
    (tmp_path / "README.txt").write_text("ModelNet")
    return tmp_path


def test_modelnet_is_read_by_its_folders(models):
    train, test = modelnet(path=str(models)), modelnet(path=str(models), split="test", points=64, normals=True)
    assert (len(train), len(test)) == (6, 4) and train.spec.splits == ("train", "test")
    assert train.classes["class"] == ["chair", "night_stand"] and test.labels["class"].tolist() == [0, 0, 1, 1]
    assert train.spec.modalities["shape"] == {"channels": 3, "length": 1024, "normals": False}
    assert test.spec.modalities["shape"] == {"channels": 6, "length": 64, "normals": True}
    assert all(train[i].inputs["shape"].shape == (3, 1024) for i in range(6))


def test_what_is_no_modelnet_is_said(models, tmp_path):
    with pytest.raises(DataError, match="no file is called <class>/<split>"):
        modelnet(path=str(models / "chair"))
    with pytest.raises(DataError, match="no such file"):
        modelnet(path=str(models / "gone"))
    with pytest.raises(DataError, match=r"'tset'.*did you mean 'test'"):
        modelnet(path=str(models), split="tset")
    (models / "chair/train/chair_0000.off").write_bytes(b"OFF\n8 12 0\n0 0 0\n")
    with pytest.raises(DataError, match=r"sample 0 .*chair_0000\.off: cut off"):
        modelnet(path=str(models))[0]


@pytest.mark.slow
def test_the_real_furniture():
    train, test = (Furniture(split=split, holdout_by="name") for split in ("train", "test"))
    assert (len(train), len(test)) == (657, 163)
    assert not set(train.groups["name"].tolist()) & set(test.groups["name"].tolist())
    train, test = Furniture(), Furniture(split="test")
    assert (len(train), len(test)) == (656, 164) and train.spec.groups == {"name": 612}
    assert train.spec.labels == {"category": 12}
    trained = set(train.groups["name"].tolist())
    assert sum(name in trained for name in test.groups["name"].tolist()) == 54
    for data in (train, test):
        assert np.isfinite(data.clouds).all()
        extent = np.ptp(data.clouds[:, :3].astype(np.float32), axis=2)
        size = np.array([piece.size for piece in data.pieces])
        assert (extent <= size * 1.01 + 1e-3).all() and np.median(extent / size) > 0.98
        assert not {tag for piece in data.pieces for tag in piece.tags} & {"Blend Swap", "Scopia"}
