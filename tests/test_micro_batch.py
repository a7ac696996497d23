"""Micro-batches whose tokens differ in number, and what of an encoder's outputs the loop keeps."""

from dataclasses import replace

import pytest
import torch

from building import loop, pipelines, towers
from counterpoint.batch import Batch, Encoded, Features, View
from counterpoint.loop.micro_batch import joined
from counterpoint.objectives.filip import FILIP
from counterpoint.objectives.info_nce import InfoNCE


def encoded(rows, length):
    n = len(rows)
    tokens = torch.arange(n * length * 2.0).reshape(n, length, 2)
    mask = torch.ones(n, length, dtype=torch.bool)
    return Encoded("text", "global", 0, torch.tensor(rows), torch.ones(n, 3), torch.ones(n, 4), tokens, mask)


def test_tokens_are_padded_to_the_longest_micro_batch():
    short, long = encoded([0, 1], 3), encoded([2], 5)
    (whole,) = joined([[short], [long]])
    assert whole.tokens.shape == (3, 5, 2) and whole.row.tolist() == [0, 1, 2]
    assert torch.equal(whole.tokens[:2, :3], short.tokens) and torch.equal(whole.tokens[2:], long.tokens)
    assert whole.mask.sum(1).tolist() == [3, 3, 5] and not whole.tokens[:2, 3:].any()
    plain = [replace(e, tokens=None, mask=None) for e in (short, long)]
    assert joined([[e] for e in plain])[0].tokens is None


class WithTokens(torch.nn.Module):
    """A bag of words that also returns its words."""

    gives = frozenset({"tokens"})
    width = 16

    def __init__(self):
        super().__init__()
        self.words = torch.nn.Embedding(40, 16)

    def forward(self, data, mask=None):
        tokens = self.words(data)
        return Features(tokens.mean(1), tokens, data > 0)


@pytest.mark.parametrize("micro", [None, 2])
@pytest.mark.parametrize(("objective", "kept"), [(InfoNCE(), False), (FILIP(), True)])
def test_tokens_are_held_only_for_an_objective_that_looks_at_them(objective, kept, micro):
    made = towers(("words",))
    made["words"].encoder = WithTokens()
    module = loop({"loss": objective}, modalities=("words",), made=made, micro=micro)
    module.pipelines["words"] = pipelines(("words",))["words"]
    data = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 0], [1, 2, 0, 0]])
    batch = Batch({"words": View("words", data, torch.arange(3), data > 0)}, torch.arange(3))
    for e in module.forward_pass.encode(batch, 0)[0]:
        assert (e.tokens is not None) == kept == (e.mask is not None)
