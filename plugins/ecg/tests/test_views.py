"""Properties of every view generator of the pack, then what each promises."""

import pytest
import torch

from counterpoint.batch import View
from counterpoint.errors import ComponentError, CounterpointError
from counterpoint.randomness import Draw
from counterpoint.views.series import interpolate, smooth
from counterpoint.views.signal import Crop, Noise, TimeMask
from counterpoint_ecg.views.amplitude import BaselineWander, Invert, MagnitudeWarp, Scale
from counterpoint_ecg.views.leads import LeadDrop, LeadPermutation
from counterpoint_ecg.views.timing import Permutation, TimeReverse, TimeWarp
from counterpoint_ecg.views.windows import CropResize

SAME_SHAPE = {
    "crop_resize": CropResize(),
    "time_mask": TimeMask(),
    "time_mask_seconds": TimeMask(seconds=(0.1, 0.5), rate=100.0),
    "noise": Noise(snr_db=10.0),
    "noise_range": Noise(snr_db=(5.0, 20.0)),
    "noise_sigma": Noise(sigma=(0.0, 0.2)),
    "noise_bank": Noise(snr_db=10.0, bank=4096),
    "scale": Scale(),
    "scale_per_lead": Scale(per_lead=True),
    "magnitude_warp": MagnitudeWarp(),
    "baseline_wander": BaselineWander(rate=100.0),
    "baseline_wander_cycles": BaselineWander(cycles=(0.5, 5.0)),
    "invert": Invert(),
    "time_warp": TimeWarp(),
    "time_warp_per_lead": TimeWarp(per_lead=True),
    "time_reverse": TimeReverse(),
    "permutation": Permutation(),
    "lead_drop": LeadDrop(),
    "lead_permutation": LeadPermutation(),
}
CROPS = {
    "crop_samples": Crop(samples=50),
    "crop_seconds": Crop(seconds=0.5, rate=100.0),
    "crop_fraction": Crop(fraction=0.25),
}
EVERY = SAME_SHAPE | CROPS
every = pytest.mark.parametrize("name", EVERY)
same_shape = pytest.mark.parametrize("name", SAME_SHAPE)


def series(n: int = 6, channels: int = 3, length: int = 200, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(n, channels, length, generator=torch.Generator().manual_seed(1)).to(dtype)


def view_of(data, mask=None) -> View:
    return View("ecg", data, torch.arange(len(data)), mask)


def seen(name: str, data, ids=None, seed: int = 3, mask=None) -> View:
    ids = torch.arange(len(data)) + 100 if ids is None else torch.as_tensor(ids)
    return EVERY[name](view_of(data, mask), Draw(seed, ids))


@same_shape
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_dtype_and_row_are_kept(name, dtype):
    data = series(dtype=dtype)
    out = seen(name, data)
    assert out.data.shape == data.shape and out.data.dtype == dtype
    assert torch.equal(out.row, torch.arange(6)) and torch.isfinite(out.data).all()


@every
def test_input_is_untouched(name):
    data = series()
    before = data.clone()
    view = view_of(data)
    out = EVERY[name](view, Draw(0, torch.arange(6)))
    assert torch.equal(data, before) and view.data is data and view.meta == {} and out is not view


@every
def test_identical_rows_with_different_ids_differ(name):
    out = seen(name, series(1).expand(64, -1, -1)).data
    assert len({row.numpy().tobytes() for row in out}) > (
        1 if name in ("invert", "time_reverse", "lead_permutation") else 5
    )


@every
def test_identical_rows_with_the_same_id_agree(name):
    out = seen(name, series(1).expand(2, -1, -1), ids=[9, 9]).data
    assert torch.equal(out[0], out[1])


@every
def test_the_same_seed_gives_the_same_view_and_another_does_not(name):
    data = series(32)
    assert torch.equal(seen(name, data, seed=1).data, seen(name, data, seed=1).data)
    assert not torch.equal(seen(name, data, seed=1).data, seen(name, data, seed=2).data)


@every
def test_a_row_does_not_depend_on_the_batch_it_is_in(name):
    data, ids = series(8), torch.arange(8) * 7
    whole = seen(name, data, ids).data
    torch.testing.assert_close(seen(name, data[2:3], ids[2:3]).data, whole[2:3], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(seen(name, data.flip(0), ids.flip(0)).data.flip(0), whole, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in EVERY if name != "crop_fraction"])
def test_padding_does_not_change_a_series_and_stays_zero(name):
    short, channels = 120, 3
    data = torch.zeros(2, channels, 200)
    data[0], data[1, :, :short] = series(1)[0], series(1)[0, :, :short]
    mask = torch.arange(200) < torch.tensor([[200], [short]])
    padded = seen(name, data, ids=[4, 5], mask=mask)
    alone = seen(name, data[1:, :, :short], ids=[5])
    length = alone.data.shape[-1]
    torch.testing.assert_close(padded.data[1, :, :length], alone.data[0], rtol=1e-4, atol=1e-4)
    assert (padded.data[1, :, length:] == 0).all()


@every
def test_zero_rows_give_zero_rows(name):
    assert len(seen(name, series()[:0]).data) == 0


@same_shape
def test_probability_zero_changes_nothing(name):
    step, p = SAME_SHAPE[name], SAME_SHAPE[name].p
    step.p = 0.0
    try:
        assert torch.equal(seen(name, series()).data, series())
    finally:
        step.p = p


@pytest.mark.parametrize("name", ["crop_samples", "crop_seconds", "crop_fraction"])
def test_a_crop_is_the_window_that_meta_says(name):
    data = series(64)
    out = seen(name, data)
    assert out.data.shape == (64, 3, 50)
    for row, (start, stop) in enumerate(out.meta["window"].tolist()):
        assert torch.equal(out.data[row], data[row, :, start:stop])
    starts = out.meta["window"][:, 0]
    assert starts.min() < 30 and starts.max() > 120 and starts.max() <= 150


def test_crops_of_two_draws_differ_within_a_sample():
    data = series(16)
    draw = Draw(0, torch.arange(16))
    first, second = Crop(samples=50)(view_of(data), draw), Crop(samples=50)(view_of(data), draw)
    assert (first.meta["window"] != second.meta["window"]).any()


def test_a_crop_stays_within_the_real_samples():
    data = torch.arange(100.0).repeat(40, 1, 1)
    mask = (torch.arange(100) < 60).expand(40, -1)
    out = Crop(samples=50)(view_of(data, mask), Draw(0, torch.arange(40)))
    assert out.mask.all() and out.data.max() < 60


def test_a_series_of_varying_length_shorter_than_the_window_is_padded():
    out = Crop(samples=50)(view_of(series(2, length=30)), Draw(0, torch.arange(2)))
    assert out.data.shape == (2, 3, 50) and torch.equal(out.mask.sum(1), torch.tensor([30, 30]))
    assert torch.equal(out.data[..., :30], series(2, length=30)) and (out.data[..., 30:] == 0).all()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Crop(), "give one of seconds, samples, fraction; got none"),
        (lambda: Crop(samples=5, fraction=0.5), "got samples, fraction"),
        (lambda: Crop(seconds=8), "add its `rate: <Hz>`"),
        (lambda: Crop(fraction=1.5), "at most 1"),
        (lambda: Crop(samples=0), "above 0"),
        (lambda: Crop(samples=300, length=200), "300 samples is longer than the series, 200"),
        (lambda: TimeMask(seconds=(1.0, 2.0)), "add its `rate: <Hz>`"),
        (lambda: TimeMask(fraction=(0.5, 0.3)), "low before high"),
        (lambda: CropResize(low=0.0), "above 0"),
        (lambda: Noise(snr_db=(20.0, 10.0)), "low before high"),
        (lambda: BaselineWander(), "cycles"),
        (lambda: BaselineWander(cycles=(5.0, 1.0)), "low before high"),
        (lambda: TimeWarp(knots=1), "at least 2"),
        (lambda: MagnitudeWarp(knots=1), "at least 2"),
        (lambda: Permutation(segments=1), "at least 2"),
        (lambda: LeadDrop(drop=1.0), "below 1"),
    ],
)
def test_a_mistake_is_refused_when_the_view_is_built(make, message):
    with pytest.raises(ComponentError, match=message):
        make()


def test_a_fraction_of_padded_series_is_refused():
    mask = torch.arange(200).expand(6, -1) < 150
    with pytest.raises(CounterpointError, match="give seconds or samples"):
        seen("crop_fraction", series(), mask=mask)


def test_a_bank_shorter_than_the_series_is_refused():
    with pytest.raises(ComponentError, match="at least the 200 samples"):
        Noise(bank=64)(view_of(series()), Draw(0, torch.arange(6)))


@pytest.mark.parametrize("bank", [None, 1 << 17])
@pytest.mark.parametrize("snr_db", [0.0, 20.0])
def test_noise_has_the_ratio_asked_for_in_every_lead(snr_db, bank):
    data = series(4, 2, 20_000) * torch.tensor([1.0, 50.0])[:, None] + 300.0
    noise = Noise(snr_db=snr_db, bank=bank)(view_of(data), Draw(0, torch.arange(4))).data.double() - data.double()
    measured = 10 * torch.log10(data.double().var(-1) / noise.var(-1))
    torch.testing.assert_close(measured, torch.full_like(measured, snr_db), atol=0.2, rtol=0)


@pytest.mark.parametrize("bank", [None, 1 << 17])
def test_noise_is_independent_between_samples_and_leads(bank):
    data = torch.sin(torch.arange(4000.0)).repeat(8, 2, 1)
    noise = (Noise(snr_db=0.0, bank=bank)(view_of(data), Draw(0, torch.arange(8))).data - data).flatten(0, 1)
    off = torch.corrcoef(noise) - torch.eye(16)
    assert off.abs().max() < 0.1


def test_a_flat_lead_gets_no_noise():
    data = torch.full((2, 1, 200), 5.0)
    torch.testing.assert_close(Noise()(view_of(data), Draw(0, torch.arange(2))).data, data)


def test_noise_range_draws_a_ratio_for_every_lead():
    data = series(16, 2, 4000)
    noise = Noise(snr_db=(0.0, 20.0))(view_of(data), Draw(0, torch.arange(16))).data - data
    measured = 10 * torch.log10(data.var(-1) / noise.var(-1))
    assert measured.min() > -0.5 and measured.max() < 20.5 and measured.std() > 3


def test_scale_multiplies_a_sample_by_one_factor_and_per_lead_by_one_each():
    data = series(200)
    factor = seen("scale", data).data / data
    torch.testing.assert_close(factor, factor[:, :1, :1].expand_as(factor))
    assert abs(factor[:, 0, 0].mean() - 1) < 0.03 and abs(factor[:, 0, 0].std() - 0.1) < 0.03
    each = (seen("scale_per_lead", data).data / data)[..., 0]
    assert (each.std(1) > 0.001).all()


def test_magnitude_warp_is_a_smooth_positive_mean_one_factor():
    data = torch.ones(500, 2, 200)
    factor = MagnitudeWarp(sigma=0.2, knots=7)(view_of(data), Draw(0, torch.arange(500))).data
    assert abs(factor.mean() - 1) < 0.02 and abs(factor[..., 0].std() - 0.2) < 0.02
    assert factor.diff(dim=-1).abs().max() < 0.1 and not torch.equal(factor[:, 0], factor[:, 1])


def test_baseline_wander_is_slow_and_as_large_as_asked():
    data = series(50, 2, 2000) * 3
    wander = (
        BaselineWander(amplitude=0.5, hz=(0.1, 0.5), rate=100.0)(view_of(data), Draw(0, torch.arange(50))).data - data
    )
    power = torch.fft.rfft(wander - wander.mean(-1, keepdim=True)).abs().square()
    frequency = torch.fft.rfftfreq(2000, 1 / 100)
    assert (power[..., frequency <= 0.7].sum(-1) > 0.9 * power.sum(-1)).float().mean() > 0.95
    relative = wander.square().mean(-1).sqrt() / data.std(-1)
    assert relative.max() < 0.5 * 6**0.5 and 0.1 < relative.mean() < 0.4  # three waves in phase reach sqrt(6)


def test_hz_and_cycles_say_the_same():
    data, draw = series(4), lambda: Draw(0, torch.arange(4))
    by_rate = BaselineWander(hz=(0.5, 1.0), rate=100.0)(view_of(data), draw()).data
    by_cycles = BaselineWander(cycles=(1.0, 2.0))(view_of(data), draw()).data
    torch.testing.assert_close(by_rate, by_cycles)


def test_time_mask_sets_one_stretch_of_the_length_asked_for_to_the_mean():
    data = torch.randn(100, 2, 200, generator=torch.Generator().manual_seed(0)) + 3
    masked = TimeMask(fraction=(0.3, 0.5))(view_of(data), Draw(0, torch.arange(100))).data
    gone = (masked - data).abs() > 1e-5
    level = data.mean(-1, keepdim=True).expand_as(data)
    torch.testing.assert_close(masked[gone], level[gone], rtol=0, atol=1e-5)
    gone = (masked - level).abs() < 1e-5
    assert torch.equal(gone[:, 0], gone[:, 1])
    count, edges = gone[:, 0].sum(1), gone[:, 0].int().diff(dim=1).abs().sum(1)
    assert count.min() >= 60 and count.max() <= 100 and edges.max() <= 2 and len(count.unique()) > 10


def test_lead_drop_drops_whole_leads_and_never_all():
    data = torch.ones(500, 3, 20)
    out = LeadDrop(drop=0.9)(view_of(data), Draw(0, torch.arange(500))).data
    kept = out[..., 0] == 1
    assert torch.equal(out, kept[..., None].expand_as(out).float()) and kept.any(1).all()
    half = LeadDrop(drop=0.5)(view_of(torch.ones(2000, 12, 2)), Draw(0, torch.arange(2000))).data.mean()
    assert abs(half - 0.5) < 0.02
    assert (LeadDrop(drop=0.9)(view_of(torch.ones(50, 1, 5)), Draw(0, torch.arange(50))).data == 1).all()


@pytest.mark.parametrize("name", ["permutation", "time_reverse", "lead_permutation"])
def test_a_reordering_keeps_every_value(name):
    data = series()
    out = seen(name, data).data
    assert torch.equal(out.flatten(1).sort(1).values, data.flatten(1).sort(1).values)
    if name != "lead_permutation":
        assert torch.equal(out.sort(-1).values, data.sort(-1).values)


@pytest.mark.parametrize("length, segments", [(200, 5), (203, 7), (3, 5)])
def test_permutation_moves_whole_segments(length, segments):
    data = torch.arange(float(length)).repeat(30, 2, 1)
    out = Permutation(segments=segments)(view_of(data), Draw(0, torch.arange(30))).data
    assert torch.equal(out[:, 0], out[:, 1])
    assert ((out.diff(dim=-1) != 1).sum(-1) <= segments - 1).all()
    assert torch.equal(out.sort(-1).values, data) and (out != data).any()


def test_time_reverse_reads_the_real_samples_backwards():
    data, mask = series(), torch.arange(200).expand(6, -1) < 150
    out = TimeReverse(p=1.0)(view_of(data, mask), Draw(0, torch.arange(6))).data
    assert torch.equal(out[..., :150], data[..., :150].flip(-1))


def test_time_warp_is_monotonic_and_keeps_the_ends():
    clock = torch.arange(200.0).repeat(100, 2, 1)
    out = TimeWarp(sigma=0.5)(view_of(clock), Draw(0, torch.arange(100))).data
    assert (out.diff(dim=-1) > 0).all() and torch.equal(out[:, 0], out[:, 1])
    torch.testing.assert_close(out[..., [0, -1]], clock[..., [0, -1]], atol=1e-3, rtol=0)
    assert (out - clock).abs().amax(-1).min() > 1.0
    apart = TimeWarp(sigma=0.5, per_lead=True)(view_of(clock), Draw(0, torch.arange(100))).data
    assert not torch.equal(apart[:, 0], apart[:, 1])


def test_no_warp_is_the_identity():
    data = series()
    torch.testing.assert_close(
        TimeWarp(sigma=0.0)(view_of(data), Draw(0, torch.arange(6))).data, data, atol=1e-3, rtol=0
    )
    torch.testing.assert_close(
        CropResize(low=1.0)(view_of(data), Draw(0, torch.arange(6))).data, data, atol=1e-3, rtol=0
    )


def test_crop_resize_is_a_straight_line_of_a_straight_line():
    clock = torch.arange(200.0).repeat(100, 1, 1)
    out = CropResize(low=0.5, high=0.8)(view_of(clock), Draw(0, torch.arange(100))).data[:, 0]
    steps = out.diff(dim=1)
    torch.testing.assert_close(steps, steps[:, :1].expand_as(steps), atol=1e-3, rtol=0)
    assert steps.min() >= 0.499 and steps.max() <= 0.801 and out.min() >= 0 and out.max() <= 199


def test_interpolation_agrees_with_a_loop():
    data, position = series(3, 2, 20), torch.rand(3, 1, 15, generator=torch.Generator().manual_seed(0)) * 19
    out = interpolate(data, position)
    for i, c, j in torch.cartesian_prod(torch.arange(3), torch.arange(2), torch.arange(15)).tolist():
        at = position[i, 0, j].item()
        left = int(at)
        plain = data[i, c, left] * (left + 1 - at) + data[i, c, min(left + 1, 19)] * (at - left)
        torch.testing.assert_close(out[i, c, j], plain, atol=1e-5, rtol=0)


def test_the_curve_goes_through_its_knots_and_is_exact_for_a_line():
    knots = series(4, 2, 7)
    torch.testing.assert_close(smooth(knots, torch.linspace(0, 1, 7)[None]), knots, atol=1e-5, rtol=0)
    line = torch.arange(7.0).expand(1, 1, -1)
    phase = torch.linspace(0, 1, 50)[None]
    torch.testing.assert_close(smooth(line, phase), phase[None] * 6, atol=1e-5, rtol=0)


def test_a_stretched_crop_reads_a_line_at_its_own_pace():
    """On a ramp, the slope of what comes out is the pace, and the window recorded is where it was read."""
    ramp = torch.arange(500.0).expand(64, 1, 500)
    out = Crop(samples=100, stretch=0.2)(view_of(ramp), Draw(0, torch.arange(64)))
    pace = out.data.diff(dim=-1)
    assert out.data.shape == (64, 1, 100) and out.mask is None
    torch.testing.assert_close(pace, pace[..., :1].expand_as(pace), rtol=0, atol=1e-3)
    assert 0.8 <= pace.min() < 0.85 and 1.15 < pace.max() <= 1.2001
    assert (out.meta["window"][:, 0] - out.data[:, 0, 0]).abs().max() <= 0.5
    short = Crop(samples=100, stretch=0.2)(view_of(ramp[:, :, :90]), Draw(0, torch.arange(64)))
    assert short.mask is not None and (short.data[~short.mask[:, None]] == 0).all() and short.mask[:, 0].all()


def test_noise_of_an_absolute_deviation():
    data = torch.randn(64, 1, 4000, generator=torch.Generator().manual_seed(0)) * 50
    noise = Noise(sigma=(0.5, 2.0))(view_of(data), Draw(0, torch.arange(64))).data - data
    deviation = noise.std(-1)
    assert 0.45 < deviation.min() < 0.7 and 1.7 < deviation.max() < 2.1
    with pytest.raises(ComponentError, match="snr_db or sigma, not both"):
        Noise(snr_db=20, sigma=0.1)


def test_an_evaluation_sees_the_whole_series_or_its_central_window():
    data = torch.arange(100.0).expand(2, 1, 100)
    assert torch.equal(Crop(samples=20).prepare(view_of(data)).data, data)
    centre = Crop(samples=20, evaluate="center").prepare(view_of(data))
    assert centre.mask is None and torch.equal(centre.data, data[..., 40:60])
    mask = torch.arange(100) < torch.tensor([[60], [10]])
    padded = Crop(samples=20, evaluate="center").prepare(view_of(data, mask))
    assert padded.data[0, 0, 0] == 20 and padded.mask[0].all() and padded.mask[1].sum() == 10
