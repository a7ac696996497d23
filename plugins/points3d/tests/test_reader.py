"""What the reader makes of good files of every format, and what it says of bad ones."""

import os
import re
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from counterpoint.data.guard import reading
from counterpoint.errors import ComponentError, DataError
from counterpoint_points3d.readers.cloud import Geometry, sampled
from counterpoint_points3d.readers.points import Points

sys.path.insert(0, str(Path(__file__).parent))
import files
from files import CLOUDS, FACES, MESHES, VERTICES, cloud, las, obj, off, ply, stl, stl_text, write

HALF = torch.tensor([1.0, 0.5, 1.5])[:, None]  # of the box, whose middle is the origin


def read(path, **given) -> torch.Tensor:
    with reading(path):
        return Points(**given).read(str(path))


def refused(path, **given) -> str:
    with pytest.raises(DataError) as error:
        read(path, **given)
    text = str(error.value)
    assert "\n" not in text and len(text) < 700
    return text


@pytest.fixture(autouse=True)
def seeded():
    np.random.seed(0)


@pytest.mark.parametrize("kind", MESHES)
def test_points_of_a_surface_lie_on_it_and_spread_by_area(tmp_path, kind):
    reader = Points(points=4000, normals=True)
    path = write(tmp_path, kind)
    shape = reader.read(path)
    assert shape.shape == (6, 4000) and shape.dtype == torch.float32
    outside = shape[:3].abs() / HALF
    assert outside.max() < 1.001 and (outside.amax(0) - 1).abs().max() < 1e-5
    on = [(outside[axis] > 0.9999).float().mean() for axis in range(3)]
    areas = torch.tensor([3.0, 6.0, 2.0]) / 11  # of the pairs of sides
    torch.testing.assert_close(torch.stack(on), areas, atol=0.03, rtol=0)
    assert (shape[3:].abs().amax(0) > 0.999).all() and torch.equal(shape[3:].abs().argmax(0), outside.argmax(0))
    assert reader.facts(path)["channels"] == 6 and reader.facts(path)["length"] in (
        None if "obj" in kind else 4000,
        4000,
    )


@pytest.mark.parametrize("kind", MESHES + CLOUDS)
def test_every_reading_draws_anew_and_the_same_with_the_same_seed(tmp_path, kind):
    path = write(tmp_path, kind)
    first, second = read(path, points=50), read(path, points=50)
    np.random.seed(0)
    assert first.shape == (3, 50) and not torch.equal(first, second) and torch.equal(read(path, points=50), first)


@pytest.mark.parametrize("kind", CLOUDS)
def test_a_cloud_is_taken_as_it_is(tmp_path, kind):
    path, reader = write(tmp_path, kind), Points(points=None)
    expected = torch.from_numpy(cloud().T).float()
    middle = (expected.amax(1) + expected.amin(1)) / 2
    torch.testing.assert_close(
        reader.read(path), expected - middle[:, None], atol=1e-3 if kind == "las" else 1e-5, rtol=0
    )
    assert reader.facts(path) == {"channels": 3, "length": 200}
    assert Points(points=64).facts(path)["length"] == 64 and Points(points=999).facts(path)["length"] == 200
    few = read(path, points=999)
    assert few.shape == (3, 200)
    whole = {tuple(point) for point in read(path, points=None, center=False).T.tolist()}
    part = read(path, points=64, center=False).T.tolist()
    assert len({tuple(point) for point in part}) == 64 and {tuple(point) for point in part} <= whole


def test_an_obj_of_points_alone_is_a_cloud(tmp_path):
    (tmp_path / "x.obj").write_bytes(obj(cloud(30), []))
    assert read(tmp_path / "x.obj", points=20).shape == (3, 20)


def test_coordinates_of_a_survey_keep_their_precision(tmp_path):
    las(tmp_path / "x.las", cloud(), offset=(512_345.0, 5_403_210.0, 400.0))
    shape = read(tmp_path / "x.las", points=None)
    expected = cloud() - (cloud().max(0) + cloud().min(0)) / 2
    np.testing.assert_allclose(shape.T.numpy(), expected, atol=2e-4)


def test_attributes_follow_as_channels(tmp_path):
    las(tmp_path / "x.las", cloud())
    shape = read(tmp_path / "x.las", points=None, attributes=("intensity",))
    assert torch.equal(shape[3], torch.arange(200.0))
    table = np.column_stack([cloud(), np.tile([0.0, 0.0, 1.0], (200, 1)), np.arange(200)])
    for kind in ("ascii", "binary_little_endian"):
        (tmp_path / "x.ply").write_bytes(ply(table, None, kind))
        shape = read(tmp_path / "x.ply", points=None, normals=True, attributes=("intensity",))
        assert (
            shape.shape == (7, 200)
            and torch.equal(shape[5], torch.ones(200))
            and torch.equal(shape[6], torch.arange(200.0))
        )
    np.save(tmp_path / "x.npy", table)
    assert read(tmp_path / "x.npy", points=None).shape == (7, 200)
    assert "no attribute 'intensty'; did you mean 'intensity'" in refused(tmp_path / "x.las", attributes=("intensty",))
    (tmp_path / "x.ply").write_bytes(ply(cloud(), None))
    assert "its points have no 'nx'" in refused(tmp_path / "x.ply", normals=True)
    assert "is a surface, whose points have no attributes" in refused(write(tmp_path, "off"), attributes=("intensity",))


def test_a_chunk_at_a_time_gives_the_same_survey(tmp_path, monkeypatch):
    from counterpoint_points3d.readers import surveys

    las(tmp_path / "x.las", cloud(500))
    whole = read(tmp_path / "x.las", points=100)
    monkeypatch.setattr(surveys, "CHUNK", 64)
    np.random.seed(0)
    assert torch.equal(read(tmp_path / "x.las", points=100), whole)


@pytest.mark.parametrize("kind", ("off", "ply_little", "las", "npy"))
def test_any_name_will_do(tmp_path, kind):
    folder = tmp_path / "Möbel ö 椅子"
    folder.mkdir()
    assert read(write(folder, kind, "stuhl é"), points=10).shape == (3, 10)


@pytest.mark.parametrize("kind", MESHES + CLOUDS)
@pytest.mark.parametrize("how", ["empty", "cut", "garbage", "missing", "directory"])
def test_a_file_that_is_none_is_named(tmp_path, kind, how):
    path = Path(write(tmp_path, kind))
    content = path.read_bytes()
    path.unlink()
    if how == "directory":
        path.mkdir()
    elif how != "missing":
        cut = content[: len(content) // 3] if kind != "obj" and kind != "obj_quads" else content[:60]
        path.write_bytes({"empty": b"", "cut": cut, "garbage": bytes(range(1, 250)) * 4}[how])
    if how == "cut" and kind in ("xyz", "csv"):
        return  # a table of fewer rows is a table
    text = refused(path)
    assert path.name in text
    words = {"empty": "empty file", "missing": "no such file", "directory": "is a directory"}
    assert words.get(how, "") in text


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("x.off", off(faces=[[0, 1, 99]]), "outside the range|names vertex 99"),
        ("x.obj", obj(faces=[[0, 1, 99]]), "out of bounds|names vertex 99"),
        ("x.ply", ply(faces=np.array([[0, 1, 99]])), "names vertex 99, there are 8"),
        ("x.ply", ply(faces=np.array([[0, 1, -2]]), kind="binary_little_endian"), "names vertex -2"),
        ("x.off", off(VERTICES * 0.0), "12 faces have no area"),
        ("x.stl", stl(VERTICES * [1.0, 0.0, 0.0]), "have no area"),
        ("x.off", off(np.where(VERTICES == 3.0, np.nan, VERTICES)), "4 of 8 points have NaN"),
        ("x.stl", stl(np.where(VERTICES == 3.0, np.inf, VERTICES)), "have NaN or infinite"),
        ("x.ply", ply(np.where(VERTICES == 3.0, np.nan, VERTICES), None), "4 of 8 points have NaN"),
        ("x.stl", stl()[:84] + b"\0" * 20, "holds no mesh"),
        ("x.off", b"OFF\n8 99999999999 0\n" + b"0 0 0\n" * 8, "cut off: 8 lines .* its header says 100,000,000,007"),
        ("x.off", b"OFF\n-8 2 0\n0 0 0\n", "counts"),
        ("x.off", b"PLY\n", "does not begin with OFF"),
        ("x.ply", b"ply\nformat ascii 1.0\n" + b"comment x\n" * 200_000, "does not end"),
        (
            "x.ply",
            ply().replace(b"element vertex 8", b"element vertex 88888888888"),
            "cut off: .* 88,888,888,888 vertex",
        ),
        ("x.ply", ply().replace(b"element vertex 8", b"element vertex -8"), "line 4 of its header makes no sense"),
        ("x.ply", ply().replace(b"property float y", b"property thing y"), "makes no sense: 'property thing y'"),
        ("x.ply", ply().replace(b"property float y", b"property float q"), "no vertex with x, y and z"),
        ("x.ply", ply(VERTICES[:0], None), "holds no vertex"),
        ("x.obj", b"# nothing\n", "holds no mesh"),
        ("x.xyz", b"1 2 3\n4 5\n7 8 9\n", "columns"),
        ("x.xyz", b"1 2\n4 5\n7 8\n", r"shape \(3, 2\), expected \(points, 3 to 64 values\)"),
        ("x.xyz", b"# only this\n", "holds no numbers"),
        ("x.xyz", b"1 2 three\n" * 2, "three"),
        ("x.pts", b"5\n1 2 3\n4 5 6\n", "2 points, its first line says 5"),
        ("x.xyz", b"1 2 3\n", "too short: length 1, expected at least 4"),
        ("x.xyz", b"1 2 3\n" * 9, "constant"),
        ("x.xyz", b"1 2 nan\n" * 9, "9 of 9 points have NaN"),
        ("x.xyz", b"1 2 1e300\n" * 9 + b"0 0 0\n", "infinite"),
        ("x.las", b"LASF" + b"\0" * 400, "las"),
        ("x.laz", b"not one", "not a .las or .laz file"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    text = refused(tmp_path / name, points=64)
    assert re.search(message, text), text


def test_a_compressed_survey_names_what_reads_it(tmp_path):
    las(tmp_path / "x.las", cloud())
    content = bytearray((tmp_path / "x.las").read_bytes())
    content[104] |= 0x80  # the point format says so
    (tmp_path / "x.laz").write_bytes(bytes(content))
    assert "pip install 'counterpoint-points3d[laz]'" in refused(tmp_path / "x.laz")


def test_a_survey_that_promises_more_points_than_there_are(tmp_path):
    las(tmp_path / "x.las", cloud())
    content = bytearray((tmp_path / "x.las").read_bytes())
    content[107:111] = struct.pack("<I", 4_000_000_000)
    (tmp_path / "x.las").write_bytes(bytes(content))
    assert "its header says 4,000,000,000 points" in refused(tmp_path / "x.las")
    with pytest.raises(DataError, match="4,000,000,000 points"), reading(tmp_path / "x.las"):
        Points().facts(str(tmp_path / "x.las"))


def test_arrays_of_another_layout_are_refused(tmp_path):
    np.save(tmp_path / "turned.npy", cloud().T)
    assert "turn it" in refused(tmp_path / "turned.npy")
    np.save(tmp_path / "flat.npy", np.arange(30.0))
    assert "shape (30,)" in refused(tmp_path / "flat.npy")
    np.savez(tmp_path / "two.npz", a=cloud(), b=cloud())
    assert "name one of: a, b" in refused(tmp_path / "two.npz")
    assert read(tmp_path / "two.npz", key="b", points=None).shape == (3, 200)
    np.save(tmp_path / "object.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert "object.npy" in refused(tmp_path / "object.npy")
    reader = Points()
    reader.expect({"channels": 5})
    with pytest.raises(DataError, match="3 channels, expected 5"), reading("x"):
        reader.read(write(tmp_path, "npy"))


def test_a_mesh_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    from counterpoint_points3d.readers import meshes

    monkeypatch.setattr(meshes, "MAX_BYTES", 100)
    assert "too large" in refused(write(tmp_path, "off"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(tmp_path):
    path = Path(write(tmp_path, "off"))
    path.chmod(0)
    assert "no permission" in refused(path)


@pytest.mark.parametrize("kind, content", [("obj", obj()), ("ply", ply())])
def test_no_file_that_a_mesh_names_is_opened(tmp_path, kind, content, monkeypatch):
    """A material or texture beside the mesh, by any path, stays closed."""
    (tmp_path / "a").mkdir()
    (tmp_path / "secret.mtl").write_text("newmtl wood\nmap_Kd secret.png\n")
    (tmp_path / "secret.png").write_bytes(b"not to be read")
    path = tmp_path / "a" / f"x.{kind}"
    path.write_bytes(content.replace(b"../../secret", b"../secret"))
    read(path)  # everything is imported
    opened = []
    sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == "open" and watching else None)
    watching = True
    read(path)
    watching = False
    assert {Path(name).name for name in opened if str(tmp_path) in name} == {f"x.{kind}"}


def test_quads_and_triangles_together(tmp_path):
    (tmp_path / "x.off").write_bytes(off(faces=[*files.quads()[:3], *FACES[:2].tolist()]))
    (tmp_path / "x.obj").write_bytes(obj(faces=[*files.quads()[:3], *FACES[:2].tolist()]))
    for name in ("x.off", "x.obj"):
        assert read(tmp_path / name, points=30).shape == (3, 30)


def test_several_solids_of_one_file_are_one_surface(tmp_path):
    (tmp_path / "x.stl").write_bytes(stl_text() + stl_text(VERTICES + 10.0))
    shape = read(tmp_path / "x.stl", points=500)
    assert (shape.amax(1) - shape.amin(1) > torch.tensor([11.0, 10.5, 12.0])).all()


def test_points_are_uniform_within_a_triangle():
    triangle = Geometry(np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]), np.array([[0, 1, 2]]))
    points, normals = sampled(triangle, 20_000)
    assert (points.min(0) >= 0).all() and (points[:, :2].sum(1) <= 1 + 1e-12).all()
    np.testing.assert_allclose(points.mean(0), [1 / 3, 1 / 3, 0], atol=0.01)
    assert abs((points[:, 0] < 0.5).mean() - 0.75) < 0.015
    np.testing.assert_allclose(normals, np.tile([0.0, 0.0, 1.0], (20_000, 1)))


@pytest.mark.parametrize("given", [{"points": 3}, {"points": 0}])
def test_a_mistake_is_refused_when_the_reader_is_built(given):
    with pytest.raises(ComponentError, match="points is 4 or more"):
        Points(**given)


def test_a_surface_needs_a_number_of_points(tmp_path):
    assert "say how many points" in refused(write(tmp_path, "off"), points=None)
