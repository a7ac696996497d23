"""The Triton kernels against the dense form: in Triton's interpreter on a CPU, on the device where there is one.

Dimensions: N queries, M keys, D width.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from counterpoint.kernels import Grouped, dispatch, info_nce, products, softmax_stats
from counterpoint.kernels.reference import dense

fused = pytest.importorskip("counterpoint.kernels.fused", reason="needs Triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # the interpreter's log2(0)


def rows(n, seed, width=20, scale=1.0):
    z = torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (scale * normalize(z, dim=1)).to(DEVICE)


def ids(n, kinds, seed):
    return torch.randint(kinds, (n,), generator=torch.Generator().manual_seed(seed)).to(DEVICE)


RULES = {
    "none": lambda n, m: (None, None),
    "own": lambda n, m: ((torch.arange(n).to(DEVICE), torch.arange(m).to(DEVICE)), None),
    "groups": lambda n, m: ((ids(n, 5, 1), ids(m, 5, 2)), None),
    "all out": lambda n, m: ((ids(n, 1, 1), ids(m, 1, 1)), None),
    "only": lambda n, m: (None, (ids(n, 4, 3), ids(m, 6, 4))),
    "both": lambda n, m: ((torch.arange(n).to(DEVICE), torch.arange(m).to(DEVICE)), (ids(n, 3, 5), ids(m, 3, 6))),
}


def total(lines):
    """Weighs every line differently; a line without an entry counts nothing."""
    return sum(
        (line.where(line > -torch.inf, 0.0) * torch.linspace(-1.0, 2.0, len(line)).to(line)).sum() for line in lines
    )


def compared(form, exact, leaves, rtol=2e-4, atol=2e-5):
    """Values and gradients of the kernel in float32 against the dense form in float64."""
    single = [leaf.float().requires_grad_() for leaf in leaves]
    double = [leaf.double().requires_grad_() for leaf in leaves]
    ours, theirs = form(*single), exact(*double)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a.double(), b, rtol=rtol, atol=atol)
    got, expected = torch.autograd.grad(total(ours), single), torch.autograd.grad(total(theirs), double)
    for a, b in zip(got, expected):
        torch.testing.assert_close(a.double(), b, rtol=rtol, atol=atol * max(1.0, b.abs().max().item()))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("n", "m", "width"), [(1, 1, 16), (70, 150, 20), (150, 70, 300)])
@pytest.mark.parametrize("scale", [1.0, 100.0], ids=["early", "late"])
def test_lines_and_gradients(rule, n, m, width, scale):
    exclude, only = RULES[rule](n, m)
    q, k = rows(n, 1, width, scale), rows(m, 2, width)
    apply = lambda a, b: fused.FusedSoftmax.apply(a, b, exclude, only, True, torch.float32)  # noqa: E731
    compared(apply, lambda a, b: dense(a, b, exclude, only, True), (q, k))


@pytest.mark.parametrize("n", [1, 64, 150, 330])
@pytest.mark.parametrize("rule", ["none", "own", "groups"])
def test_one_set_of_rows_with_itself(rule, n):
    z = rows(n, 1, 20, 3.0)
    who = {"none": None, "own": torch.arange(n).to(DEVICE), "groups": ids(n, 5, 1)}[rule]
    exclude = None if who is None else (who, who)
    apply = lambda a: (fused.FusedSelfSoftmax.apply(a, exclude, None, torch.float32),)  # noqa: E731
    compared(apply, lambda a: dense(a, a, exclude, None, False)[:1], (z,))


@pytest.mark.parametrize("columns", [False, True])
def test_without_keys_or_without_queries(columns):
    for n, m in ((0, 70), (70, 0)):
        a, b = (torch.zeros(size, 16, device=DEVICE, requires_grad=True) for size in (n, m))
        lines = fused.FusedSoftmax.apply(a, b, None, None, columns, torch.float32)
        assert (lines[0] == -torch.inf).all() and (not columns or (lines[1] == -torch.inf).all())
        da, db = torch.autograd.grad(total([line for line in lines if line is not None]), (a, b), allow_unused=True)
        assert all(g is None or not g.any() for g in (da, db))


def test_every_number_is_written():
    """Under deterministic algorithms torch fills new memory with NaN: nothing of it may be left."""
    q, k = rows(70, 1).float().requires_grad_(), rows(150, 2).float().requires_grad_()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        lines = fused.FusedSoftmax.apply(q, k, None, None, True, torch.float32)
        gradients = torch.autograd.grad(total(lines), (q, k))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.isfinite(t).all() for t in (*lines, *gradients))


def test_no_rows_with_themselves():
    z = torch.zeros(0, 16, device=DEVICE, requires_grad=True)
    lse = fused.FusedSelfSoftmax.apply(z, None, None, torch.float32)
    assert lse.shape == (0,)
    assert torch.autograd.grad(lse.sum(), z)[0].shape == (0, 16)


@pytest.mark.skipif(DEVICE == "cpu", reason="the interpreter has no bfloat16: no CUDA device")
@pytest.mark.parametrize("noise", [1.0, 0.005], ids=["early", "late"])
def test_products_in_bfloat16_keep_the_gradient(noise, monkeypatch):
    """The positive is outside the sum: what bfloat16 loses is small beside the gradient even where softmax is near 1."""
    monkeypatch.setattr("counterpoint.kernels.softmax.DENSE", 0)
    n = 192
    q = normalize(torch.eye(n, dtype=torch.float64).to(DEVICE) + noise * rows(n, 3, n), dim=1)
    k = normalize(q + noise * rows(n, 4, n), dim=1)
    loss = lambda a, b, tiled: info_nce(a, b, 0.1, direction="both") if tiled else _plain(a, b, 0.1)  # noqa: E731
    single, double = ([z.to(dtype).requires_grad_() for z in (q, k)] for dtype in (torch.float32, torch.float64))
    with products(torch.bfloat16):
        got = torch.autograd.grad(loss(*single, True), single)
    expected = torch.autograd.grad(loss(*double, False), double)
    for a, b in zip(got, expected):
        assert (a.double() - b).norm() <= 3e-3 * b.norm()


def _plain(q, k, temperature):
    logits, target = q @ k.T / temperature, torch.arange(len(q), device=q.device)
    cross_entropy = torch.nn.functional.cross_entropy
    return (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2


SHARED = {80: 163, 86: 99, 90: 227}  # KiB that a block may have (CUDA C++ programming guide, compute capabilities)


@pytest.mark.parametrize(
    "architecture", [86, *(pytest.param(other, marks=pytest.mark.slow) for other in SHARED if other != 86)]
)
def test_the_kernels_compile_for_a_gpu_that_is_not_there_and_fit_it(architecture, tmp_path):
    """Machine code for every type, precision and form; a tile that is too large would end a run at its first step."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("compiled.py"), str(architecture)],
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 3 * 4  # forms; three precisions of float32, and bfloat16
    assert not [form for *form, shared in found if not 0 < shared <= SHARED[architecture] * 1024]


def test_the_same_bits_every_time():
    q, k = rows(300, 1).float().requires_grad_(), rows(200, 2).float().requires_grad_()
    once, again = (
        torch.autograd.grad(total(fused.FusedSoftmax.apply(q, k, None, None, True, torch.float32)), (q, k))
        for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(once, again))


def test_a_second_derivative_is_refused():
    z = rows(5, 1).float().requires_grad_()
    lines = fused.FusedSoftmax.apply(z, z.detach(), None, None, True, torch.float32)
    with pytest.raises(RuntimeError, match="first derivative only"):
        torch.autograd.grad(total(lines), z, create_graph=True)


@pytest.mark.parametrize("groups", [False, True])
def test_the_loss_through_it(groups, monkeypatch):
    """info_nce of hard and of grouped positives, and of one set with itself, as dispatch would call the kernels."""
    monkeypatch.setattr("counterpoint.kernels.softmax.DENSE", 0)
    monkeypatch.setattr("counterpoint.kernels.softmax.fused_for", lambda z: fused if z.dtype == torch.float32 else None)
    who = ids(90, 9, 1)
    positives = Grouped(who, who) if groups else None
    loss = lambda a, b: (  # noqa: E731
        info_nce(a, b, 0.2, positives=positives, direction="both")[None],
        softmax_stats(a, a, 4.0, exclude=(who, who)).rows,
    )
    compared(loss, loss, (rows(90, 1), rows(90, 2)))


def test_a_device_that_gets_other_numbers_gets_tiles(monkeypatch, caplog):
    dispatch._fused.cache_clear()
    assert dispatch._fused(DEVICE) is fused
    monkeypatch.setattr(fused, "dense", lambda *arguments: tuple(2 * line for line in dense(*arguments)))
    dispatch._fused.cache_clear()
    try:
        assert dispatch._fused(DEVICE) is None
    finally:
        dispatch._fused.cache_clear()
    assert "Triton fails (the Triton kernels give other numbers than the dense form)" in caplog.text


@pytest.mark.skipif(DEVICE == "cpu", reason="no CUDA device")
def test_large_problems_on_the_device_take_it():
    q, k = rows(2000, 1).float(), rows(1500, 2).float()
    assert dispatch.fused_for(q) is fused
    ours, theirs = (softmax_stats(q, k, 5.0, columns=True, tiled=tiled) for tiled in (None, False))
    torch.testing.assert_close(ours.rows, theirs.rows, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(ours.columns, theirs.columns, rtol=1e-3, atol=1e-3)
