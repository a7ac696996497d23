"""Optimizers in one pass over memory: the published rule, however weights and gradients lie in memory."""

from copy import deepcopy

import pytest
import torch

from counterpoint.loop.optimizers import adam, adamw, sgd

LR, DECAY, FIRST, SECOND, EPS = 1e-2, 0.1, 0.9, 0.999, 1e-8
TORCHS = {adam: torch.optim.Adam, adamw: torch.optim.AdamW, sgd: torch.optim.SGD}
MAKES = [pytest.param(make, options, id=f"{make.__name__}{len(options) or ''}") for make, options in
         [(adam, {}), (adamw, {}), (sgd, {"momentum": 0.0}), (sgd, {"momentum": 0.9, "nesterov": False}),
          (sgd, {"momentum": 0.9, "nesterov": True, "lr": LR})]]  # fmt: skip


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def by_rule(w, gradients, make, momentum=0.0, nesterov=False, lr=LR):
    """Kingma and Ba, 2015, algorithm 1; with decay apart, Loshchilov and Hutter, 2019, algorithm 2; torch's momentum."""
    w, m, v = w.double(), 0.0, 0.0
    for t, g in enumerate(gradients, start=1):
        g = g.double() + (0.0 if make is adamw else DECAY * w)
        if make is sgd:
            m = momentum * m + g
            w = w - lr * (g + momentum * m if nesterov else m)
            continue
        m, v = FIRST * m + (1 - FIRST) * g, SECOND * v + (1 - SECOND) * g * g
        w = w - LR * (DECAY * w if make is adamw else 0.0)
        w = w - LR * (m / (1 - FIRST**t)) / ((v / (1 - SECOND**t)).sqrt() + EPS)
    return w


def plain(x):
    return x.contiguous()


def last(x):
    return x.to(memory_format=torch.channels_last)


def turned(x):
    return x.transpose(0, 1).contiguous().transpose(0, 1)


@pytest.mark.parametrize("lies", [plain, last, turned])
@pytest.mark.parametrize("falls", [plain, last, turned])
@pytest.mark.parametrize("make, options", MAKES)
def test_a_step_is_the_published_one_however_weights_and_gradients_lie(make, options, lies, falls):
    start, gradients = torch.randn(5, 4, 3, 3), torch.randn(6, 5, 4, 3, 3)
    weight = torch.nn.Parameter(lies(start.clone()))
    optimizer = make(**{"lr": LR, "weight_decay": DECAY} | options)([{"params": [weight]}])
    for gradient in gradients:
        weight.grad = falls(gradient)
        optimizer.step()
    expected = by_rule(start, gradients, make, **options)
    torch.testing.assert_close(weight.detach().double(), expected, rtol=1e-5, atol=1e-6)
    assert weight.stride() == lies(start).stride()


@pytest.mark.parametrize("make, options", MAKES)
def test_a_checkpoint_of_the_form_before_goes_on_in_that_form(make, options):
    """What earlier versions wrote ends with the bits that it would have ended with."""
    start, gradients = torch.randn(7, 9), torch.randn(6, 7, 9)
    options = {"lr": LR, "weight_decay": DECAY} | options

    def steps(optimizer, weight, some):
        for gradient in some:
            weight.grad = gradient.clone()
            optimizer.step()

    straight = torch.nn.Parameter(start.clone())
    before = TORCHS[make]([straight], **options)
    steps(before, straight, gradients[:3])
    resumed, state = torch.nn.Parameter(straight.detach().clone()), deepcopy(before.state_dict())
    after = make(**options)([{"params": [resumed]}])
    after.load_state_dict(state)
    steps(before, straight, gradients[3:])
    steps(after, resumed, gradients[3:])
    assert torch.equal(straight, resumed)


@pytest.mark.parametrize("stored", [plain, last, turned])
@pytest.mark.parametrize("make, options", MAKES)
def test_a_run_goes_on_with_the_bits_of_one_that_was_not_ended(make, options, stored):
    """However its state was laid out when it was stored."""
    start, gradients = torch.randn(5, 4, 3, 3), torch.randn(6, 5, 4, 3, 3)
    made = make(**{"lr": LR, "weight_decay": DECAY} | options)
    straight, weights = torch.nn.Parameter(last(start)), torch.nn.Parameter(last(start))
    whole, first = made([{"params": [straight]}]), made([{"params": [weights]}])
    for number, gradient in enumerate(gradients):
        if number == 3:
            state, weights = deepcopy(first.state_dict()), torch.nn.Parameter(weights.detach().clone())
            for found in state["state"].values():
                found |= {n: stored(x) for n, x in found.items() if isinstance(x, torch.Tensor) and x.ndim == 4}
            first = made([{"params": [weights]}])
            first.load_state_dict(state)
        for optimizer, weight in ((whole, straight), (first, weights)):
            weight.grad = gradient.clone()
            optimizer.step()
    assert torch.equal(straight, weights)


@pytest.mark.parametrize("make, options", MAKES)
def test_a_weight_with_gaps_in_memory_is_stepped_alone(make, options):
    memory, gradients = torch.randn(5, 8), torch.randn(6, 5, 4)
    weight, start = torch.nn.Parameter(memory[:, ::2]), memory[:, ::2].clone()
    between = memory[:, 1::2].clone()
    optimizer = make(**{"lr": LR, "weight_decay": DECAY} | options)([{"params": [weight]}])
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
    torch.testing.assert_close(
        weight.detach().double(), by_rule(start, gradients, make, **options), rtol=1e-5, atol=1e-6
    )
    assert torch.equal(memory[:, 1::2], between)


@pytest.mark.parametrize("make, options", MAKES)
def test_a_sparse_gradient_is_taken(make, options):
    table, start = torch.nn.Embedding(6, 3, sparse=True), torch.randn(6, 3)
    table.weight.data.copy_(start)
    optimizer = make(**{"lr": LR, "weight_decay": DECAY} | options)([{"params": [table.weight]}])
    table(torch.tensor([1, 4, 1])).sum().backward()
    gradient = table.weight.grad.to_dense()
    optimizer.step()
    expected = by_rule(start, [gradient], make, **options)
    torch.testing.assert_close(table.weight.detach().double(), expected, rtol=1e-5, atol=1e-6)
