"""The formula of the objective, written again as plain loops."""

import math

import torch

import counterpoint
from counterpoint.objectives.nt_xent import NTXent
from counterpoint_graphs.objectives import TeamUp


def views() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 5, 8, generator=random, dtype=torch.float64)
    return a.requires_grad_(), b.requires_grad_(), torch.rand(5, generator=random, dtype=torch.float64)


def by_hand(a: torch.Tensor, b: torch.Tensor, c: list[float], g: float, t: float) -> torch.Tensor:
    """Sums over nodes, with the strength of anchor and candidate both in the logits."""
    z = [torch.nn.functional.normalize(x, dim=-1) for x in (a, b)]
    s = lambda u, i, v, j: torch.exp(((z[u][i] * z[v][j]).sum() + g * (c[i] + c[j])) / t)  # noqa: E731
    terms = []
    for own, other in ((0, 1), (1, 0)):
        for i in range(len(a)):
            negatives = sum(s(own, i, own, j) + s(own, i, other, j) for j in range(len(a)) if j != i)
            terms.append(-torch.log(s(own, i, other, i) / (s(own, i, other, i) + negatives)))
    return sum(terms) / len(terms)


def test_value_and_gradient_are_those_of_the_formula():
    a, b, c = views()
    outputs = counterpoint.outputs(a, b, labels={"strength": c}, epoch=30)
    objective = TeamUp(temperature=0.4, start=10, ramp=40, most=2.0)
    loss, parts = objective(outputs)
    expected = by_hand(a, b, c.tolist(), 0.5, 0.4)
    assert math.isclose(loss.item(), expected.item(), rel_tol=1e-9) and parts["gamma"] == 0.5
    for got, wanted in zip(torch.autograd.grad(loss, (a, b)), torch.autograd.grad(expected, (a, b))):
        assert torch.allclose(got, wanted, rtol=1e-7, atol=1e-10)


def test_before_it_starts_it_is_nt_xent_and_it_stops_rising():
    a, b, c = views()
    outputs = counterpoint.outputs(a, b, labels={"strength": c}, epoch=0)
    loss, _ = TeamUp(temperature=0.4, start=10)(outputs)
    assert math.isclose(loss.item(), NTXent(temperature=0.4)(outputs)[0].item(), rel_tol=1e-9)
    assert TeamUp(start=10, ramp=40, most=2.0).gamma(10_000) == 2.0


def test_a_node_of_unknown_strength_counts_as_zero():
    a, b, c = views()
    losses = []
    for unknown in (float("nan"), 0.0):
        strength = torch.cat([c[:4], torch.tensor([unknown])])
        outputs = counterpoint.outputs(a, b, labels={"strength": strength}, epoch=50)
        losses.append(TeamUp()(outputs)[0].item())
    assert losses[0] == losses[1]
