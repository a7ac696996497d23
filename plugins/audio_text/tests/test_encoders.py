"""Properties of every encoder of the pack."""

import pytest
import torch

from counterpoint.batch import Features
from counterpoint.errors import ComponentError
from counterpoint_audio_text.encoders.ast import ast
from counterpoint_audio_text.encoders.convolutions import audio_cnn, text_cnn

MELS, FRAMES, VOCABULARY = 32, 90, 50
MAKERS = {
    "cnn": lambda: audio_cnn(mels=MELS, width=16, depth=2),
    "cnn_one_stride": lambda: audio_cnn(mels=MELS, width=16, depth=1, strides=(3,), kernel=3),
    "text_cnn": lambda: text_cnn(vocabulary=VOCABULARY, width=16, depth=2),
    "cnn_segments": lambda: audio_cnn(mels=MELS, width=16, depth=1, segments=4),
    "text_cnn_segments": lambda: text_cnn(vocabulary=VOCABULARY, width=16, depth=1, segments=4),
    "ast": lambda: ast(mels=MELS, frames=FRAMES, width=24, depth=2, heads=3),
}
every = pytest.mark.parametrize("name", MAKERS)


def build(name: str):
    torch.manual_seed(0)
    return MAKERS[name]()


def rows(name: str, n: int = 4, length: int = FRAMES) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    if name.startswith("text_cnn"):
        return torch.randint(1, VOCABULARY, (n, length), generator=generator)
    return torch.randn(n, MELS, length, generator=generator)


@every
@pytest.mark.parametrize("train", [True, False])
def test_features_have_the_sizes_they_say(name, train):
    encoder = build(name).train(train)
    for n in (4, 1) if name == "ast" else (4, 1, 0):  # the loop itself makes what an absent modality gives
        out = encoder(rows(name, n))
        assert isinstance(out, Features) and out.h.shape == (n, encoder.width) and out.h.dtype == torch.float32
        width = getattr(encoder, "token_width", encoder.width)
        assert width == (8 if "segments" in name else encoder.width)
        assert out.tokens.shape == (*out.mask.shape, width)
        assert torch.isfinite(out.h).all()


@every
def test_gradients_reach_every_parameter(name):
    encoder = build(name)
    data = rows(name, 8)
    if name.startswith("text_cnn"):
        data[0, :VOCABULARY] = torch.arange(VOCABULARY)
    h = encoder(data).h
    (h * torch.randn(h.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    for path, parameter in encoder.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), path
        if not path.endswith(("key.bias", "k_proj.bias")):  # it moves every score alike, which softmax undoes
            assert parameter.grad.abs().max() > 0, path


@every
@pytest.mark.parametrize("short", [33, 40, 64])
def test_padding_does_not_change_a_row(name, short):
    encoder, data = build(name).eval(), rows(name, 2)
    mask = torch.arange(FRAMES) < torch.tensor([[FRAMES], [short]])
    padding = ~mask if name.startswith("text_cnn") else ~mask[:, None]
    out = encoder(data.masked_fill(padding, 7), mask)  # whatever stands in the padding
    torch.testing.assert_close(out.h[0], encoder(data[:1]).h[0], atol=1e-5, rtol=1e-4)
    alone = encoder(data[1:, ..., :short])
    torch.testing.assert_close(out.h[1], alone.h[0], atol=1e-5, rtol=1e-4)
    assert [layer.shape[1] for layer in out.layers] == list(getattr(encoder, "layer_widths", ()))
    assert ("layers" in encoder.gives) == (name in ("cnn", "text_cnn")) == bool(out.layers)
    for padded, layer in zip(out.layers, alone.layers):
        torch.testing.assert_close(padded[1], layer[0], atol=1e-5, rtol=1e-4)


@every
def test_evaluation_is_deterministic_and_equivariant_to_the_order_of_the_batch(name):
    encoder, data = build(name).eval(), rows(name, 6)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    with torch.no_grad():
        h = encoder(data).h
        assert torch.equal(encoder(data).h, h) and torch.cdist(h, h)[0, 1] > 1e-4
        torch.testing.assert_close(encoder(data[order]).h, h[order], atol=1e-5, rtol=1e-4)


@every
def test_weights_travel_through_a_state_dict(name):
    first, second = build(name).eval(), MAKERS[name]().eval()
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(rows(name)).h, second(rows(name)).h)


def test_ast_cuts_what_is_longer_and_loads_a_local_folder(tmp_path):
    encoder = build("ast").eval()
    long = rows("ast", 2, FRAMES + 30)
    assert torch.equal(encoder(long).h, encoder(long[..., :FRAMES]).h)
    encoder.network.save_pretrained(tmp_path)
    loaded = ast(model=str(tmp_path)).eval()
    assert torch.equal(loaded(long).h, encoder(long).h) and loaded.width == 24


def test_ast_never_unpickles(tmp_path):
    encoder = build("ast")
    encoder.network.config.save_pretrained(tmp_path)
    torch.save(encoder.network.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ComponentError, match="holds no model of AST"):
        ast(model=str(tmp_path))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: audio_cnn(kernel=4), "kernel must be odd"),
        (lambda: text_cnn(vocabulary=9, width=10, heads=4), "heads must divide width"),
        (lambda: audio_cnn(mels=64)(torch.zeros(2, 40, 50)), "`mels: 64` among the views"),
        (lambda: audio_cnn(mels=64)(torch.zeros(2, 1, 5000)), "Put audio_text.log_mel"),
        (lambda: text_cnn(vocabulary=9, segments=0), "segments must be 1 or more"),
        (lambda: ast(width=20, heads=3), "heads must divide width"),
        (lambda: ast(mels=8), "a patch fit"),
        (lambda: ast(mels=32, frames=32, width=12, depth=1)(torch.zeros(2, 64, 32)), "sees 32 bands; got 64"),
        (lambda: ast(model="nowhere"), "must be a folder with a config.json; got 'nowhere'"),
    ],
)
def test_a_mistake_is_refused(make, message):
    with pytest.raises(ComponentError, match=message):
        make()


def test_segments_are_means_of_stretches_in_their_order():
    """Of a sound that changes, the first stretches see what it was and the last what it becomes."""
    encoder = build("cnn_segments").eval()
    low, high = rows("cnn", 1, 400), rows("cnn", 1, 400) * 2 + 1
    late, early = (torch.cat([low[..., :at], high[..., at:]], -1) for at in (260, 140))
    parts = [encoder(x).h.unflatten(1, (4, 8))[0] for x in (low, late, early, high)]
    torch.testing.assert_close(parts[1][0], parts[0][0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(parts[2][3], parts[3][3], atol=1e-5, rtol=1e-4)
    assert (parts[1][0] - parts[3][0]).abs().max() > 1e-2
