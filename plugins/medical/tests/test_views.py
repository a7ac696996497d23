"""Properties of every view generator of the pack, then what each promises."""

import math

import pytest
import torch

from counterpoint.batch import View
from counterpoint.errors import ComponentError
from counterpoint.randomness import Draw
from counterpoint.views.place import cells, centres
from counterpoint_medical.views import resampling
from counterpoint_medical.views.detail import Blur, CutOut
from counterpoint_medical.views.intensity import Gamma, Intensity, Noise, Normalise
from counterpoint_medical.views.place import Crop, Flip
from counterpoint_medical.views.turning import Affine, Rotate, Scale

SAME_SHAPE = {
    "flip": Flip(axes=(0, -1)),
    "affine": Affine(),
    "rotate": Rotate(degrees=20),
    "rotate_axial": Rotate(degrees=20, plane="axial"),
    "scale": Scale(),
    "intensity": Intensity(),
    "gamma": Gamma(),
    "noise": Noise(),
    "noise_bank": Noise(bank=1 << 14),
    "blur": Blur(),
    "cut_out": CutOut(),
    "intensity_half": Intensity(p=0.5),
}
EVERY = SAME_SHAPE | {"crop": Crop(size=8)}
every = pytest.mark.parametrize("name", EVERY)
same_shape = pytest.mark.parametrize("name", SAME_SHAPE)
both = pytest.mark.parametrize("sides", [(14, 12), (10, 14, 12)], ids=["2d", "3d"])


def images(n: int = 5, sides=(10, 14, 12), channels: int = 2, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(n, channels, *sides, generator=torch.Generator().manual_seed(1)).to(dtype) * 100 + 300


def view_of(data, **meta) -> View:
    return View("scan", data, torch.arange(len(data)), meta=meta)


def seen(step, data, ids=None, seed: int = 3) -> View:
    ids = torch.arange(len(data)) + 100 if ids is None else torch.as_tensor(ids)
    return step(view_of(data), Draw(seed, ids))


@same_shape
@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_dtype_and_row_are_kept(name, sides, dtype):
    data = images(sides=sides, dtype=dtype)
    out = seen(EVERY[name], data)
    assert out.data.shape == data.shape and out.data.dtype == dtype
    assert torch.equal(out.row, torch.arange(5)) and torch.isfinite(out.data).all()


@every
@both
def test_input_is_untouched(name, sides):
    data = images(sides=sides)
    before, view = data.clone(), view_of(data)
    out = EVERY[name](view, Draw(0, torch.arange(5)))
    assert torch.equal(data, before) and view.data is data and view.meta == {} and out is not view


@every
@both
def test_identical_rows_differ_by_their_ids_alone(name, sides):
    data = images(1, sides).expand(32, *[-1] * (1 + len(sides)))
    out = seen(EVERY[name], data, ids=[*range(31), 0]).data
    assert torch.equal(out[0], out[31])
    assert len({row.numpy().tobytes() for row in out}) > (2 if name == "flip" else 5)
    assert not torch.equal(out, seen(EVERY[name], data, ids=[*range(31), 0], seed=4).data)


@every
@both
def test_a_row_is_the_same_alone_and_in_any_batch(name, sides):
    data, ids = images(6, sides), torch.arange(6) * 7
    whole = seen(EVERY[name], data, ids).data
    for i in range(6):
        assert torch.equal(seen(EVERY[name], data[i : i + 1], ids[i : i + 1]).data[0], whole[i])
    assert torch.equal(seen(EVERY[name], data.flip(0), ids.flip(0)).data.flip(0), whole)


@pytest.fixture
def lines(monkeypatch):
    """Resampling line by line, as of large samples, and not pixel by pixel."""
    for bound in ("LINE", "LARGE"):
        monkeypatch.setattr(resampling, bound, 1)


@pytest.mark.parametrize("sides", [(14, 12), (10, 14, 12)], ids=["2d", "3d"])
@pytest.mark.parametrize(
    "step", [Affine(degrees=40, scale=(0.7, 1.4)), Affine(plane="axial", p=0.5)], ids=["any", "axial"]
)
def test_lines_are_resampled_as_pixels_are(step, sides, lines, monkeypatch):
    data = images(sides=sides)
    whole = seen(step, data).data
    assert whole.is_contiguous()
    for i in range(5):
        assert torch.equal(seen(step, data[i : i + 1], [100 + i]).data[0], whole[i])
    monkeypatch.setattr(resampling, "LARGE", 1 << 40)
    torch.testing.assert_close(whole, seen(step, data).data, rtol=1e-5, atol=1e-3)


def test_lines_have_the_gradient_of_the_pixels(lines, monkeypatch):
    data, mix = images(2).requires_grad_(), images(2).flip(0)
    found = []
    for large in (1, 1 << 40):
        monkeypatch.setattr(resampling, "LARGE", large)
        found += torch.autograd.grad((seen(Rotate(degrees=30), data).data * mix).sum(), data)
    torch.testing.assert_close(*found, rtol=1e-4, atol=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_axis_is_stretched_as_in_a_plane(dtype):
    data, factor = images(3, dtype=dtype).requires_grad_(), torch.tensor([0.7, 1.0, 1.4])
    plane = resampling.resample(data, (0, 1), torch.zeros(3), torch.stack([factor, torch.ones(3)], dim=1))
    line, mix = resampling.stretch(data, factor), images(3, dtype=dtype).flip(0)
    torch.testing.assert_close(line, plane, rtol=1e-5, atol=1e-3)
    found = [torch.autograd.grad((out * mix).sum(), data) for out in (line, plane)]
    torch.testing.assert_close(*found, rtol=1e-4, atol=0.1)


@every
def test_no_rows_give_no_rows(name):
    assert len(seen(EVERY[name], images(0)).data) == 0


@pytest.mark.parametrize("name", ["flip", "affine", "intensity", "gamma", "noise", "blur", "cut_out"])
def test_an_evaluation_sees_the_sample_as_it_is(name):
    view = view_of(images())
    assert EVERY[name].prepare(view) is view


@every
def test_what_is_no_image_is_refused(name):
    with pytest.raises(ComponentError, match=r"\(n, C, D, H, W\)"):
        EVERY[name](view_of(torch.zeros(2, 1, 30)), Draw(0, torch.arange(2)))


def boxes(view):
    """int64 (n, 2, S): the first voxel of every row's box, and the one after its last, where nothing is turned."""
    place = view.meta["place"]
    return torch.stack([place[:, 0], place[:, 0] + place[:, 1:].sum(1)], 1).round().long()


def boxed(data, box):
    """The voxels of every row's box, by plain slices."""
    return torch.stack([row[(slice(None), *(slice(a, b) for a, b in ends.T.tolist()))] for row, ends in zip(data, box)])


@both
def test_the_recorded_place_holds_the_voxels_of_the_crop(sides):
    data = images(sides=sides)
    size = (4, 8, 6)[-len(sides) :]
    out = seen(Crop(size=size), data)
    assert out.meta["place"].shape == (5, 1 + len(sides), len(sides)) and out.data.shape[2:] == size
    assert torch.equal(boxed(data, boxes(out)), out.data)


MOVING = {
    "crop and flip": [Crop(size=9), Flip(axes=(0, -1)), Crop(size=7), Flip(axes=(-1,))],
    "flip and crop": [Flip(axes=(0, -1)), Crop(size=8), Intensity(p=0.0)],
    "turned": [Rotate(degrees=30), Crop(size=(11, 12, 13)), Flip(axes=(1,))],
    "turned after": [Crop(size=16), Flip(axes=(0,)), Affine(degrees=25, scale=(0.8, 1.1), p=0.6)],
    "scaled": [Scale(low=0.7, high=1.4), Affine(degrees=20, plane="axial"), Crop(size=13)],
}
TURNED = ("turned", "turned after", "scaled")


@both
@pytest.mark.parametrize("name", MOVING)
def test_any_voxel_leads_back_to_the_sample(name, sides):
    """Voxels that say where they are: what a view shows is what its place says, but near a border that is repeated."""
    sides = [side + 8 for side in sides]
    axes = torch.meshgrid(*(torch.arange(float(side)) + 0.5 for side in sides), indexing="ij")
    view = view_of(torch.stack(axes).expand(24, -1, *sides))
    for number, step in enumerate(MOVING[name]):
        if isinstance(step, Crop) and isinstance(step.size, tuple):
            step = Crop(size=step.size[-len(sides) :])
        view = step(view, Draw(number, torch.arange(24)))
    expected = cells(view.meta["place"], view.data.shape[2:])
    found = view.data.flatten(2).transpose(1, 2)
    inner = torch.ones_like(found[..., 0], dtype=torch.bool)
    if name in TURNED:  # each resampling repeats the border
        inner &= ((found > 3) & (found < torch.tensor(sides) - 3)).all(2)
        inner &= (centres(view.data.shape[2:], expected) - 0.5).norm(dim=1) < 0.3
        assert inner.float().mean() > 0.02
    torch.testing.assert_close(found[inner], expected[inner], atol=2e-3, rtol=0)
    assert len(view.meta["place"].unique(dim=0)) > 4


def test_crops_are_uniform_over_every_place_that_fits():
    view = seen(Crop(size=(10, 12, 12)), images(1).expand(2000, -1, -1, -1, -1))
    assert torch.bincount(boxes(view)[:, 0, 1]).tolist() == pytest.approx([2000 / 3] * 3, rel=0.12)
    assert boxes(view)[:, 1].amax(0).tolist() == [10, 14, 12]


def test_an_evaluation_of_a_crop_sees_its_centre_or_the_whole():
    view = view_of(images())
    centre = Crop(size=(4, 6, 12)).prepare(view)
    assert torch.equal(centre.data, view.data[:, :, 3:7, 4:10, :])
    assert torch.equal(boxed(view.data, boxes(centre)), centre.data)
    assert Crop(size=4, evaluate="whole").prepare(view) is view


def test_normalise_is_a_preparation_and_leaves_a_flat_channel_at_zero():
    data = images()
    data[2, 1] = 7.0
    view = view_of(data)
    out = Normalise().prepare(view).data
    assert torch.equal(out, Normalise()(view, Draw(0, torch.arange(5))).data) and not out[2, 1].any()
    flat = out[0].flatten(1)
    torch.testing.assert_close(flat.mean(1), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(flat.std(1, correction=0), torch.ones(2), atol=1e-4, rtol=0)


def smooth_blob(sides=(24, 24, 24), at=(3.0, -2.0, 4.0)):
    """A Gaussian of width 3 about `at`, from the centre of the volume."""
    axes = [torch.arange(s, dtype=torch.float64) - (s - 1) / 2 - c for s, c in zip(sides, at)]
    squared = axes[0][:, None, None] ** 2 + axes[1][:, None] ** 2 + axes[2] ** 2
    return torch.exp(-squared / 18)[None, None]


def centroid(volume):
    weight = volume / volume.sum()
    sides = volume.shape
    return torch.stack(
        [
            (weight.sum([a for a in range(3) if a != axis]) * (torch.arange(s) - (s - 1) / 2)).sum()
            for axis, s in enumerate(sides)
        ]
    )


def test_a_turn_moves_a_point_about_the_centre_and_keeps_its_distance():
    blob = smooth_blob()
    out = seen(Rotate(degrees=30), blob.expand(8, -1, -1, -1, -1))
    start = centroid(blob[0, 0])
    angles = []
    for row in out.data:
        end = centroid(row[0])
        assert float(end.norm()) == pytest.approx(float(start.norm()), abs=0.15)
        angles.append(math.degrees(math.acos(float(end @ start / end.norm() / start.norm()))))
    assert max(angles) < 55 and max(angles) > 10


def test_a_quarter_turn_is_exact():
    data = images(2, (9, 8, 8))
    step = Rotate(degrees=90, plane="axial")
    ninety = Draw(0, torch.arange(2))
    ninety.uniform = lambda *shape, low=0.0, high=1.0: torch.full((2, *shape), high)
    turned = step(view_of(data), ninety).data
    either = [torch.rot90(data, k, (3, 4)) for k in (1, -1)]
    assert any(torch.allclose(turned, expected, atol=1e-2) for expected in either)


def test_a_scale_stretches_distances_from_the_centre():
    blob = smooth_blob(sides=(36, 36, 36), at=(2.0, -1.0, 2.5))
    out = seen(Scale(low=1.5, high=1.5), blob)
    torch.testing.assert_close(centroid(out.data[0, 0]), 1.5 * centroid(blob[0, 0]), atol=0.1, rtol=0)


def test_turns_of_zero_degrees_and_factor_one_change_nothing():
    data = images()
    assert torch.equal(seen(Affine(degrees=0, scale=(1.0, 1.0)), data).data, data)


def test_gamma_keeps_range_and_order():
    data = images(4, channels=1)
    out = seen(Gamma(low=0.3, high=3.0), data).data
    for bound in ("amin", "amax"):
        torch.testing.assert_close(getattr(out, bound)((2, 3, 4)), getattr(data, bound)((2, 3, 4)))
    for before, after in zip(data.flatten(1), out.flatten(1)):
        assert (after[before.argsort()].diff() >= -1e-3).all()
    flat = torch.full((2, 1, 8, 8), 5.0)
    assert torch.equal(seen(Gamma(), flat).data, flat)


@pytest.mark.parametrize("bank", [None, 1 << 15])
def test_noise_is_relative_to_the_deviation_of_the_channel_and_independent(bank):
    data = images(4, (20, 20, 20)) * torch.tensor([1.0, 30.0])[:, None, None, None]
    noise = (seen(Noise(sigma=0.1, bank=bank), data).data - data).flatten(2)
    torch.testing.assert_close(noise.std(-1) / data.flatten(2).std(-1), torch.full((4, 2), 0.1), atol=0.005, rtol=0)
    assert (torch.corrcoef(noise.flatten(0, 1)) - torch.eye(8)).abs().max() < 0.06


def test_blur_is_the_gaussian_and_keeps_a_flat_image():
    impulse = torch.zeros(1, 1, 21, 21)
    impulse[0, 0, 10, 10] = 1.0
    out = seen(Blur(sigma=1.5), impulse).data[0, 0]
    line = torch.exp(-0.5 * ((torch.arange(21.0) - 10) / 1.5) ** 2)
    line[(torch.arange(21) - 10).abs() > 5] = 0
    line = line / line.sum()
    torch.testing.assert_close(out, line[:, None] * line, atol=1e-6, rtol=0)
    flat = torch.full((2, 1, 6, 6, 6), 4.0)
    torch.testing.assert_close(seen(Blur(), flat).data, flat)


def test_cut_out_fills_one_box_with_the_mean():
    data = images(6, channels=1)
    out = seen(CutOut(fraction=0.5), data).data
    for before, after in zip(data[:, 0], out[:, 0]):
        changed = (before != after).nonzero()
        ends = changed.amin(0), changed.amax(0) + 1
        assert len(changed) == int((ends[1] - ends[0]).prod()) == 5 * 7 * 6
        torch.testing.assert_close(after[before != after], before.mean().expand(len(changed)))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Crop(size=0), "1 voxel or more"),
        (lambda: Flip(axes=()), "axes are numbers"),
        (lambda: Flip(axes=(3,)), "axes are numbers"),
        (lambda: Flip(p=1.5), "probability"),
        (lambda: Affine(degrees=-1), r"\[0, 180\]"),
        (lambda: Scale(low=1.2, high=0.8), "low before high"),
        (lambda: Intensity(scale=2.0), r"\[0, 1\]"),
        (lambda: Gamma(low=0.0), "low before high"),
        (lambda: Noise(sigma=(0.3, 0.1)), "low before high"),
        (lambda: Blur(sigma=-1.0), "0.0 or more"),
        (lambda: seen(Noise(bank=100), images()), "at least the 1680 samples"),
        (lambda: CutOut(fraction=(0.5, 1.2)), "1 or less"),
        (lambda: seen(Crop(size=11), images()), "does not fit"),
        (lambda: seen(Crop(size=(4, 4)), images()), "does not fit"),
        (lambda: seen(Flip(axes=(2,)), images(sides=(8, 8))), "axis 2"),
    ],
)
def test_a_mistake_is_refused(make, message):
    with pytest.raises(ComponentError, match=message):
        make()
