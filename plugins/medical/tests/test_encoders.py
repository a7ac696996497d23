"""Properties of every encoder of the pack."""

import subprocess
import sys

import pytest
import torch

from counterpoint.batch import Features
from counterpoint.errors import ComponentError
from counterpoint_medical.encoders.grid import Grid
from counterpoint_medical.encoders.resnet import resnet
from counterpoint_medical.encoders.unet import unet
from counterpoint_medical.encoders.vit import vit

CHANNELS, SIDE = 2, 32
MAKERS = {
    "resnet": lambda: resnet(channels=CHANNELS, width=4, pool=False),
    "resnet_group": lambda: resnet(channels=CHANNELS, width=8, blocks=(1, 2), kernel=5, norm="group"),
    "resnet_2d": lambda: resnet(channels=CHANNELS, spatial_dims=2, width=4, blocks=(1, 1, 1), norm="instance"),
    "unet": lambda: unet(channels=CHANNELS, width=4),
    "unet_2d": lambda: unet(channels=CHANNELS, spatial_dims=2, width=8, norm="group"),
    "vit": lambda: vit(channels=CHANNELS, shape=(SIDE,) * 3, width=24, depth=2, heads=4),
    "vit_2d": lambda: vit(channels=CHANNELS, shape=(SIDE, SIDE), spatial_dims=2, patch=8, width=24, depth=1, heads=4),
    "grid": lambda: Grid(channels=CHANNELS, cells=3),
}
MAPS = {  # shape of the map for an input of SIDE
    "resnet": (32, 2, 2, 2),
    "resnet_group": (16, 4, 4, 4),
    "resnet_2d": (16, 2, 2),
    "unet": (4, SIDE, SIDE, SIDE),
    "unet_2d": (8, SIDE, SIDE),
    "vit": (24, 2, 2, 2),
    "vit_2d": (24, 4, 4),
}
every = pytest.mark.parametrize("name", MAKERS)
trained = pytest.mark.parametrize("name", MAPS)


def build(name: str):
    torch.manual_seed(0)
    return MAKERS[name]()


def data(name: str, n: int = 3) -> torch.Tensor:
    sides = (SIDE,) * (2 if name.endswith("2d") else 3)
    return torch.randn(n, CHANNELS, *sides, generator=torch.Generator().manual_seed(1))


def h_of(out) -> torch.Tensor:
    return out.h if isinstance(out, Features) else out


@every
@pytest.mark.parametrize("train", [True, False])
def test_h_has_the_width_it_says(name, train):
    encoder = build(name).train(train)
    h = h_of(encoder(data(name)))
    assert isinstance(encoder.width, int) and h.shape == (3, encoder.width)
    assert h.dtype == torch.float32 and torch.isfinite(h).all() and torch.cdist(h, h)[0, 1] > 1e-4


@trained
def test_the_map_is_where_it_says_and_what_the_encoder_gives(name):
    encoder = build(name)
    features = encoder(data(name))
    assert features.map.shape == (3, *MAPS[name])
    given = {part for part in ("tokens", "map") if getattr(features, part) is not None}
    assert encoder.gives == given
    if features.tokens is not None:
        assert torch.equal(features.tokens.transpose(1, 2), features.map.flatten(2))


@trained
def test_gradients_of_h_reach_every_parameter(name):
    encoder = build(name)
    h = encoder(data(name)).h
    (h * torch.randn(h.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    for path, parameter in encoder.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), path
        assert parameter.requires_grad
        if "bias" not in path:  # a normalisation undoes the bias before it
            assert parameter.grad.abs().max() > 0, path


@every
def test_evaluation_is_deterministic_and_rows_are_apart(name):
    encoder, x = build(name).eval(), data(name)
    with torch.no_grad():
        h = h_of(encoder(x))
        assert torch.equal(h_of(encoder(x)), h)
        torch.testing.assert_close(h_of(encoder(x.flip(0))).flip(0), h, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(h_of(encoder(x[1:2])), h[1:2], atol=1e-5, rtol=1e-4)


@trained
def test_weights_travel_through_a_state_dict(name):
    first, second = build(name).eval(), MAKERS[name]().eval()
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(data(name)).h, second(data(name)).h)


def test_the_grid_is_the_mean_of_equal_blocks():
    x = torch.arange(64.0).reshape(1, 1, 4, 4, 4)
    expected = x.reshape(2, 2, 2, 2, 2, 2).mean((1, 3, 5)).flatten()[None]
    assert torch.equal(Grid(channels=1, cells=2)(x), expected)
    assert Grid(channels=3, spatial_dims=2, cells=4).width == 48


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: resnet(channels=1, blocks=()), "1 to 4 stages"),
        (lambda: resnet(channels=1, blocks=(1,) * 5), "1 to 4 stages"),
        (lambda: resnet(channels=1, kernel=4), "odd"),
        (lambda: resnet(channels=1, width=12, norm="group"), "8 groups divide"),
        (lambda: unet(channels=1, width=0), "1 or more"),
        (lambda: unet(channels=1, width=4)(torch.zeros(1, 1, 16, 32, 32)), "at least 32"),
        (lambda: vit(channels=1, shape=None), "shape must be 3 multiples"),
        (lambda: vit(channels=1, shape=(20, 32, 32)), "multiples of patch"),
        (lambda: vit(channels=1, shape=(32, 32, 32), width=20, heads=3), "heads must divide width"),
        (
            lambda: vit(channels=1, shape=(32, 32), spatial_dims=2, width=8, depth=1, heads=1)(
                torch.zeros(1, 1, 48, 48)
            ),
            r"`shape: \[48, 48\]`",
        ),
        (lambda: Grid(channels=1, cells=0), "1 or more"),
    ],
)
def test_a_mistake_is_refused(make, message):
    with pytest.raises(ComponentError, match=message):
        make()


IMPORTS = """
import random, sys, warnings
import numpy as np
import counterpoint_medical.encoders.resnet, counterpoint_medical.encoders.unet, counterpoint_medical.encoders.vit
import counterpoint_medical.encoders.grid, counterpoint_medical.data.colin27
import counterpoint_medical.readers.nifti, counterpoint_medical.readers.dicom, counterpoint_medical.readers.image
import counterpoint_medical.views.place, counterpoint_medical.views.turning, counterpoint_medical.views.detail

heavy = {"monai", "nibabel", "pydicom", "PIL", "lightning"} & set(sys.modules)
assert not heavy, heavy
state = lambda: (random.getstate(), np.random.get_state()[1].sum(), list(warnings.filters))
before = state()
counterpoint_medical.encoders.resnet.resnet(channels=1, width=4)
assert "monai" in sys.modules
assert state() == before
"""


def test_monai_is_imported_when_an_encoder_is_built_and_leaves_random_state_and_warnings_alone():
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
