"""Properties of every view generator of the pack."""

import pytest
import torch

from counterpoint.batch import View
from counterpoint.errors import ComponentError
from counterpoint.randomness import Draw
from counterpoint_points3d.views.moves import Flip, Jitter, Rotate, Scale, Translate
from counterpoint_points3d.views.selections import Crop, Dropout, Subsample

MAKERS = {
    "rotate": lambda: Rotate(normals=True),
    "rotate_z": lambda: Rotate(degrees=30, up="z"),
    "flip": lambda: Flip(normals=True),
    "scale": lambda: Scale(),
    "scale_axes": lambda: Scale(per_axis=True, normals=True),
    "translate": lambda: Translate(),
    "jitter": lambda: Jitter(),
    "jitter_bank": lambda: Jitter(bank=4096),
    "dropout": lambda: Dropout(),
    "crop": lambda: Crop(),
    "crop_viewpoint": lambda: Crop(how="viewpoint", p=0.7),
    "subsample": lambda: Subsample(points=50),
}
every = pytest.mark.parametrize("name", MAKERS)
same_shape = pytest.mark.parametrize("name", [name for name in MAKERS if name != "subsample"])


def clouds(n: int = 6, points: int = 120) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(n, 6, points, generator=generator)
    data[:, 3:] /= data[:, 3:].norm(dim=1, keepdim=True)
    return data


def view_of(data: torch.Tensor, mask: torch.Tensor | None = None) -> View:
    return View("shape", data, torch.arange(len(data)), mask)


def seen(name: str, data: torch.Tensor, ids=None, mask=None, seed: int = 0) -> View:
    ids = torch.arange(len(data)) if ids is None else torch.as_tensor(ids)
    return MAKERS[name]()(view_of(data, mask), Draw(seed, ids))


@every
def test_input_is_untouched_and_output_is_finite_and_of_its_type(name):
    data = clouds()
    before = data.clone()
    out = seen(name, data).data
    assert torch.equal(data, before) and out.dtype == data.dtype and torch.isfinite(out).all()
    assert seen(name, data.double()).data.dtype == torch.float64


@same_shape
def test_shape_is_kept(name):
    assert seen(name, clouds()).data.shape == (6, 6, 120)


@every
def test_rows_draw_for_themselves(name):
    out = seen(name, clouds(1).expand(64, -1, -1)).data
    assert len({row.numpy().tobytes() for row in out}) > (1 if name == "flip" else 30)


@every
def test_the_same_seed_gives_the_same_view_and_another_does_not(name):
    data = clouds(32)
    assert torch.equal(seen(name, data, seed=1).data, seen(name, data, seed=1).data)
    assert not torch.equal(seen(name, data, seed=1).data, seen(name, data, seed=2).data)


@every
def test_a_row_is_the_same_alone_and_in_any_batch(name):
    data, ids = clouds(8), torch.arange(8) * 7
    whole = seen(name, data, ids).data
    assert torch.equal(seen(name, data[2:3], ids[2:3]).data, whole[2:3])
    assert torch.equal(seen(name, data.flip(0), ids.flip(0)).data.flip(0), whole)


@every
@pytest.mark.parametrize("short, long", [(100, 200), (30, 140), (60, 70)])
def test_padding_does_not_change_a_cloud_and_stays_zero(name, short, long):
    data = torch.zeros(2, 6, long)
    data[0], data[1, :, :short] = clouds(1, long)[0], clouds(1, short)[0]
    mask = torch.arange(long) < torch.tensor([[long], [short]])
    padded, alone = seen(name, data, ids=[4, 5], mask=mask), seen(name, data[1:, :, :short], ids=[5])
    count = alone.data.shape[-1]
    torch.testing.assert_close(padded.data[1, :, :count], alone.data[0], rtol=1e-6, atol=1e-6)
    assert (padded.data[1, :, count:] == 0).all()
    if padded.mask is not None:
        assert int(padded.mask[1].sum()) == min(short, count)


@every
def test_zero_rows_give_zero_rows(name):
    assert len(seen(name, clouds()[:0]).data) == 0


@every
def test_one_point_is_enough(name):
    assert torch.isfinite(seen(name, clouds(4, 1)).data).all()


@same_shape
def test_probability_zero_changes_nothing(name):
    step = MAKERS[name]()
    step.p = 0.0
    assert torch.equal(step(view_of(clouds()), Draw(0, torch.arange(6))).data, clouds())


@pytest.mark.parametrize("up, axis", [("x", 0), ("y", 1), ("z", 2)])
def test_rotation_keeps_heights_distances_and_handedness_and_turns_normals_along(up, axis):
    data = clouds(200)
    out = Rotate(up=up, normals=True)(view_of(data), Draw(0, torch.arange(200))).data
    for start in (0, 3):
        before, after = data[:, start : start + 3], out[:, start : start + 3]
        assert torch.equal(after[:, axis], before[:, axis])
        for step in (1, 7, 50):
            apart = [(points - points.roll(step, 2)).norm(dim=1) for points in (before, after)]
            torch.testing.assert_close(*apart, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        (out[:, :3] * out[:, 3:]).sum(1), (data[:, :3] * data[:, 3:]).sum(1), atol=1e-5, rtol=1e-4
    )
    sign = torch.linalg.det(out[:, :3, :3]).sign() * torch.linalg.det(data[:, :3, :3]).sign()
    assert (sign > 0).all()
    a, b = ((axis + step) % 3 for step in (1, 2))
    angle = torch.atan2(out[:, b, 0], out[:, a, 0]) - torch.atan2(data[:, b, 0], data[:, a, 0])
    assert torch.sin(angle).max() > 0.95 and torch.cos(angle).min() < -0.95


def test_a_bounded_rotation_stays_within_its_bound():
    data = clouds(300)
    out = Rotate(degrees=15)(view_of(data), Draw(0, torch.arange(300))).data
    turned = torch.atan2(out[:, 2, 0], out[:, 0, 0]) - torch.atan2(data[:, 2, 0], data[:, 0, 0])
    degrees = torch.rad2deg(torch.atan2(turned.sin(), turned.cos())).abs()
    assert degrees.max() <= 15.01 and degrees.max() > 13
    assert torch.equal(out[:, 3:], data[:, 3:])  # nobody said that they are normals


def test_a_flip_turns_one_sign():
    data = clouds()
    out = Flip(axis="z", normals=True, p=1.0)(view_of(data), Draw(0, torch.arange(6))).data
    assert torch.equal(out, data * torch.tensor([1.0, 1, -1, 1, 1, -1])[:, None])


def test_scale_is_one_factor_or_one_an_axis_within_its_bounds():
    data = clouds(300)
    factor = Scale(low=0.5, high=2.0)(view_of(data), Draw(0, torch.arange(300))).data[:, :3] / data[:, :3]
    torch.testing.assert_close(factor, factor[:, :1, :1].expand_as(factor), rtol=1e-4, atol=1e-4)
    assert 0.499 < factor.min() < 0.55 and 1.85 < factor.max() < 2.001
    each = Scale(per_axis=True)(view_of(data), Draw(0, torch.arange(300))).data[:, :3] / data[:, :3]
    assert (each[..., 0].std(1) > 0.001).all()


def test_normals_stay_perpendicular_to_a_surface_that_is_scaled():
    """On a plane with normal v, every difference of two points is perpendicular to v, also after the scaling."""
    normal = torch.nn.functional.normalize(torch.tensor([1.0, 2.0, 3.0]), dim=0)
    points = torch.randn(40, 3, 80, generator=torch.Generator().manual_seed(0))
    points = points - normal[:, None] * (points * normal[:, None]).sum(1, keepdim=True)
    data = torch.cat([points, normal[:, None].expand(40, 3, 80)], 1)
    out = Scale(low=0.5, high=2.0, per_axis=True, normals=True)(view_of(data), Draw(0, torch.arange(40))).data
    assert (out[:, :3] * out[:, 3:]).sum(1).abs().max() < 1e-5
    torch.testing.assert_close(out[:, 3:].norm(dim=1), torch.ones(40, 80))


def test_translation_moves_all_points_alike_by_at_most_its_reach():
    data = clouds(200)
    step = Translate(reach=0.2)(view_of(data), Draw(0, torch.arange(200))).data[:, :3] - data[:, :3]
    torch.testing.assert_close(step, step[..., :1].expand_as(step), atol=1e-5, rtol=0)
    relative = step[..., 0] / data[:, :3].norm(dim=1).amax(1, keepdim=True)
    assert relative.abs().max() <= 0.2001 and relative.abs().max() > 0.18


@pytest.mark.parametrize("bank", [None, 1 << 16])
def test_jitter_is_independent_between_clouds_and_coordinates(bank):
    data = torch.ones(8, 3, 4000)
    noise = (Jitter(bank=bank)(view_of(data), Draw(0, torch.arange(8))).data - data).flatten(0, 1)
    assert (torch.corrcoef(noise) - torch.eye(24)).abs().max() < 0.1


def test_jitter_is_clipped_and_relative_to_the_size():
    data = clouds(50, 2000)
    data[:, :3] *= 7.0
    noise = Jitter(sigma=0.02, clip=0.05)(view_of(data), Draw(0, torch.arange(50))).data - data
    relative = noise[:, :3] / data[:, :3].norm(dim=1).amax(1)[:, None, None]
    assert relative.abs().max() <= 0.0501 and abs(relative.std() - 0.0195) < 0.001
    assert torch.equal(noise[:, 3:], torch.zeros_like(noise[:, 3:]))


def distinct(cloud: torch.Tensor) -> set[bytes]:
    return {point.numpy().tobytes() for point in cloud.T.contiguous()}


@pytest.mark.parametrize("name", ["dropout", "crop", "crop_viewpoint", "subsample"])
def test_what_is_kept_are_points_of_the_cloud(name):
    data = clouds(20)
    for before, after in zip(data, seen(name, data).data):
        assert distinct(after) <= distinct(before)


@pytest.mark.parametrize(
    "make, spread", [(lambda: Dropout(low=0.25, high=0.5), 20), (lambda: Crop(low=0.25, high=0.5), 0)]
)
def test_the_share_that_goes_is_within_its_bounds(make, spread):
    out = make()(view_of(clouds(100)), Draw(0, torch.arange(100))).data
    kept = torch.tensor([len(distinct(cloud)) for cloud in out])
    assert kept.min() >= 60 - spread and kept.max() <= 90 + spread and kept.min() < 66 and kept.max() > 84


def test_points_that_stay_share_the_places_of_those_that_go():
    out = Dropout(low=0.5, high=0.5)(view_of(clouds(20)), Draw(0, torch.arange(20))).data
    for cloud in out:
        times = torch.unique(cloud, dim=1, return_counts=True)[1]
        assert times.max() - times.min() <= 1


def test_nothing_is_left_out_completely():
    out = Dropout(low=1.0, high=1.0)(view_of(clouds()), Draw(0, torch.arange(6))).data
    assert all(len(distinct(cloud)) == 1 for cloud in out)


def test_a_plane_parts_what_stays_from_what_goes():
    """The hull of what stays does not hold a point that went: some direction separates them."""
    data = clouds(12, 400)
    for before, after in zip(data, Crop(low=0.3, high=0.3)(view_of(data), Draw(3, torch.arange(12))).data):
        stays = distinct(after)
        there = torch.tensor([point.numpy().tobytes() in stays for point in before.T.contiguous()])
        target, points = there.double() * 2 - 1, torch.cat([before[:3], torch.ones(1, 400)]).double()
        direction = torch.zeros(4, dtype=torch.float64)
        for _ in range(2000):  # the perceptron ends when and only when a plane separates them
            wrong = (direction @ points) * target <= 0
            if not wrong.any():
                break
            direction += (points * target)[:, wrong].mean(1)
        assert int(wrong.sum()) <= 4 and int(there.sum()) == 280


def test_a_viewpoint_hides_the_points_nearest_to_it():
    """On a sphere, what goes is a cap: all of it is nearer to its own middle than what stays."""
    points = torch.nn.functional.normalize(torch.randn(8, 3, 1000, generator=torch.Generator().manual_seed(0)), dim=1)
    for before, after in zip(
        points, Crop(low=0.2, high=0.2, how="viewpoint")(view_of(points), Draw(0, torch.arange(8))).data
    ):
        stays = distinct(after)
        there = torch.tensor([point.numpy().tobytes() in stays for point in before.T.contiguous()])
        middle = torch.nn.functional.normalize(before[:, ~there].mean(1), dim=0)
        height = middle @ before
        assert height[~there].min() > height[there].max() - 0.2


def test_subsample_draws_other_points_for_every_copy_and_shows_all_to_an_evaluation():
    data, draw = clouds(4), Draw(0, torch.arange(4))
    step = Subsample(points=50)
    first, second = step(view_of(data), draw), step(view_of(data), draw)
    assert first.data.shape == (4, 6, 50) and not torch.equal(first.data, second.data)
    assert all(len(distinct(cloud)) == 50 for cloud in first.data)
    assert torch.equal(step.prepare(view_of(data)).data, data)
    assert torch.equal(Subsample(points=500)(view_of(data), draw).data, data)


def test_subsample_takes_real_points_first():
    mask = torch.arange(120).expand(6, -1) < 30
    out = Subsample(points=50)(view_of(clouds().masked_fill(~mask[:, None], 0), mask), Draw(0, torch.arange(6)))
    assert torch.equal(out.mask, torch.arange(50).expand(6, -1) < 30) and (out.data[..., 30:] == 0).all()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Rotate(degrees=200), "degrees must be .* 0 to 180; got 0.0, 200"),
        (lambda: Scale(low=0.0), "above 0"),
        (lambda: Scale(low=2.0, high=1.0), "low before high"),
        (lambda: Translate(reach=-1.0), "reach"),
        (lambda: Jitter(sigma=0.1, clip=0.05), "below clip"),
        (lambda: Jitter(bank=64)(view_of(clouds()), Draw(0, torch.arange(6))), "at least the 120 samples"),
        (lambda: Dropout(low=0.5, high=0.2), "low before high"),
        (lambda: Crop(high=1.5), "to 1"),
        (lambda: Subsample(points=2), "4 or more"),
    ],
)
def test_a_mistake_is_refused_when_the_view_is_built(make, message):
    with pytest.raises(ComponentError, match=message):
        make()
