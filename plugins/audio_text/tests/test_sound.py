"""The reader of sound files: every format, every way a file can be bad."""

import os
import struct

import numpy as np
import pytest
import soundfile
import torch

from counterpoint.data.guard import reading
from counterpoint.errors import ComponentError, DataError
from counterpoint_audio_text.readers.sound import Sound

RATE, SAMPLES = 16000, 8000
FORMATS = {
    ".wav": "PCM_16",
    ".flac": "PCM_16",
    ".ogg": "VORBIS",
    ".mp3": "MPEG_LAYER_III",
    ".aiff": "PCM_16",
    ".au": "PCM_16",
    ".caf": "PCM_16",
}
every = pytest.mark.parametrize("suffix", FORMATS)
LOSSY = (".ogg", ".mp3")


def tone(samples: int = SAMPLES, rate: int = RATE, channels: int = 1, hz: float = 440.0) -> np.ndarray:
    """float64 (samples, channels)."""
    wave = 0.5 * np.sin(2 * np.pi * hz * np.arange(samples) / rate)
    return np.repeat(wave[:, None], channels, axis=1)


def write(path, data=None, rate: int = RATE, subtype: str | None = None):
    soundfile.write(path, tone(rate=rate) if data is None else data, rate, subtype=subtype)
    return str(path)


def error_of(reader, path, how: str = "read") -> str:
    """What a user is told, through the guard."""
    with pytest.raises(DataError) as caught, reading(path):
        getattr(reader, how)(path)
    told = str(caught.value)
    assert "\n" not in told and os.path.basename(str(path)).encode("unicode_escape").decode()[:8] in told
    return told


@every
def test_a_file_gives_its_samples_and_its_header_the_same_facts(tmp_path, suffix):
    path = write(tmp_path / f"tone{suffix}", subtype=FORMATS[suffix])
    data, facts = Sound().read(path), Sound().facts(path)
    assert data.dtype == torch.float32 and data.shape == (1, facts["length"])
    assert facts == {"channels": 1, "rate": RATE, "length": data.shape[1]}
    wave = torch.from_numpy(tone().T).float()
    if suffix in LOSSY:
        assert data.shape[1] >= SAMPLES
        assert (data[:, :SAMPLES] - wave).square().mean() < 0.1 * wave.square().mean()
    else:
        torch.testing.assert_close(data, wave, atol=1e-4, rtol=0)


@every
@pytest.mark.parametrize("rate", [8000, 22050, 48000])
def test_resampling_keeps_the_tone_and_the_length_that_facts_say(tmp_path, suffix, rate):
    path = write(tmp_path / f"tone{suffix}", subtype=FORMATS[suffix])
    data, facts = Sound(rate=rate).read(path), Sound(rate=rate).facts(path)
    assert facts["rate"] == rate and data.shape == (1, facts["length"])
    spectrum = torch.fft.rfft(data[0] * torch.hann_window(data.shape[1])).abs()
    assert abs(int(spectrum.argmax()) * rate / data.shape[1] - 440) < 2 * rate / data.shape[1]


def test_channels_are_averaged(tmp_path):
    stereo = np.stack([tone()[:, 0], -0.5 * tone()[:, 0]], axis=1)
    data = Sound().read(write(tmp_path / "stereo.wav", stereo))
    torch.testing.assert_close(data, torch.from_numpy(0.25 * tone().T).float(), atol=1e-4, rtol=0)


@every
def test_a_window_is_a_random_stretch_or_the_beginning(tmp_path, suffix):
    """The sound is a ramp, so that a sample says where it stood."""
    ramp = np.linspace(-0.5, 0.5, SAMPLES)[:, None]
    path = write(tmp_path / f"ramp{suffix}", ramp, subtype=FORMATS[suffix])
    seconds = 0.1
    start = Sound(seconds=seconds, window="start").read(path)
    assert start.shape == (1, round(seconds * RATE)) and Sound(seconds=seconds).facts(path)["length"] == start.shape[1]
    whole = Sound().read(path)
    torch.testing.assert_close(start, whole[:, : start.shape[1]], atol=0.05, rtol=0)
    torch.random.manual_seed(0)
    import random

    random.seed(0)
    drawn = torch.stack([Sound(seconds=seconds).read(path)[0] for _ in range(8)])
    random.seed(0)
    again = torch.stack([Sound(seconds=seconds).read(path)[0] for _ in range(8)])
    assert torch.equal(drawn, again) and len(drawn[:, 800].unique()) == 8
    if suffix not in LOSSY:
        assert torch.allclose(drawn.diff(dim=1), torch.tensor(1.0 / (SAMPLES - 1)), atol=1e-4)


def test_a_file_shorter_than_the_window_is_read_whole(tmp_path):
    path = write(tmp_path / "short.wav")
    assert Sound(seconds=60).read(path).shape == (1, SAMPLES) == (1, Sound(seconds=60).facts(path)["length"])


def test_silence_is_a_sound(tmp_path):
    assert not Sound().read(write(tmp_path / "silence.wav", np.zeros(SAMPLES))).any()


@pytest.mark.parametrize("name", ["Grüße – звук.wav", "two words.flac", "sound.WAV"])
def test_any_name(tmp_path, name):
    path = write(tmp_path / name)
    assert Sound().reads(path) and Sound().read(path).shape == (1, SAMPLES)


@every
@pytest.mark.parametrize("how", ["read", "facts"])
def test_an_empty_file_and_one_that_is_something_else(tmp_path, suffix, how):
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(b"")
    assert "empty file" in error_of(Sound(), path, how)
    path.write_bytes(b"%PDF-1.4 this is a document and no sound at all" * 40)
    assert "not readable as sound: " in error_of(Sound(), path, how)
    path.write_bytes(np.random.default_rng(0).bytes(64))
    assert error_of(Sound(), path, how)


@every
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_file_is_refused(tmp_path, suffix, share):
    noise = np.random.default_rng(0).normal(
        0, 0.1, 4 * SAMPLES
    )  # noise does not compress: every part of it is in the file
    path = tmp_path / f"cut{suffix}"
    write(path, noise, subtype=FORMATS[suffix])
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert error_of(Sound(), path)


@every
def test_a_header_alone_is_refused(tmp_path, suffix):
    path = tmp_path / f"cut{suffix}"
    write(path, subtype=FORMATS[suffix])
    path.write_bytes(path.read_bytes()[:20])
    assert error_of(Sound(), path) and error_of(Sound(), path, "facts")


@every
def test_damage_never_crashes_and_never_gives_what_is_not_finite(tmp_path, suffix):
    """Every few bytes replaced by noise: refused, or finite samples."""
    rng = np.random.default_rng(1)
    path = tmp_path / f"damaged{suffix}"
    write(path, subtype=FORMATS[suffix])
    content = np.frombuffer(path.read_bytes(), np.uint8)
    for _ in range(20):
        damaged = content.copy()
        places = rng.integers(0, len(damaged), 12)
        damaged[places] = rng.integers(0, 256, len(places))
        path.write_bytes(damaged.tobytes())
        try:
            with reading(path):
                data = Sound(seconds=2).read(str(path))
        except DataError as error:
            assert "\n" not in str(error)
        else:
            assert data.ndim == 2 and torch.isfinite(data).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(tmp_path, value):
    data = tone()
    data[7] = value
    path = write(tmp_path / "nan.wav", data, subtype="FLOAT")
    assert "NaN or infinite" in error_of(Sound(), path)


@pytest.mark.parametrize(
    "count, words", [(0, "holds no samples"), (1, "too short: 1 samples at 16000 Hz, expected at least 0.01 s")]
)
@pytest.mark.parametrize("how", ["read", "facts"])
def test_no_samples_and_one(tmp_path, count, words, how):
    assert words in error_of(Sound(), write(tmp_path / "short.wav", tone(count)), how)


def test_a_header_that_claims_hours_does_not_cost_memory(tmp_path):
    """The whole is refused before it is held; a window of it is read."""
    path = tmp_path / "long.wav"
    with path.open("wb") as file:
        size = 1 << 30  # a sparse file: 37 hours at 8 bits, 4 GiB as floats
        head = struct.pack(
            "<4sI4s4sIHHIIHH4sI", b"RIFF", size + 36, b"WAVE", b"fmt ", 16, 1, 1, 8000, 8000, 1, 8, b"data", size
        )
        file.write(head)
        file.truncate(len(head) + size)
    assert "when decoded" in error_of(Sound(), path)
    assert Sound(seconds=0.5).read(str(path)).shape == (1, 4000)


def test_what_is_not_a_file_that_can_be_read(tmp_path):
    (tmp_path / "folder.wav").mkdir()
    assert "is a directory" in error_of(Sound(), tmp_path / "folder.wav")
    assert "no such file" in error_of(Sound(), tmp_path / "gone.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    assert "not a regular file" in error_of(Sound(), tmp_path / "pipe.wav")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission(tmp_path):
    path = write(tmp_path / "secret.wav")
    os.chmod(path, 0)
    assert "no permission" in error_of(Sound(), path)


def test_a_wav_whose_recorder_never_wrote_the_size_is_read(tmp_path):
    path = tmp_path / "stream.wav"
    write(path)
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert Sound().read(str(path)).shape[1] == SAMPLES


@pytest.mark.parametrize("parameters, words", [({"rate": 0}, "rate is in Hz"), ({"seconds": 0.0}, "at least 0.01")])
def test_a_mistake_is_refused_when_the_reader_is_built(parameters, words):
    with pytest.raises(ComponentError, match=words):
        Sound(**parameters)
