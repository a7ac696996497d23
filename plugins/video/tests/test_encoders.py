"""Encoders: the shape they say, a gradient for every parameter, and their mistakes."""

import pytest
import torch

from counterpoint.errors import ComponentError, DataError
from counterpoint_video.encoders.pixels import Pixels
from counterpoint_video.encoders.r2plus1d import R2Plus1d
from counterpoint_video.encoders.r3d import r3d_18
from counterpoint_video.encoders.videomae import videomae

TINY = {"size": 16, "frames": 4, "patch": 8, "width": 24, "depth": 2, "heads": 3}
MAKE = {
    "r2plus1d": lambda channels: R2Plus1d(channels=channels, width=8),
    "r2plus1d mean_max": lambda channels: R2Plus1d(channels=channels, width=8, pool="mean_max"),
    "r3d_18": lambda channels: r3d_18(channels=channels),
    "videomae": lambda channels: videomae(channels=channels, **TINY),
}


def clips(n: int = 3, channels: int = 3, frames: int = 4, side: int = 16) -> torch.Tensor:
    return torch.randn(n, channels, frames, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", MAKE)
def test_shape_width_and_a_gradient_for_every_parameter(name, channels):
    torch.manual_seed(0)
    encoder = MAKE[name](channels)
    out = encoder(clips(channels=channels))
    h = out.h
    assert h.shape == (3, encoder.width)
    (h * torch.randn_like(h)).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() and p.grad.any() for p in encoder.parameters())
    width = getattr(encoder, "token_width", encoder.width)
    assert encoder.gives == {"tokens"} and out.tokens.shape == (3, 8 if name == "videomae" else 1, width)
    torch.testing.assert_close(out.tokens.mean(1), h[:, :width])


@pytest.mark.parametrize("name", ["r2plus1d", "r3d_18"])
def test_convolutions_take_any_length_and_size(name):
    encoder = MAKE[name](3).eval()
    for frames, side in ((1, 16), (7, 20), (9, 33)):
        found, places = encoder(clips(2, 3, frames, side)), -(-frames // 8) * (-(-side // 16)) ** 2
        assert found.h.shape == (2, encoder.width) and found.tokens.shape[:2] == (2, places)
    assert encoder(clips(0)).h.shape == (0, encoder.width)


@pytest.mark.parametrize("name", MAKE)
def test_a_row_alone_is_as_in_the_batch(name):
    encoder = MAKE[name](3).eval()
    with torch.no_grad():
        torch.testing.assert_close(encoder(clips()).h[1:2], encoder(clips()[1:2]).h, rtol=1e-4, atol=1e-4)


def test_motion_in_time_matters():
    """An encoder of single frames would not notice their order."""
    encoder = R2Plus1d(channels=3, width=8).eval()
    data = clips(2, 3, 8, 16)
    assert not torch.allclose(encoder(data).h, encoder(data.flip(2)).h, atol=1e-4)


def test_videomae_from_a_local_folder(tmp_path):
    torch.manual_seed(0)
    first = videomae(channels=3, **TINY)
    first.model.save_pretrained(tmp_path)
    again = videomae(channels=3, weights=str(tmp_path))
    assert again.width == 24
    torch.testing.assert_close(again(clips()).h, first(clips()).h)


def test_pixels_are_the_clip_itself():
    encoder = Pixels(channels=3, frames=4, size=16)
    assert torch.equal(encoder(clips()), clips().flatten(1)) and encoder.width == 3 * 4 * 256
    assert not list(encoder.parameters())


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: videomae(channels=3, size=100), ComponentError, "patch must divide size"),
        (lambda: videomae(channels=3, **TINY)(clips(frames=6)), ComponentError, "built for 3 channels, 4 frames"),
        (lambda: videomae(channels=3, weights="nowhere/at/all"), DataError, "nowhere"),
    ],
)
def test_a_mistake_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
