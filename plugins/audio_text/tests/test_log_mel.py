"""The log-mel spectrogram against librosa's, and its exactness for padded rows."""

import librosa
import numpy as np
import pytest
import torch

from counterpoint.batch import View
from counterpoint.errors import ComponentError, CounterpointError
from counterpoint.randomness import Draw
from counterpoint_audio_text.views.log_mel import LogMel


def wave(n: int = 3, length: int = 4000, seed: int = 1) -> torch.Tensor:
    data = 0.1 * torch.randn(n, 1, length, generator=torch.Generator().manual_seed(seed))
    return data + 0.3 * torch.sin(torch.arange(length) * 0.2)


def view_of(data, mask=None) -> View:
    return View("audio", data, torch.arange(len(data)), mask)


def librosas(row: np.ndarray, rate: int, mels: int, n_fft: int, window: int, hop: int, **limits) -> np.ndarray:
    power = librosa.feature.melspectrogram(
        y=row, sr=rate, n_fft=n_fft, win_length=window, hop_length=hop, n_mels=mels, **limits
    )
    return librosa.power_to_db(power, ref=1.0, amin=1e-10, top_db=80.0)


@pytest.mark.parametrize(
    "rate, mels, n_fft, window, hop, limits",
    [
        (8000, 40, 256, 200, 80, {"fmin": 60.0}),
        (16000, 64, 512, 400, 160, {}),
        (22050, 64, 1024, 551, 220, {"fmin": 50.0, "fmax": 8000.0}),
        (48000, 64, 2048, 1200, 480, {}),
    ],
)
@pytest.mark.parametrize("length", [4000, 4001, 517])
def test_it_is_librosas(rate, mels, n_fft, window, hop, limits, length):
    data = wave(length=length)
    step = LogMel(rate=rate, mels=mels, low=limits.get("fmin", 0.0), high=limits.get("fmax"), standardise=False)
    made = step.prepare(view_of(data)).data
    expected = np.stack([librosas(row, rate, mels, n_fft, window, hop, **limits) for row in data[:, 0].numpy()])
    assert made.shape == expected.shape == (3, mels, 1 + length // hop) and made.dtype == torch.float32
    np.testing.assert_allclose(made.numpy(), expected, atol=2e-2, rtol=0)
    assert np.abs(made.numpy() - expected).mean() < 1e-3


@pytest.mark.parametrize("standardise", [True, False])
def test_a_padded_row_is_what_it_is_alone(standardise):
    data, lengths = wave(), (4000, 2500, 161)
    mask = torch.arange(4000) < torch.tensor(lengths)[:, None]
    step = LogMel(rate=16000, standardise=standardise)
    batch = step.prepare(view_of(data.masked_fill(~mask[:, None], 9.0), mask))  # whatever stands in the padding
    for row, length in enumerate(lengths):
        alone = step.prepare(view_of(data[row : row + 1, :, :length])).data
        frames = alone.shape[2]
        assert batch.mask[row].sum() == frames and batch.mask[row, :frames].all()
        torch.testing.assert_close(batch.data[row, :, :frames], alone[0], atol=1e-4, rtol=1e-4)
        assert (batch.data[row, :, frames:] == 0).all()


def test_standardised_rows_have_mean_0_and_deviation_1_and_no_loudness():
    data = wave()
    step = LogMel(rate=16000)
    made = step.prepare(view_of(data)).data
    torch.testing.assert_close(made.mean((1, 2)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(made.std((1, 2), correction=0), torch.ones(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(step.prepare(view_of(0.1 * data)).data, made, atol=1e-3, rtol=0)


def test_silence_is_finite():
    for standardise in (True, False):
        made = LogMel(rate=16000, standardise=standardise).prepare(view_of(torch.zeros(2, 1, 1000))).data
        assert torch.isfinite(made).all()


def test_training_and_evaluation_see_the_same_and_the_input_is_untouched():
    data = wave()
    before, view, step = data.clone(), view_of(data), LogMel(rate=16000)
    assert torch.equal(step(view, Draw(0, torch.arange(3))).data, step.prepare(view).data)
    assert torch.equal(data, before) and view.data is data


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_is_kept_and_zero_rows_give_zero_rows(dtype):
    step = LogMel(rate=16000)
    assert step.prepare(view_of(wave().to(dtype))).data.dtype == dtype
    assert step.prepare(view_of(wave()[:0])).data.shape == (0, 64, 26)


def test_mixed_precision_does_not_coarsen_it():
    step = LogMel(rate=16000)
    plain = step.prepare(view_of(wave())).data
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(step.prepare(view_of(wave())).data, plain)


def test_mistakes_are_refused():
    with pytest.raises(ComponentError, match="bands hold no frequency at 8000 Hz; take fewer `mels`"):
        LogMel(rate=8000, mels=200)
    with pytest.raises(ComponentError, match="must span samples"):
        LogMel(rate=10)
    with pytest.raises(CounterpointError, match=r"expected waveforms \(n, 1, samples\); got \(2, 3, 100\)"):
        LogMel(rate=16000).prepare(view_of(torch.zeros(2, 3, 100)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same():
    step = LogMel(rate=16000)
    here = step.prepare(view_of(wave())).data
    there = step.to("cuda").prepare(view_of(wave()).to("cuda")).data
    torch.testing.assert_close(there.cpu(), here, atol=1e-3, rtol=1e-3)
