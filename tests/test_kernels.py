"""The contrastive kernel: the tiled path against the plain formula, its memory, and the ends of the number range.

Dimensions: N queries, M keys, D width. Values and gradients are compared in float64.
"""

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize
from torch.utils._python_dispatch import TorchDispatchMode

from counterpoint.kernels import Grouped, info_nce, softmax, softmax_stats, softplus_sums
from counterpoint.kernels.few import FewViews
from counterpoint.kernels.identities import counts, sums
from counterpoint.kernels.plan import KEYS, ROWS

torch.set_num_threads(1)
D = 8
SIZES = [(1, 1), (3, 5), (ROWS + 37, 2 * KEYS + 91), (2 * KEYS + 91, ROWS + 37)]


def rows(n, seed=0, dtype=torch.float64, width=D):
    z = torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return normalize(z, dim=1).to(dtype).requires_grad_()


def ids(n, kinds, seed):
    return torch.randint(kinds, (n,), generator=torch.Generator().manual_seed(seed))


def gradients(value, *leaves):
    mix = torch.linspace(-1.0, 2.0, value.numel(), dtype=value.dtype)
    finite = torch.where(value == -torch.inf, torch.zeros_like(value), value)
    return torch.autograd.grad((finite.flatten() * mix).sum(), leaves, retain_graph=True)


def assert_same(ours, theirs, *leaves, **tolerance):
    tolerance = tolerance or {"rtol": 1e-9, "atol": 1e-11}
    torch.testing.assert_close(ours, theirs, **tolerance)
    for a, b in zip(gradients(ours, *leaves), gradients(theirs, *leaves)):
        assert not a.isnan().any()
        torch.testing.assert_close(a, b, **tolerance)


def plain(q, k, scale, exclude=None, only=None):
    """Row and column log-sum-exp and row mean from a table of logits with -inf for what is out."""
    logits = (scale[:, None] if isinstance(scale, torch.Tensor) and scale.ndim else scale) * (q @ k.T)
    inside = torch.ones_like(logits, dtype=torch.bool)
    if exclude is not None:
        inside &= exclude[0][:, None] != exclude[1][None]
    if only is not None:
        inside &= only[0][:, None] == only[1][None]
    weights = torch.where(inside, logits, -800.0).exp()  # e^-800 = 0 in float64, with gradient 0
    lse = [w.where(w > 0, 1.0).log().where(w > 0, -torch.inf) for w in (weights.sum(1), weights.sum(0))]
    mean = torch.where(inside, logits, 0.0).sum(1) / inside.sum(1).clamp(min=1)
    return lse[0], mean, lse[1]


def rule(kind, n, m):
    return {
        "none": {},
        "diagonal": {"exclude": (torch.arange(n), torch.arange(m))},
        "groups": {"exclude": (ids(n, 40, 1), ids(m, 40, 2))},
        "one group": {"exclude": (torch.zeros(n).long(), (torch.arange(m) % 2))},
        "all out": {"exclude": (torch.zeros(n).long(), torch.zeros(m).long())},
        "only": {"only": (ids(n, 30, 3).sort().values, ids(m, 40, 4).sort().values)},  # in order: nothing is moved
        "both": {"only": (ids(n, 30, 3), ids(m, 40, 4)), "exclude": (torch.arange(n), torch.arange(m))},
    }[kind]


@pytest.mark.parametrize("kind", ["none", "diagonal", "groups", "one group", "all out", "only", "both"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("tiled", [None, False, True], ids=["by size", "dense", "tiled"])
def test_stats_equal_the_plain_formula(size, kind, tiled):
    (n, m), rules = size, rule(kind, *size)
    q, k, scale = rows(n, 1), rows(m, 2), torch.tensor(4.0, dtype=torch.float64, requires_grad=True)
    ours = softmax_stats(q, k, scale, **rules, mean=True, columns=True, tiled=tiled)
    for a, b in zip(ours, plain(q, k, scale, **rules)):
        assert_same(a, b, q, k, scale)


@pytest.mark.parametrize("size", SIZES[1:3], ids=str)
@pytest.mark.parametrize("top", [5.0, 700.0], ids=["bounded", "running maxima"])
@pytest.mark.parametrize("tiled", [None, True], ids=["by size", "tiled"])
def test_a_scale_for_every_anchor(size, top, tiled):
    q, k = rows(size[0], 1), rows(size[1], 2)
    scale = torch.linspace(0.5, top, size[0], dtype=torch.float64).requires_grad_()
    ours = softmax_stats(q, k, scale, columns=True, tiled=tiled)
    logits = scale[:, None] * (q @ k.T)
    assert_same(ours.rows, logits.logsumexp(1), q, k, scale)
    assert_same(ours.columns, logits.logsumexp(0), q, k, scale)


@pytest.mark.parametrize("n", [1, 7, 2 * ROWS + 130])
@pytest.mark.parametrize("scale", [3.0, 900.0], ids=["bounded", "running maxima"])
@pytest.mark.parametrize("kinds", [None, 3, 10**6], ids=["no rule", "three groups", "self"])
def test_the_triangle_equals_the_whole_matrix(n, scale, kinds):
    z = rows(n)
    who = None if kinds is None else ids(n, kinds, 5) if kinds < 10 else torch.arange(n)
    exclude = None if who is None else (who, who)
    scale = torch.tensor(scale, dtype=torch.float64, requires_grad=True)
    half = softmax_stats(z, z, scale, exclude=exclude, tiled=True).rows
    whole = softmax_stats(z, z, scale, exclude=exclude, tiled=False).rows
    assert_same(half, whole, z, scale, rtol=1e-8, atol=1e-9)


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor made under it."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for item in made if isinstance(made, tuple | list) else [made]:
            if isinstance(item, torch.Tensor):
                self.elements = max(self.elements, item.untyped_storage().nbytes() // item.element_size())
        return made


def grouped_loss(q, k):
    groups = torch.arange(len(q)) // 4
    return info_nce(q, k, 0.1, positives=Grouped(groups, groups), direction="both")


@pytest.mark.parametrize(
    "loss",
    [
        lambda q, k: info_nce(q, k, 0.1, direction="both"),
        lambda q, k: info_nce(q, k, 0.001, direction="both", smoothing=0.1),
        lambda q, k: softmax_stats(q, q, 9.0, exclude=(torch.arange(len(q)),) * 2).rows.mean(),
        lambda q, k: softplus_sums(q, k, 10.0, -10.0, exclude=(torch.arange(len(q)),) * 2).mean(),
        grouped_loss,
    ],
    ids=["info_nce", "cold and smoothed", "self", "sigmoid", "grouped"],
)
def test_the_tiled_path_never_holds_the_matrix(loss):
    n = 3 * KEYS
    q, k = rows(n, 1, torch.float32), rows(n, 2, torch.float32)
    with Largest() as largest:
        loss(q, k).backward()
    assert ROWS * KEYS // 2 <= largest.elements <= ROWS * KEYS < n * n // 8


@pytest.mark.parametrize("tiled", [False, True])
def test_late_in_training_the_gradient_keeps_its_digits(tiled, monkeypatch):
    """Every sample has a direction of its own, 1 - softmax is about 1e-7: what float32 cannot tell from 0 beside 1."""
    monkeypatch.setattr(softmax, "DENSE", 0 if tiled else 10**9)
    n, temperature = 64, 0.05
    q = normalize(torch.eye(n, dtype=torch.float64) + 0.005 * rows(n, 3, width=n).detach(), dim=1)
    k = normalize(q + 0.005 * rows(n, 4, width=n).detach(), dim=1)
    exact, single = (
        [z.to(dtype, copy=True).requires_grad_() for z in (q, k)] for dtype in (torch.float64, torch.float32)
    )
    loss = info_nce(*exact, temperature)
    assert loss < 1e-6
    loss.backward(), info_nce(*single, temperature).backward()
    for a, b in zip(single, exact):
        assert (a.grad - b.grad).norm() < 1e-4 * b.grad.norm()


@pytest.mark.parametrize("temperature", [1e-3, 0.07, 1e3])
@pytest.mark.parametrize("n", [1, 2, ROWS + 3, 2 * KEYS + 200])
def test_extremes_stay_finite_in_float32(n, temperature):
    q = rows(n, 1, torch.float32).detach()
    q[: n // 2] = q[0]  # duplicates
    q[-1] = 0.0
    q.requires_grad_()
    loss = info_nce(q, q.detach().clone(), temperature, direction="both", smoothing=0.1)
    assert loss.isfinite() and torch.autograd.grad(loss, q)[0].isfinite().all()


@pytest.mark.parametrize("direction", ["forward", "both", 0.0, 0.25])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("n", [1, 9, 2 * KEYS + 60])
def test_info_nce_is_cross_entropy(n, smoothing, direction):
    q, k = rows(n, 1), rows(n, 2)
    t = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    logits, target = q @ k.T / t, torch.arange(n)
    alpha = {"forward": 1.0, "both": 0.5}.get(direction, direction)
    ways = [cross_entropy(x, target, label_smoothing=smoothing) for x in (logits, logits.T)]
    ours = info_nce(q, k, t, direction=direction, smoothing=smoothing)
    assert_same(ours, alpha * ways[0] + (1 - alpha) * ways[1], q, k, t)


@pytest.mark.parametrize("kinds", [None, 10**6, 4], ids=["no rule", "distinct", "several rows a sample"])
@pytest.mark.parametrize("temperature", [0.2, 0.002], ids=["bounded", "wide"])
@pytest.mark.parametrize("direction", ["forward", "both", 0.0, 0.25])
def test_the_loss_of_few_pairs_is_that_of_its_anchors(direction, temperature, kinds):
    """One call for value and gradient, against anchors that are asked for one by one and averaged."""
    q, k, who = rows(9, 1), rows(9, 2), None if kinds is None else ids(9, kinds, 3)
    t = torch.tensor(temperature, dtype=torch.float64, requires_grad=True)
    how = {"exclude": None if who is None else (who, who), "direction": direction}
    ours, theirs = (info_nce(q, k, t, **how, reduction=reduction) for reduction in ("mean", "none"))
    assert_same(ours, theirs.mean(), q, k, t)
    with torch.no_grad():
        assert torch.equal(info_nce(q, k, t, **how), ours)


@pytest.mark.parametrize("scale", [5.0, 500.0], ids=["bounded", "wide"])
def test_the_loss_of_few_views_is_that_of_its_anchors(scale):
    """Three views of five samples: every row is in two pairs."""
    z, who = rows(15), torch.arange(5).repeat(3)
    scale = torch.tensor(scale, dtype=torch.float64, requires_grad=True)
    a, b = (
        torch.cat(part)
        for part in zip(*[(torch.arange(5) + 5 * i, torch.arange(5) + 5 * j) for i, j in ((0, 1), (0, 2), (1, 2))])
    )
    ours = FewViews.apply(z, scale, who[:, None] == who, a, b)
    negatives = (scale * (z @ z.T)).masked_fill(who[:, None] == who, -torch.inf).logsumexp(1)
    positive = scale * (z[a] * z[b]).sum(1)
    theirs = torch.cat([torch.nn.functional.softplus(negatives[anchor] - positive) for anchor in (a, b)]).mean()
    assert_same(ours, theirs, z, scale, rtol=1e-8, atol=1e-11)


def test_indexed_positives_extra_and_weight():
    n, m = 7, 12
    q, k, queue = rows(n, 1), rows(m, 2), rows(5, 3)
    chosen, w = torch.randperm(m)[:n], torch.linspace(0.5, 2, n, dtype=torch.float64)
    logits, more = q @ k.T / 0.3, q @ queue.T / 0.3
    pos = logits[torch.arange(n), chosen]
    whole = torch.cat([logits, more], 1).logsumexp(1)
    extra = (softmax_stats(q, queue[:3], 1 / 0.3).rows, more[:, 3:])
    one = {"positives": chosen, "extra": extra, "reduction": "none"}
    assert_same(info_nce(q, k, 0.3, **one), whole - pos, q, k, queue)
    assert_same(info_nce(q, k, 0.3, weight=w, **one), whole - w * pos, q, k, queue)
    gone = torch.nn.functional.one_hot(chosen, m).bool()
    left = torch.cat([logits.masked_fill(gone, -torch.inf), more], 1).logsumexp(1)
    assert_same(info_nce(q, k, 0.3, denominator="negatives", **one), left - pos, q, k, queue)


@pytest.mark.parametrize("n", [1, 11, 2 * KEYS + 60])
@pytest.mark.parametrize("own", [True, False], ids=["own row in", "own row out"])
@pytest.mark.parametrize("direction", ["forward", "both"])
def test_grouped_positives(n, own, direction):
    q, k, names = rows(n, 1), rows(n, 2), ids(n, max(n // 3, 1), 7)
    self_ = None if own else (torch.arange(n), torch.arange(n))

    def one_way(logits):
        positive = names[:, None] == names[None]
        seen = torch.ones_like(positive)
        if not own:
            seen.fill_diagonal_(False)
        logp = logits - torch.where(seen, logits, -800.0).exp().sum(1, keepdim=True).clamp(min=1e-300).log()
        positive = positive & seen
        return (-torch.where(positive, logp, 0.0).sum(1) / positive.sum(1).clamp(min=1)).mean()

    logits = q @ k.T / 0.2
    theirs = one_way(logits) if direction == "forward" else (one_way(logits) + one_way(logits.T)) / 2
    ours = info_nce(q, k, 0.2, positives=Grouped(names, names), exclude=self_, direction=direction)
    assert_same(ours, theirs, q, k)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("tiled", [False, True])
def test_softplus_sums(size, tiled):
    q, k = rows(size[0], 1), rows(size[1], 2)
    t, b = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (10.0, -3.0))
    exclude = (ids(size[0], 30, 1), ids(size[1], 30, 2))
    terms = torch.log1p((t * (q @ k.T) + b).exp()).masked_fill(exclude[0][:, None] == exclude[1][None], 0.0)
    assert_same(softplus_sums(q, k, t, b, exclude=exclude, tiled=tiled), terms.sum(1), q, k, t, b)


@pytest.mark.parametrize("tiled", [None, False, True], ids=["by size", "dense", "tiled"])
def test_an_anchor_without_keys_has_a_mean_of_exactly_zero(tiled):
    q, k, out = rows(40, 1, torch.float32), rows(90, 2, torch.float32), (torch.zeros(40).long(), torch.zeros(90).long())
    stats = softmax_stats(q, k, 200.0, exclude=out, mean=True, tiled=tiled)
    assert (stats.rows == -torch.inf).all() and (stats.mean == 0).all()
    assert all((g == 0).all() for g in torch.autograd.grad(stats.mean.sum(), (q, k)))


def test_half_precision_rows_are_computed_in_float32():
    q, k = (rows(700, s).detach().bfloat16() for s in (1, 2))
    for tiled in (False, True):
        halves, singles = [q.clone().requires_grad_(), k], [q.float().requires_grad_(), k.float()]
        low, high = (softmax_stats(*z, 20.0, tiled=tiled).rows for z in (halves, singles))
        assert low.dtype == torch.float32 and torch.equal(low, high)
        low.sum().backward(), high.sum().backward()
        assert torch.equal(halves[0].grad, singles[0].grad.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert info_nce(q.float(), k.float(), 0.1) == info_nce(q, k, 0.1)


def test_empty_sides():
    q, none = rows(3), rows(0)
    for tiled in (False, True):
        assert (softmax_stats(q, none, 1.0, tiled=tiled).rows == -torch.inf).all()
        assert softmax_stats(none, q, 1.0, tiled=tiled).rows.shape == (0,)
    loss = info_nce(none, rows(0), 0.1, direction="both")
    loss.backward()
    assert loss == 0 and none.grad.shape == (0, D)


def test_leading_dimensions():
    q, k = rows(12).view(3, 4, D), rows(15, 2).view(3, 5, D)
    stats = softmax_stats(q, k, 3.0, columns=True)
    for i in range(3):
        one = softmax_stats(q[i], k[i], 3.0, columns=True)
        assert torch.allclose(stats.rows[i], one.rows) and torch.allclose(stats.columns[i], one.columns)


def test_same_input_same_bits():
    q, k = rows(1500, 1, torch.float32), rows(1500, 2, torch.float32)
    runs = [torch.autograd.grad(info_nce(q, k, 0.05, direction="both"), (q, k)) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*runs))


def test_second_derivatives_are_refused_with_a_remedy():
    q = rows(4)
    loss = softmax_stats(q, rows(4, 2), 1.0, tiled=True).rows.sum()
    with pytest.raises(RuntimeError, match="tiled=False"):
        torch.autograd.grad(loss, q, create_graph=True)
    dense = softmax_stats(q, rows(4, 2), 1.0, tiled=False).rows.sum()
    (first,) = torch.autograd.grad(dense, q, create_graph=True)
    assert torch.autograd.grad(first.sum(), q)[0].isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"positives": torch.tensor([0, 1]), "direction": "both"}, "one direction"),
        ({"direction": "backwards"}, "'forward', 'both' or a number"),
        ({"exclude": (torch.tensor([0, 1]), torch.tensor([1, 0]))}, "must cover every positive"),
        ({"smoothing": 0.1, "denominator": "negatives"}, "smoothing goes with"),
    ],
)
def test_arguments_that_do_not_go_together(arguments, message):
    with pytest.raises(ValueError, match=message):
        info_nce(rows(2), rows(2, 1), 0.1, **arguments)
    with pytest.raises(ValueError, match="2 queries and 3 keys"):
        info_nce(rows(2), rows(3), 0.1)


def test_counts_and_sums_of_the_seen_keys():
    keys, only, exclude = rows(9), (ids(5, 3, 1), ids(9, 3, 2)), (ids(5, 4, 3), ids(9, 4, 4))
    seen = (only[0][:, None] == only[1]) & (exclude[0][:, None] != exclude[1])
    assert torch.equal(counts(5, 9, exclude, only, keys.device), seen.sum(1))
    torch.testing.assert_close(sums(keys, exclude, only), seen.double() @ keys)


@pytest.mark.parametrize("tiled", [False, True])
def test_it_works_within_a_compiled_function(tiled, monkeypatch):
    """Dynamo breaks the graph at the kernel and goes on behind it; values and gradients stay."""
    monkeypatch.setattr(softmax, "DENSE", 0 if tiled else 10**9)
    q, k = rows(9, 1), rows(9, 2)
    loss = lambda a, b: 2 * info_nce(normalize(a, dim=1), normalize(b, dim=1), 0.2, direction="both")  # noqa: E731
    compiled = torch.compile(loss, backend="eager")
    assert_same(compiled(q, k), loss(q, k), q, k)
