"""The RoBERTa-like encoder: padding, gradients, weights from a folder."""

import pytest
import torch

from counterpoint.errors import ComponentError, DataError
from counterpoint_code_search.encoders.roberta import roberta


def small(**changes):
    torch.manual_seed(0)
    return roberta(
        **({"vocabulary": 60, "width": 16, "depth": 2, "heads": 2, "max_tokens": 12, "dropout": 0.0} | changes)
    )


def ids(n: int = 3, length: int = 10) -> torch.Tensor:
    return torch.randint(3, 60, (n, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("pool", ["mean", "first"])
def test_padding_has_no_influence(pool):
    encoder, data = small(pool=pool).eval(), ids()
    mask = torch.arange(10) < torch.tensor([[10], [7], [1]])
    out = encoder(data.masked_fill(~mask, 0), mask)
    assert out.h.shape == (3, encoder.width) and out.tokens.shape == (3, 10, 16)
    for filler in (0, 1, 55):
        torch.testing.assert_close(encoder(data.masked_fill(~mask, filler), mask).h, out.h, atol=1e-6, rtol=1e-5)
    for row, length in enumerate((10, 7, 1)):
        torch.testing.assert_close(encoder(data[row : row + 1, :length]).h[0], out.h[row], atol=1e-6, rtol=1e-5)


def test_order_matters_and_rows_are_apart():
    encoder, data = small().eval(), ids()
    assert not torch.allclose(encoder(data).h, encoder(data.flip(1)).h, atol=1e-3)
    torch.testing.assert_close(encoder(data[1:2]).h, encoder(data).h[1:2], atol=1e-6, rtol=1e-5)


def test_every_parameter_learns():
    encoder = small()
    encoder(ids(), torch.arange(10) < torch.tensor([[10], [7], [4]])).h.square().sum().backward()
    idle = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert all("key.bias" in name for name in idle), idle  # a bias of the keys moves every logit alike


def test_a_long_text_is_cut_at_the_positions_there_are():
    encoder = small(max_tokens=8).eval()
    data = ids(2, 20)
    torch.testing.assert_close(encoder(data).h, encoder(data[:, :8]).h)
    assert encoder(data).tokens.shape[1] == 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from transformers import RobertaConfig, RobertaModel

    torch.manual_seed(3)
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    path = tmp_path_factory.mktemp("roberta")
    RobertaModel(RobertaConfig(vocab_size=80, max_position_embeddings=20, pad_token_id=1, **sizes)).save_pretrained(
        path
    )
    return path


def test_weights_of_a_folder_hold_with_their_sizes(folder):
    encoder = roberta(vocabulary=80, weights=str(folder)).eval()
    assert encoder.width == 24 and encoder.longest == 18 and "pooler" not in dict(encoder.network.named_children())
    from transformers import RobertaModel

    theirs = RobertaModel.from_pretrained(folder, add_pooling_layer=False).eval()
    data = ids(2, 6)  # no token has the id of its padding, so its own positions are ours
    torch.testing.assert_close(encoder(data).tokens, theirs(input_ids=data).last_hidden_state)


def test_what_is_wrong_is_said(folder, tmp_path):
    with pytest.raises(ComponentError, match="heads must divide width"):
        small(width=15)
    with pytest.raises(ComponentError, match="knows 80 tokens, the data has 90"):
        roberta(vocabulary=90, weights=str(folder))
    with pytest.raises(DataError, match="no-such"):
        roberta(vocabulary=80, weights="no-such")
    with pytest.raises(ComponentError, match="holds no RoBERTa"):
        roberta(vocabulary=80, weights=str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ComponentError, match="holds no RoBERTa"):
        roberta(vocabulary=80, weights=str(tmp_path))
