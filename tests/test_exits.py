"""What encoders give of layers before the last: the same alone and in a padded batch, whole and in micro-batches."""

import pytest
import torch

from building import Gradients, loop, pipelines, towers, train
from counterpoint.batch import Batch, View
from counterpoint.encoders.exits import exits
from counterpoint.encoders.text_transformer import TextTransformer
from counterpoint.errors import ComponentError
from counterpoint.loop.optimizers import sgd
from counterpoint.objectives.exits import Unfused
from counterpoint.objectives.info_nce import InfoNCE
from counterpoint_toy.parts import Pairs


def test_exits_are_evenly_spaced_and_before_the_last():
    assert exits(12) == [3, 6, 9] and exits(4) == [1, 2, 3] and exits(2) == [1] and exits(1) == [] == exits(0)
    for depth in range(4, 30):
        assert len(exits(depth)) == 3 and exits(depth)[0] >= 1 and exits(depth)[-1] < depth


def transformer(depth=4):
    torch.manual_seed(1)
    return TextTransformer(vocabulary=40, width=16, depth=depth, heads=2, dropout=0.0)


def test_a_padded_text_has_the_layers_that_it_has_alone():
    encoder, data = transformer().eval(), torch.tensor([[3, 4, 5, 6, 7], [8, 9, 0, 0, 0]])
    found, alone = encoder(data, data > 0), encoder(data[1:, :2])
    assert encoder.layer_widths == (16, 16, 16) and len(found.layers) == 3
    for layer, other in zip(found.layers, alone.layers):
        torch.testing.assert_close(layer[1:], other)
    assert not torch.allclose(found.layers[0], found.layers[2])
    assert "layers" in encoder.gives and "layers" not in transformer(1).gives


def exiting(objective, micro=None):
    made = towers(("words",))
    made["words"].encoder = transformer()
    made["words"]._masked = True
    return loop({"loss": objective}, modalities=("words",), made=made, micro=micro, optimizer=sgd(lr=0.0))


def unfused():
    torch.manual_seed(2)
    return Unfused(group="subject", dim=8, facts={"words": {"layer_widths": (16, 16, 16)}})


def test_micro_batches_give_the_gradient_of_the_whole_batch():
    found = []
    for micro in (None, 3):
        seen, data = Gradients(), Pairs(size=16, modalities=["words"])
        train(exiting(unfused(), micro), data, batch=16, epochs=1, callbacks=[seen])
        found.append(seen.seen[0])
    assert any("projections" in name for name in found[0])
    for name, whole in found[0].items():
        torch.testing.assert_close(found[1][name], whole, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("micro", [None, 2])
def test_layers_are_held_only_for_an_objective_that_looks_at_them(micro):
    data = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 0], [1, 2, 0, 0]])
    batch = Batch({"words": View("words", data, torch.arange(3), data > 0)}, torch.arange(3))
    for objective, count in ((InfoNCE(), 0), (unfused(), 3)):
        module = exiting(objective, micro)
        module.pipelines["words"] = pipelines(("words",))["words"]
        assert [[tuple(layer.shape) for layer in e.layers] for e in module.forward_pass.encode(batch, 0)[0]] == [
            [(3, 16)] * count
        ]
        assert module.forward_pass.outputs(batch, 0, 0).student[0].layers is not None


def test_exits_are_layers_or_heads():
    assert unfused().needs().features == {"layers"} and Unfused(exits=["a"]).needs().heads == {"a"}
    with pytest.raises(ComponentError, match="names at least one head"):
        Unfused(exits=[])
