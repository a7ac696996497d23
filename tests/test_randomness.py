"""Random numbers that depend on the seed and on where they are used, and on nothing else."""

import pytest
import torch

from counterpoint.randomness import Draw, key, splitmix64


def test_splitmix64_of_known_states():
    """The first outputs of the generator seeded with 1234567, from its authors' reference implementation."""
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    gamma = 0x9E3779B97F4A7C15
    states = [(1234567 + i * gamma) % 2**64 for i in range(3)]
    signed = torch.tensor([s - 2**64 if s >= 2**63 else s for s in states])
    assert [int(v) % 2**64 for v in splitmix64(signed)] == expected


def test_key_depends_on_every_part():
    assert len({key(1, "a"), key("1", "a"), key(1, "b"), key("a", 1), key(2, "a"), key(1, "a", 0)}) == 6


CALLS = {
    "uniform": lambda d: d.uniform(3),
    "many uniforms": lambda d: d.uniform(200),
    "normal": lambda d: d.normal(2, 2),
    "many normals": lambda d: d.normal(100),
    "integers": lambda d: d.integers(0, 1000, 2),
    "permutation": lambda d: d.permutation(20),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_row_depends_on_its_sample_alone(call):
    ids = torch.tensor([5, 9, 2, 700])
    whole, part, again = call(Draw(3, ids)), call(Draw(3, ids[[2, 0]])), Draw(3, ids)
    assert torch.equal(whole[[2, 0]], part)
    assert torch.equal(call(again), whole)
    assert not torch.equal(call(again), whole)  # the next call is another draw
    assert not torch.equal(call(Draw(4, ids)), whole)
    assert all(not torch.equal(whole[0], row) for row in whole[1:])


def test_moments_and_independence():
    draw = Draw(1, torch.arange(50_000))
    uniform, normal = draw.uniform(3), draw.normal(3)
    torch.testing.assert_close(uniform.mean(0), torch.full((3,), 0.5), atol=6e-3, rtol=0)
    torch.testing.assert_close(uniform.var(0), torch.full((3,), 1 / 12), atol=2e-3, rtol=0)
    torch.testing.assert_close(normal.mean(0), torch.zeros(3), atol=2e-2, rtol=0)
    torch.testing.assert_close(torch.cov(normal.T), torch.eye(3), atol=3e-2, rtol=0)
    assert uniform.min() >= 0 and uniform.max() < 1


def test_integers_cover_their_range():
    values = Draw(1, torch.arange(2000)).integers(2, 5)
    assert set(values.tolist()) == {2, 3, 4}


@pytest.mark.parametrize("count", [1, 7, 64])
def test_numbers_hashed_by_numpy_are_those_that_torch_hashes(count, monkeypatch):
    """A run on a GPU, and a large batch on a CPU, draw what a small batch on a CPU draws."""
    ids = torch.tensor([0, -1, 2**63 - 1, -(2**63), 12345])
    calls = [lambda d: d.uniform(count), lambda d: d.uniform(count, low=-2, high=3), lambda d: d.normal(count)]
    calls += [lambda d: d.positions(count), lambda d: d.uniform(2, low=0.3, high=0.3), lambda d: d.integers(0, 9)]
    draw = Draw(9, ids)
    by_numpy = [call(draw) for call in calls] + [splitmix64(ids)]
    monkeypatch.setattr("counterpoint.randomness._HOST", -1)
    draw = Draw(9, ids)
    by_torch = [call(draw) for call in calls] + [splitmix64(ids)]
    assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(by_numpy, by_torch, strict=True))
