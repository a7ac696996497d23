"""AutoTCL: its view, which learns to mask and damp a series, and its objective."""

import pytest
import torch

from counterpoint.batch import View
from counterpoint.errors import ComponentError
from counterpoint.objectives.autotcl import AutoTCL as Objective
from counterpoint.randomness import Draw, seed_all
from counterpoint.views.autotcl import AutoTCL, mmd
from objectives.scenes import scene
from objectives.series import plain_autotcl


def augmentation(**options):
    seed_all(5)
    return AutoTCL(**{"channels": 2, "hidden": 6, "depth": 2, **options})


def a_view(n=6, length=21, mask=None):
    data = torch.randn(n, 2, length, generator=torch.Generator().manual_seed(3))
    return View("signal", data if mask is None else data * mask[:, None], torch.arange(n), mask)


def views_of(view, ids, **options):
    with torch.no_grad():
        return augmentation(**options)(view, Draw(11, ids))


def test_it_keeps_the_series_and_adds_one_that_is_masked_and_damped():
    view = a_view()
    x, v = views_of(view, torch.arange(6))
    assert (x.role, v.role) == ("global", "augmented") and torch.equal(x.data, view.data)
    share = v.data / view.data
    torch.testing.assert_close(share[:, :1], share[:, 1:], rtol=1e-4, atol=1e-6)  # the same for all channels
    assert ((share >= 0) & (share < 1)).all() and (share == 0).any() and (share > 0).any()
    assert augmentation().prepare(view) is view and augmentation().layout(["raw"]) == ["global", "augmented"]
    (soft,) = views_of(view, torch.arange(6), hard=False)[1:]
    assert ((soft.data == 0) <= (v.data == 0)).all() and (soft.data != v.data).any()


def test_the_draw_of_a_sample_is_its_own():
    view, ids = a_view(), torch.tensor([9, 4, 7, 1, 30, 2])
    whole = views_of(view, ids)[1]
    part = views_of(view[2:4], ids[2:4])[1]
    torch.testing.assert_close(part.data, whole.data[2:4])
    same = view.replace(data=view.data[:1].expand_as(view.data))
    dropped = views_of(same, ids)[1].data == 0
    assert all(not torch.equal(dropped[0], other) for other in dropped[1:])


def test_padding_changes_nothing():
    mask = torch.arange(30)[None] < torch.tensor([21] * 6)[:, None]
    short, ids = a_view(), torch.arange(6)
    padded = short.replace(data=torch.nn.functional.pad(short.data, (0, 9)), mask=mask)
    one, two = views_of(short, ids)[1], views_of(padded, ids)[1]
    torch.testing.assert_close(two.data[..., :21], one.data)
    assert not two.data[..., 21:].any()
    for name in one.meta:
        torch.testing.assert_close(two.meta[name], one.meta[name])


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_short_series_have_finite_penalties(length):
    v = views_of(a_view(length=length), torch.arange(6))[1]
    assert all(value.isfinite().all() and value.shape == (6,) for value in v.meta.values())


def test_the_consistency_compares_steps_beside_and_apart():
    """Of a step function with its step between 9 and 10, nothing but the steps there differ."""
    p = (torch.arange(20) < 10).double().expand(500, 20)
    found = AutoTCL._penalties(p, torch.full((500,), 20), Draw(3, torch.arange(500)))
    assert set(found["consistency"].tolist()) == {0.0, 1.0, 2.0} and torch.equal(found["kept"], p.mean(1))
    flat = AutoTCL._penalties(torch.full((9, 20), 0.3), torch.full((9,), 20), Draw(3, torch.arange(9)))
    assert torch.equal(flat["consistency"], torch.ones(9))


def plain_mmd(x, v):
    both = [*x, *v]
    d = [[((a - b) ** 2).sum() for b in both] for a in both]
    mean = sum(sum(row) for row in d).detach() / (len(both) * (len(both) - 1))
    kernel = lambda a, b: sum(torch.exp(-d[a][b] / (mean * 2.0**i)) for i in range(-2, 3))  # noqa: E731
    n = len(x)
    return sum(
        kernel(i, j) + kernel(n + i, n + j) - kernel(i, n + j) - kernel(n + i, j) for i in range(n) for j in range(n)
    ) / (n * n)


def test_the_discrepancy_is_that_of_plain_loops():
    random = torch.Generator().manual_seed(0)
    x, v = (torch.randn(4, 3, dtype=torch.float64, generator=random).requires_grad_() for _ in range(2))
    ours, theirs = mmd(x, v), plain_mmd(x, v)
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(torch.autograd.grad(ours, (x, v)), torch.autograd.grad(theirs, (x, v))):
        torch.testing.assert_close(a, b)
    equal = mmd(x, x)
    assert equal.abs() < 1e-12 and all(g.isfinite().all() for g in torch.autograd.grad(equal, x))
    assert mmd(x[:1], x[:1]).isfinite()


@pytest.mark.parametrize("wrong", [{"every": 0}, {"depth": 0}, {"sparsity": -1.0}, {"lr": float("nan")}])
def test_wrong_options_are_named(wrong):
    with pytest.raises(ComponentError, match=next(iter(wrong))):
        augmentation(**wrong)


# The objective


@pytest.mark.parametrize("seed", range(5))
def test_stretches_of_long_series_of_different_lengths(seed):
    """Wherever they start, and with rows that are too short for any."""
    o, m = scene("two views"), Objective(stretches=4, temperature=0.5, local_weight=1.0)
    random = torch.Generator().manual_seed(seed)
    for e in o.student:
        e.tokens = torch.randn(5, 23, 3, dtype=torch.float64, generator=random).requires_grad_()
        e.mask = torch.arange(23) < torch.tensor([23, 19, 3, 8, 4])[:, None]
    tokens = [e.tokens for e in o.student]
    torch.manual_seed(seed)
    ours = m(o)[0]
    torch.manual_seed(seed)
    theirs = plain_autotcl(o, m)
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(torch.autograd.grad(ours, tokens), torch.autograd.grad(theirs, tokens)):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("wrong", [{"stretches": 2}, {"temperature": 0.0}])
def test_wrong_options_of_the_objective_are_named(wrong):
    with pytest.raises(ComponentError, match=next(iter(wrong))):
        Objective(**wrong)
