"""Properties of every view of the pack, then what each promises."""

import pytest
import torch

from counterpoint.batch import View
from counterpoint.errors import ComponentError, CounterpointError
from counterpoint.randomness import Draw
from counterpoint_video.views.clips import Clips, clip_starts, intervals
from counterpoint_video.views.colour import ColourJitter, Difference, Gain, Grey, Normalise
from counterpoint_video.views.space import Blur, CropResize, Flip

EVERY = {
    "crop_resize": CropResize(size=12),
    "flip": Flip(),
    "blur": Blur(p=1.0),
    "colour_jitter": ColourJitter(p=1.0),
    "grey": Grey(p=0.5),
    "gain": Gain(),
    "normalise": Normalise(),
    "difference": Difference(),
}
RANDOM = [name for name in EVERY if name not in ("normalise", "difference")]
STILL = [name for name in EVERY if name != "difference"]


def films(n: int = 5, frames: int = 6, side: int = 16, channels: int = 3, dtype=torch.float32) -> torch.Tensor:
    return torch.rand(n, channels, frames, side, side, generator=torch.Generator().manual_seed(1)).to(dtype)


def seen(step, data, ids=None, seed: int = 3, mask=None):
    step = EVERY.get(step, step) if isinstance(step, str) else step
    ids = torch.arange(len(data)) + 100 if ids is None else torch.as_tensor(ids)
    return step(View("video", data, torch.arange(len(data)), mask), Draw(seed, ids))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_rows_and_input_are_kept(name, dtype):
    data = films(dtype=dtype)
    before = data.clone()
    out = seen(name, data)
    assert out.data.dtype == dtype and torch.isfinite(out.data).all() and out.data.ndim == 5
    assert torch.equal(out.row, torch.arange(5)) and torch.equal(data, before)
    assert len(seen(name, data[:0]).data) == 0


@pytest.mark.parametrize("name", RANDOM)
def test_a_view_depends_on_seed_and_sample_alone(name):
    data = films(1).expand(32, -1, -1, -1, -1)
    out = seen(name, data).data
    assert len({row.numpy().tobytes() for row in out}) > (1 if name in ("flip", "grey") else 16)
    assert not torch.equal(out, seen(name, data, seed=4).data)
    same = seen(name, data[:2], ids=[9, 9]).data
    assert torch.equal(same[0], same[1])


@pytest.mark.parametrize("name", RANDOM)
def test_a_row_does_not_depend_on_the_batch_it_is_in(name):
    data, ids = films(6), torch.arange(6) * 7
    whole = seen(name, data, ids).data
    torch.testing.assert_close(seen(name, data[2:3], ids[2:3]).data, whole[2:3], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(seen(name, data.flip(0), ids.flip(0)).data.flip(0), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", STILL)
def test_one_draw_for_all_frames(name):
    """A film that stands still stands still afterwards."""
    out = seen(name, films(8, frames=1).expand(-1, -1, 5, -1, -1)).data
    torch.testing.assert_close(out, out[:, :, :1].expand_as(out), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", EVERY)
def test_grey_films_are_films(name, channels):
    assert seen(name, films(2, channels=channels)).data.shape[1] == channels


@pytest.mark.parametrize("name", ["crop_resize", "blur", "colour_jitter", "grey", "gain"])
def test_integers_are_refused_with_the_step_that_is_missing(name):
    with pytest.raises(CounterpointError, match=r"put video\.clips or video.normalise before it"):
        seen(name, films().mul(255).to(torch.uint8))


def test_a_flip_mirrors_all_frames_of_a_clip_or_none():
    data = films(64)
    out = seen(Flip(p=0.5), data).data
    flipped = (out == data.flip(-1)).flatten(1).all(1)
    assert ((out == data).flatten(1).all(1) ^ flipped).all() and 16 < flipped.sum() < 48


# Clips


def test_the_interval_has_the_linearly_decreasing_distribution():
    """P(interval = d) = F(d + 1) - F(d) with F(x) = 2 x / P - (x / P)^2, for every number of places."""
    u = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    for places in (1, 2, 7, 31):
        found = intervals(torch.full((len(u),), places), u).bincount(minlength=places) / len(u)
        edge = torch.arange(places + 1) / places
        torch.testing.assert_close(found, (2 * edge - edge**2).diff(), atol=2e-5, rtol=0, check_dtype=False)


def test_two_starts_are_within_their_places_and_in_either_order():
    places = torch.tensor([1, 2, 9]).repeat(4000)
    first, second = clip_starts(places, Draw(1, torch.arange(len(places))))
    assert (first >= 0).all() and (second >= 0).all() and (first < places).all() and (second < places).all()
    long = places == 9
    counts = (second - first)[long].abs().bincount(minlength=9) / 4000
    expected = (2 * torch.arange(10) / 9 - (torch.arange(10) / 9) ** 2).diff()
    assert (counts - expected).abs().max() < 0.03
    assert 0.45 < (first < second)[long & (first != second)].float().mean() < 0.55
    assert torch.equal(first[places == 1], torch.zeros(4000, dtype=torch.int64))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
def test_clips_are_spans_of_the_film_as_floats(dtype):
    frames = torch.arange(40).view(1, 1, 40, 1, 1).expand(6, 3, 40, 2, 2)
    views = seen(Clips(frames=5, stride=3), frames.to(dtype))
    assert Clips().layout(["raw"]) == ["global", "global"] == [view.role for view in views]
    for view in views:
        assert view.data.shape == (6, 3, 5, 2, 2) and view.data.dtype == torch.float32
        shown = view.data[:, 0, :, 0, 0] * (1 if dtype == torch.float32 else 255)
        torch.testing.assert_close(shown, (view.meta["start"][:, None] + torch.arange(5) * 3).float())
    assert not torch.equal(views[0].data, views[1].data)
    alone = seen(Clips(frames=5, stride=3), frames[2:3].to(dtype), ids=[102])
    assert torch.equal(alone[0].data, views[0].data[2:3]) and torch.equal(alone[1].data, views[1].data[2:3])


def test_a_short_or_padded_film_begins_again():
    frames = torch.arange(10.0).view(1, 1, 10, 1, 1).expand(2, 1, 10, 1, 1)
    mask = torch.arange(10) < torch.tensor([[10], [3]])
    view = seen(Clips(frames=8, stride=1), frames, mask=mask)[0]
    shown, start = view.data[:, 0, :, 0, 0].long(), view.meta["start"]
    assert torch.equal(shown[1], (start[1] + torch.arange(8)) % 3) and view.mask is None
    assert torch.equal(shown[0], start[0] + torch.arange(8))


def test_an_evaluation_sees_the_middle_or_the_whole():
    frames = torch.arange(21).view(1, 1, 21, 1, 1)
    raw = View("video", frames, torch.arange(1))
    middle = Clips(frames=5, stride=2).prepare(raw)
    assert (middle.data * 255).round().flatten().tolist() == [6, 8, 10, 12, 14]
    assert Clips(frames=5, stride=2, evaluate="whole").prepare(raw).data.shape[2] == 11


# Space and colour


def test_a_crop_shows_its_box():
    """Pixels that say where they are: the result's corners are half a step inside the box."""
    side, size = 64, 16
    place = torch.arange(float(side))
    data = torch.stack([place[:, None].expand(side, side), place.expand(side, side)])[None, :, None].expand(
        16, 2, 3, -1, -1
    )
    out = seen(CropResize(size=size, low=0.3, high=0.6), data.contiguous())
    top, left, high, wide = out.meta["box"].unbind(1)
    step = torch.arange(2, size - 2) + 0.5  # the triangle is cut at the borders
    torch.testing.assert_close(
        out.data[:, 0, 0, 2:-2, 0], top[:, None] + high[:, None] / size * step - 0.5, atol=0.1, rtol=0
    )
    torch.testing.assert_close(
        out.data[:, 1, 0, 0, 2:-2], left[:, None] + wide[:, None] / size * step - 0.5, atol=0.1, rtol=0
    )
    area = high * wide / side**2
    assert area.max() <= 0.6 + 1e-5 and area.min() >= 0.2 and (top + high).max() <= side + 1e-3


def test_preparation_resizes_the_whole_picture():
    data = films(2, side=32)
    out = CropResize(size=16).prepare(View("video", data, torch.arange(2))).data
    torch.testing.assert_close(out.mean((3, 4)), data.mean((3, 4)), atol=0.02, rtol=0)
    expected = torch.nn.functional.interpolate(data.flatten(0, 2)[:, None], size=16, mode="bilinear", antialias=True)
    torch.testing.assert_close(out.flatten(0, 2)[:, None], expected, atol=1e-5, rtol=1e-4)


def test_differences_are_motion_without_background():
    data = films(2, frames=1).repeat(1, 1, 4, 1, 1)
    assert (seen("difference", data).data == 0).all()
    data[:, :, 2:] += 0.5
    out = seen(Difference(gain=2.0), data).data
    assert out.shape[2] == 3 and (out[:, :, 1] - 1.0).abs().max() < 1e-5 and out[:, :, [0, 2]].abs().max() < 1e-5
    whole = Difference().prepare(View("video", (data * 100).to(torch.uint8), torch.arange(2))).data
    assert whole.is_floating_point() and whole.shape[2] == 3


def test_normalise_takes_pixels_to_mean_and_deviation():
    raw = torch.full((1, 3, 2, 4, 4), 255, dtype=torch.uint8)
    out = seen(Normalise(mean=[0.5, 0.4, 0.3], std=[0.5, 0.2, 0.1]), raw).data
    torch.testing.assert_close(out[0, :, 0, 0, 0], torch.tensor([1.0, 3.0, 7.0]))


def test_jitter_keeps_range_and_grey_stays_grey_under_hue_and_saturation():
    assert seen(ColourJitter(), films(16)).data.min() >= 0 and seen(ColourJitter(), films(16)).data.max() <= 1
    grey = films(4, channels=1).expand(-1, 3, -1, -1, -1)
    out = seen(ColourJitter(brightness=0, contrast=0, p=1.0), grey).data
    torch.testing.assert_close(out, grey, atol=1e-5, rtol=0)
    colours = films(4)
    assert (
        seen(ColourJitter(brightness=0, contrast=0, saturation=0, hue=0.5, p=1.0), colours).data - colours
    ).abs().max() > 0.1
    assert torch.equal(*seen(Grey(p=1.0), colours).data[:, :2].unbind(1))


def test_jitter_is_brightness_then_contrast_then_saturation():
    """Against the plain formulas, with the factors of the same draw."""
    data, ids = 0.4 + 0.1 * films(4), torch.arange(4)  # nothing reaches 0 or 1
    step = ColourJitter(brightness=0.2, contrast=0.2, saturation=0.5, hue=0.0, p=1.0)
    draw = Draw(3, ids)
    bright, contrast, saturation = (draw.uniform(low=1 - s, high=1 + s).view(4, 1, 1, 1, 1) for s in (0.2, 0.2, 0.5))
    grey = lambda x: (0.299 * x[:, 0] + 0.587 * x[:, 1] + 0.114 * x[:, 2])[:, None]  # noqa: E731
    wanted = data * bright
    level = grey(wanted).mean((1, 2, 3, 4), keepdim=True)
    wanted = level + contrast * (wanted - level)
    wanted = grey(wanted) + saturation * (wanted - grey(wanted))
    torch.testing.assert_close(seen(step, data, ids).data, wanted, rtol=1e-5, atol=1e-5)


def test_blur_keeps_the_mean_and_smooths():
    data = films(4, side=32)
    out = seen(Blur(low=2.0, high=2.0, p=1.0), data).data
    assert out.std() < 0.3 * data.std() and (out.mean() - data.mean()).abs() < 0.01


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Clips(frames=0), "at least 1"),
        (lambda: CropResize(low=0.0), "low <= high"),
        (lambda: Blur(low=3.0, high=1.0), "low <= high"),
        (lambda: ColourJitter(hue=2.0), "hue is in"),
        (lambda: Gain(most=0.5), "at least 1"),
        (lambda: Normalise(std=0.0), "above 0"),
        (lambda: seen(Difference(), films(frames=1)), "no motion"),
    ],
)
def test_a_mistake_is_refused(make, message):
    with pytest.raises(ComponentError, match=message):
        make()
