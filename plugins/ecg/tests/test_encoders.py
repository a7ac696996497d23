"""Properties of every encoder of the pack."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from counterpoint.batch import Features
from counterpoint.errors import ComponentError
from counterpoint_ecg.encoders.convolutions import inception_time, resnet, xception_time
from counterpoint_ecg.encoders.patch_tst import patch_tst
from counterpoint_ecg.encoders.resnet1d import ResNet1d
from counterpoint_ecg.encoders.rfft import Rfft

CHANNELS, LENGTH = 3, 160
MAKERS = {
    "inception_time": lambda: inception_time(channels=CHANNELS, width=4, depth=3, kernel=16),
    "xception_time": lambda: xception_time(channels=CHANNELS, width=4, kernel=16),
    "resnet": lambda: resnet(channels=CHANNELS),
    "patch_tst": lambda: patch_tst(channels=CHANNELS, length=LENGTH, width=16, depth=2, heads=2, hidden=32),
    "patch_tst_level": lambda: patch_tst(channels=CHANNELS, length=LENGTH, width=8, heads=2, normalise=False),
    "resnet1d": lambda: ResNet1d(channels=CHANNELS, width=8, blocks=(1, 1)),
    "resnet1d_group": lambda: ResNet1d(channels=CHANNELS, width=16, blocks=(2, 1, 1), norm="group", pool="mean_max"),
    "rfft": lambda: Rfft(channels=CHANNELS, length=LENGTH),
}
every = pytest.mark.parametrize("name", MAKERS)
trained = pytest.mark.parametrize("name", [name for name in MAKERS if name != "rfft"])
any_length = pytest.mark.parametrize("name", [name for name in MAKERS if not name.startswith("patch_tst")])


def build(name: str):
    torch.manual_seed(0)
    return h_alone(MAKERS[name]())


def h_alone(encoder):
    """The encoder with its tokens left out, which most properties say nothing of."""
    encoder.register_forward_hook(lambda module, data, out: out.h if isinstance(out, Features) else out)
    return encoder


def series(n: int = 4, length: int = LENGTH) -> torch.Tensor:
    return torch.randn(n, CHANNELS, length, generator=torch.Generator().manual_seed(1))


@every
@pytest.mark.parametrize("train", [True, False])
def test_h_has_the_width_it_says(name, train):
    encoder = build(name).train(train)
    assert isinstance(encoder.width, int)
    for n in (4, 1):
        h = encoder(series(n))
        assert h.shape == (n, encoder.width) and h.dtype == torch.float32 and torch.isfinite(h).all()


@pytest.mark.parametrize("name", ["resnet", "resnet1d", "resnet1d_group"])
def test_zero_rows_give_zero_rows(name):
    encoder = build(name).eval()
    assert encoder(series(0)).shape == (0, encoder.width)


@any_length
@pytest.mark.parametrize("length", [40, 161, 333])
def test_any_length(name, length):
    encoder = build(name)
    assert encoder(series(2, length)).shape == (2, encoder.width)


@trained
def test_gradients_reach_every_parameter(name):
    encoder = build(name)
    h = encoder(series())
    (h * torch.randn(h.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    for path, parameter in encoder.named_parameters():
        if not parameter.requires_grad:
            continue
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), path
        if "W_K.bias" not in path:  # a key's bias moves every score alike, which softmax undoes
            assert parameter.grad.abs().max() > 0, path


@every
def test_evaluation_is_deterministic_and_equivariant_to_the_order_of_the_batch(name):
    encoder, data = build(name).eval(), series(6)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    with torch.no_grad():
        h = encoder(data)
        assert torch.equal(encoder(data), h)
        torch.testing.assert_close(encoder(data[order]), h[order], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(encoder(data[2:3]), h[2:3], atol=1e-5, rtol=1e-5)


@every
def test_different_series_have_different_h(name):
    h = build(name).eval()(series())
    assert torch.cdist(h, h)[0, 1] > 1e-4


@every
def test_weights_travel_through_a_state_dict(name):
    first, second = build(name).eval(), h_alone(MAKERS[name]()).eval()
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(series()), second(series()))


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("pool", ["mean", "mean_max", "mean_std"])
@pytest.mark.parametrize("short", [97, 100, 128])
def test_padding_does_not_change_h(norm, pool, short):
    torch.manual_seed(0)
    encoder = h_alone(ResNet1d(channels=CHANNELS, width=16, blocks=(1, 1, 1), norm=norm, pool=pool)).eval()
    data = series(2)
    mask = torch.arange(LENGTH) < torch.tensor([[LENGTH], [short]])
    padded = data.masked_fill(~mask[:, None], 1e6)  # whatever stands in the padding
    h = encoder(padded, mask)
    torch.testing.assert_close(h[0], encoder(data[:1])[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(h[1], encoder(data[1:, :, :short])[0], atol=1e-4, rtol=1e-4)


STEPS = {"inception_time": LENGTH, "resnet": LENGTH, "xception_time": 50, "patch_tst": 20, "patch_tst_level": 20}


@trained
def test_tokens_are_the_steps_that_h_is_the_mean_of(name):
    torch.manual_seed(0)
    encoder = MAKERS[name]().eval()
    found = encoder(series())
    steps = STEPS.get(name, -(-LENGTH // 2 ** len((1, 1) if name == "resnet1d" else (2, 1, 1))))
    width = getattr(encoder, "token_width", encoder.width)
    assert encoder.gives == {"tokens"} and found.tokens.shape == (4, steps, width)
    assert found.mask is None or (found.mask.shape == (4, steps) and found.mask.all())
    torch.testing.assert_close(found.tokens.mean(1), found.h[:, :width])


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("short", [97, 100, 128])
def test_tokens_of_padded_rows_are_those_of_the_row_alone(norm, short):
    torch.manual_seed(0)
    encoder = ResNet1d(channels=CHANNELS, width=16, blocks=(1, 1, 1), norm=norm).eval()
    data = series(2)
    mask = torch.arange(LENGTH) < torch.tensor([[LENGTH], [short]])
    both, alone = encoder(data.masked_fill(~mask[:, None], 1e6), mask), encoder(data[1:, :, :short])
    assert both.mask.sum(1).tolist() == [LENGTH // 8, -(-short // 8)] and alone.mask.all()
    torch.testing.assert_close(both.tokens[1][both.mask[1]], alone.tokens[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_training_on_padded_rows_does_not_see_the_padding(norm):
    data, mask = series(2), torch.arange(LENGTH) < torch.tensor([[120], [90]])
    gradients = []
    for length, value in ((120, 0.0), (LENGTH, 1e6)):  # the same series with little padding and with much
        torch.manual_seed(0)
        encoder = h_alone(ResNet1d(channels=CHANNELS, width=8, blocks=(1, 1), norm=norm))
        padded = data.masked_fill(~mask[:, None], value)[..., :length]
        encoder(padded, mask[:, :length]).square().sum().backward()
        gradients.append([parameter.grad for parameter in encoder.parameters()])
        assert all(torch.isfinite(g).all() for g in gradients[-1])
    for few, many in zip(*gradients):
        torch.testing.assert_close(few, many, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_a_mask_without_padding_changes_nothing(norm):
    torch.manual_seed(0)
    encoder = h_alone(ResNet1d(channels=CHANNELS, width=16, blocks=(1, 1), norm=norm))
    data = series()
    plain = encoder(data)
    torch.testing.assert_close(encoder(data, torch.ones(4, LENGTH, dtype=torch.bool)), plain, atol=1e-4, rtol=1e-4)


def test_the_spectrum_is_numpys_and_has_no_parameters():
    encoder, data = Rfft(channels=CHANNELS, length=100), series()
    expected = np.abs(np.fft.rfft(data.numpy()[..., :100])).reshape(4, -1)
    np.testing.assert_allclose(encoder(data).numpy(), expected, atol=1e-3)
    assert list(encoder.parameters()) == []
    short = encoder(data[..., :60])
    np.testing.assert_allclose(
        short.numpy(), np.abs(np.fft.rfft(data.numpy()[..., :60], 100)).reshape(4, -1), atol=1e-3
    )


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: patch_tst(channels=1, length=None), "length must be"),
        (lambda: patch_tst(channels=1, length=8), "at least patch: 16; got 8"),
        (lambda: patch_tst(channels=1, length=100, width=20, heads=3), "heads must divide width"),
        (lambda: patch_tst(channels=1, length=100, width=8, heads=2)(torch.zeros(2, 1, 80)), "`length: 80`"),
        (lambda: Rfft(channels=1, length=None), "`length: 1000`"),
        (lambda: ResNet1d(channels=1, kernel=8), "odd"),
    ],
)
def test_a_mistake_is_refused(make, message):
    with pytest.raises(ComponentError, match=message):
        make()


IMPORTS = """
import random, sys, warnings
import numpy as np
import counterpoint_ecg.encoders.convolutions, counterpoint_ecg.encoders.patch_tst, counterpoint_ecg.encoders.resnet1d
import counterpoint_ecg.data.pigcvp, counterpoint_ecg.data.arrays
import counterpoint_ecg.views.windows, counterpoint_ecg.views.amplitude, counterpoint_ecg.views.timing

heavy = {"tsai", "fastai", "pandas", "sklearn", "scipy", "lightning", "pyts"} & set(sys.modules)
assert not heavy, heavy
state = lambda: (random.getstate(), np.random.get_state()[1].sum(), list(warnings.filters))
before = state()
counterpoint_ecg.encoders.patch_tst.patch_tst(channels=1, length=100)
assert "tsai" in sys.modules
assert state() == before
"""


def test_tsai_is_imported_when_an_encoder_is_built_and_leaves_random_state_and_warnings_alone():
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_resnet1d_standardises_by_the_statistics_of_the_data():
    torch.manual_seed(0)
    data = torch.randn(4, 2, 128) * torch.tensor([[3.0], [0.5]]) + torch.tensor([[7.0], [-2.0]])
    torch.manual_seed(0)
    own = ResNet1d(channels=2, width=8, blocks=(1, 1), pool="mean_std", mean=[7.0, -2.0], std=[3.0, 0.5]).eval()
    torch.manual_seed(0)
    bare = ResNet1d(channels=2, width=8, blocks=(1, 1), pool="mean_std").eval()
    standard = (data - torch.tensor([[7.0], [-2.0]])) / torch.tensor([[3.0], [0.5]])
    torch.testing.assert_close(own(data).h, bare(standard).h)
    assert {"mean", "std"} <= own.state_dict().keys() and not {"mean", "std"} & bare.state_dict().keys()
