"""Unit rows: torch's values and gradients, first and second, and nothing that is not finite."""

import pytest
import torch
from torch.nn.functional import normalize

from counterpoint.kernels.unit_rows import LEAST, unit


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def by_torch(x):
    return normalize(x, dim=-1, eps=LEAST)


@pytest.mark.parametrize("shape", [(5, 3), (2, 4, 7), (0, 3), (1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_value_and_gradient_are_torchs(shape, dtype):
    x, g = torch.randn(shape).to(dtype), torch.randn(shape).to(dtype)
    close = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 3e-2}[dtype]
    found = []
    for make in (unit, by_torch):
        leaf = x.clone().requires_grad_()
        y = make(leaf)
        y.backward(g)
        assert y.dtype == leaf.grad.dtype == dtype
        found.append((y.detach(), leaf.grad))
    for ours, theirs in zip(*found):
        torch.testing.assert_close(ours, theirs, rtol=close, atol=close)


def test_first_and_second_derivatives_are_those_of_differences():
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(unit, (x,))
    assert torch.autograd.gradgradcheck(unit, (x,))


def test_a_row_of_zeros_is_left_and_its_gradient_is_torchs():
    x = torch.zeros(2, 3, requires_grad=True)
    y = unit(x)
    (gradient,) = torch.autograd.grad(y, x, torch.ones(2, 3))
    (theirs,) = torch.autograd.grad(by_torch(x), x, torch.ones(2, 3))
    assert not y.any()
    torch.testing.assert_close(gradient, theirs)


def test_no_gradient_is_asked_of_what_needs_none():
    assert not unit(torch.randn(3, 2)).requires_grad
