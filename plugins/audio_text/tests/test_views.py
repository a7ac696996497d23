"""Properties of every augmentation of the pack, then what each promises."""

import pytest
import torch

from counterpoint.batch import View
from counterpoint.errors import ComponentError
from counterpoint.randomness import Draw
from counterpoint_audio_text.views.gain import Gain
from counterpoint_audio_text.views.spec_augment import FrequencyMask, TimeMask
from counterpoint_audio_text.views.speed import Speed

SAME_SHAPE = {"gain": Gain(), "time_mask": TimeMask(), "frequency_mask": FrequencyMask()}
EVERY = SAME_SHAPE | {"speed": Speed()}
every = pytest.mark.parametrize("name", EVERY)
same_shape = pytest.mark.parametrize("name", SAME_SHAPE)


def spectrograms(n: int = 6, bands: int = 40, frames: int = 120, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(n, bands, frames, generator=torch.Generator().manual_seed(1)).to(dtype)


def seen(step, data, ids=None, seed: int = 3, mask=None) -> View:
    step = EVERY.get(step, step) if isinstance(step, str) else step
    ids = torch.arange(len(data)) + 100 if ids is None else torch.as_tensor(ids)
    return step(View("audio", data, torch.arange(len(data)), mask), Draw(seed, ids))


@same_shape
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_dtype_row_and_input_are_kept(name, dtype):
    data = spectrograms(dtype=dtype)
    before = data.clone()
    out = seen(name, data)
    assert out.data.shape == data.shape and out.data.dtype == dtype and torch.isfinite(out.data).all()
    assert torch.equal(out.row, torch.arange(6)) and torch.equal(data, before)


@every
def test_identical_rows_differ_by_their_ids_alone(name):
    data = spectrograms(1).expand(64, -1, -1)
    assert len({row.numpy().tobytes() for row in seen(name, data).data}) > 32
    same = seen(name, data[:2], ids=[9, 9]).data
    assert torch.equal(same[0], same[1])


@every
def test_the_same_seed_gives_the_same_view_and_another_does_not(name):
    data = spectrograms(32)
    assert torch.equal(seen(name, data, seed=1).data, seen(name, data, seed=1).data)
    assert not torch.equal(seen(name, data, seed=1).data, seen(name, data, seed=2).data)


@every
def test_a_row_does_not_depend_on_the_batch_it_is_in(name):
    data, ids = spectrograms(8), torch.arange(8) * 7
    whole = seen(name, data, ids).data
    torch.testing.assert_close(seen(name, data[2:3], ids[2:3]).data, whole[2:3], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(seen(name, data.flip(0), ids.flip(0)).data.flip(0), whole, rtol=1e-6, atol=1e-6)


@every
def test_padding_does_not_change_a_row_and_stays_zero(name):
    short = 70
    data = spectrograms(2)
    mask = torch.arange(120) < torch.tensor([[120], [short]])
    data = data.masked_fill(~mask[:, None], 0.0)
    padded = seen(name, data, ids=[4, 5], mask=mask).data
    alone = seen(name, data[1:, :, :short], ids=[5]).data
    length = alone.shape[2]
    torch.testing.assert_close(padded[1, :, :length], alone[0], rtol=1e-5, atol=1e-6)
    assert (padded[1, :, length:] == 0).all()


@every
def test_zero_rows_give_zero_rows(name):
    assert len(seen(name, spectrograms()[:0]).data) == 0


@same_shape
def test_probability_zero_changes_nothing(name):
    step = type(EVERY[name])(p=0.0)
    assert torch.equal(seen(step, spectrograms()).data, spectrograms())


def test_gain_is_within_its_decibels():
    data = spectrograms(256)
    factor = (seen(Gain(low=-6, high=0), data).data / data)[:, 0, 0]
    assert factor.max() <= 1.0 and factor.min() >= 10 ** (-6 / 20) - 1e-6 and factor.std() > 0.1


def test_masks_are_whole_stretches_of_the_mean_within_their_width():
    data = spectrograms(256)
    mean = data.mean((1, 2), keepdim=True)
    bands = (seen(FrequencyMask(width=8, count=1), data).data == mean).float()
    assert torch.equal(bands.amin(2), bands.amax(2))  # the same in every frame
    frames = (seen(TimeMask(width=20, count=1, most=0.5), data).data == mean).float()
    assert torch.equal(frames.amin(1), frames.amax(1))
    for hidden, width in ((bands[:, :, 0], 8), (frames[:, 0], 20)):
        counts = hidden.sum(1)
        assert counts.min() == 0 and counts.max() == width and (hidden.diff(dim=1) == 1).sum(1).max() <= 1
        assert hidden[:, :3].any() and hidden[:, -3:].any()  # both ends can be reached


def test_a_time_mask_is_at_most_its_part_of_a_short_row():
    data = spectrograms(200, frames=10)
    hidden = (seen(TimeMask(width=20, count=1, most=0.2), data).data == data.mean((1, 2), keepdim=True))[:, 0]
    assert hidden.sum(1).max() == 2


def test_speed_moves_a_tone_and_its_length_by_one_factor():
    tone = torch.sin(torch.arange(4000) * 0.2).expand(64, 1, -1)
    out = seen(Speed(low=0.8, high=1.25), tone)
    lengths = out.mask.sum(1)
    assert lengths.min() < 3400 and lengths.max() > 4600 and out.data.shape[2] == 1 + 3999 * 10 // 8
    for row, length in zip(out.data[:, 0], lengths):
        crossings = ((row[: length - 1] < 0) & (row[1:length] >= 0)).sum()
        assert abs(int(crossings) - 0.2 * 4000 / (2 * torch.pi)) <= 2  # as many periods as before
    view = View("audio", tone, torch.arange(64))
    assert Speed().prepare(view) is view


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Gain(low=3, high=-3), "low must be at most high"),
        (lambda: Speed(low=0.0), "expected 0 < low <= high"),
        (lambda: TimeMask(width=0), "at least 1"),
        (lambda: FrequencyMask(count=0), "at least 1"),
        (lambda: TimeMask(most=1.5), r"fraction in \(0, 1\]"),
    ],
)
def test_a_mistake_is_refused(make, message):
    with pytest.raises(ComponentError, match=message):
        make()
