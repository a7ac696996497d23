"""Properties of every encoder of the pack."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from counterpoint.batch import Features
from counterpoint.errors import ComponentError
from counterpoint_points3d.encoders import dgcnn
from counterpoint_points3d.encoders.descriptor import WIDTH, global_geometry
from counterpoint_points3d.encoders.dgcnn import DGCNN, EdgeConv, max_over, neighbours
from counterpoint_points3d.encoders.distribution import ShapeDistribution
from counterpoint_points3d.encoders.pointnet import PointNet
from counterpoint_points3d.views.clouds import framed

CHANNELS, POINTS = 6, 96
MAKERS = {
    "pointnet": lambda: PointNet(channels=CHANNELS, widths=(16, 32)),
    "pointnet_mean": lambda: PointNet(channels=CHANNELS, widths=(16, 32), pool="max_mean", scale="log", norm="layer"),
    "pointnet_keep": lambda: PointNet(channels=CHANNELS, widths=(16,), scale="keep"),
    "pointnet_descriptor": lambda: PointNet(channels=CHANNELS, widths=(16, 32), norm="layer", descriptor=True, up=2),
    "dgcnn": lambda: DGCNN(channels=CHANNELS, widths=(16, 16), wide=32, k=8, norm="layer"),
    "dgcnn_batch": lambda: DGCNN(channels=CHANNELS, widths=(16, 16), wide=32, k=8, scale="log"),
    "dgcnn_static": lambda: DGCNN(channels=CHANNELS, widths=(16, 16), wide=32, k=200, dynamic=False),
    "shape_distribution": lambda: ShapeDistribution(),
}
every = pytest.mark.parametrize("name", MAKERS)
trained = pytest.mark.parametrize("name", [name for name in MAKERS if name != "shape_distribution"])


def build(name: str):
    torch.manual_seed(0)
    return h_alone(MAKERS[name]())


def h_alone(encoder):
    """The encoder with its tokens left out, which most properties say nothing of."""
    encoder.register_forward_hook(lambda module, data, out: out.h if isinstance(out, Features) else out)
    return encoder


def clouds(n: int = 4, points: int = POINTS, channels: int = CHANNELS) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, channels, points, generator=generator) * torch.rand(n, 1, 1, generator=generator)


@every
@pytest.mark.parametrize("train", [True, False])
def test_h_has_the_width_it_says(name, train):
    encoder = build(name).train(train)
    assert isinstance(encoder.width, int)
    for n, points in ((4, POINTS), (1, 7), (3, 301)):
        h = encoder(clouds(n, points))
        assert h.shape == (n, encoder.width) and h.dtype == torch.float32 and torch.isfinite(h).all()


@every
def test_zero_rows_give_zero_rows(name):
    encoder = build(name).eval()
    assert encoder(clouds(0)).shape == (0, encoder.width)


@trained
def test_the_order_of_the_points_does_not_matter(name):
    encoder, data = build(name).eval(), clouds()
    order = torch.randperm(POINTS, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(encoder(data[..., order]), encoder(data), atol=1e-5, rtol=1e-4)


@every
def test_a_row_does_not_depend_on_the_batch_it_is_in(name):
    encoder, data = build(name).eval(), clouds(6)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    h = encoder(data)
    assert torch.equal(encoder(data), h)
    torch.testing.assert_close(encoder(data[order]), h[order], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(encoder(data[2:3]), h[2:3], atol=1e-5, rtol=1e-4)


@every
@pytest.mark.parametrize("short", [5, 61, POINTS])
def test_padding_does_not_change_h(name, short):
    encoder, data = build(name).eval(), clouds(2)
    mask = torch.arange(POINTS) < torch.tensor([[POINTS], [short]])
    h = encoder(data.masked_fill(~mask[:, None], 1e6), mask)  # whatever stands in the padding
    torch.testing.assert_close(h[0], encoder(data[:1])[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(h[1], encoder(data[1:, :, :short])[0], atol=1e-4, rtol=1e-4)


@trained
@pytest.mark.parametrize("short", [5, 61, POINTS])
def test_tokens_are_the_points_that_h_is_pooled_of(name, short):
    torch.manual_seed(0)
    encoder, data = MAKERS[name]().eval(), clouds(2)
    mask = torch.arange(POINTS) < torch.tensor([[POINTS], [short]])
    both, alone = encoder(data.masked_fill(~mask[:, None], 1e6), mask), encoder(data[1:, :, :short])
    width = encoder.token_width
    assert encoder.gives == {"tokens"} and both.tokens.shape == (2, POINTS, width) and torch.equal(both.mask, mask)
    assert alone.mask.all() and alone.mask.shape == (1, short)
    torch.testing.assert_close(both.tokens[1, :short], alone.tokens[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(both.tokens.masked_fill(~mask[..., None], -torch.inf).amax(1), both.h[:, :width])


@trained
def test_training_on_padded_clouds_does_not_see_the_padding(name):
    data, mask = clouds(2), torch.arange(POINTS) < torch.tensor([[70], [40]])
    gradients = []
    for points, value in ((70, 0.0), (POINTS, 1e6)):  # the same clouds with little padding and with much
        encoder = build(name)
        padded = data.masked_fill(~mask[:, None], value)[..., :points]
        encoder(padded, mask[:, :points]).square().sum().backward()
        gradients.append([parameter.grad for parameter in encoder.parameters()])
        assert all(torch.isfinite(g).all() for g in gradients[-1])
    for few, many in zip(*gradients):
        torch.testing.assert_close(few, many, atol=1e-3, rtol=1e-3)


@trained
def test_a_mask_without_padding_changes_nothing(name):
    encoder, data = build(name), clouds()
    plain = encoder(data)
    torch.testing.assert_close(encoder(data, torch.ones(4, POINTS, dtype=torch.bool)), plain, atol=1e-4, rtol=1e-4)


@trained
def test_gradients_reach_every_parameter(name):
    encoder = build(name)
    h = encoder(clouds())
    (h * torch.randn(h.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    for path, parameter in encoder.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), path
        assert parameter.grad.abs().max() > 0, path


@every
def test_different_clouds_have_different_h(name):
    h = build(name).eval()(clouds())
    assert torch.cdist(h, h)[0, 1] > 1e-4


@every
def test_weights_travel_through_a_state_dict(name):
    first, second = build(name).eval(), h_alone(MAKERS[name]()).eval()
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(clouds()), second(clouds()))


def test_place_and_size_are_seen_where_they_are_asked_for():
    data = clouds(channels=3)
    moved, larger = data + torch.tensor([[5.0], [-3.0], [1.0]]), data * 3
    torch.testing.assert_close(framed(moved, None, "unit"), framed(data, None, "unit"), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(framed(larger, None, "unit"), framed(data, None, "unit"), atol=1e-5, rtol=1e-4)
    assert framed(data, None, "unit").square().sum(1).amax(1).sub(1).abs().max() < 1e-5
    gain = framed(larger, None, "log")[:, 3:] - framed(data, None, "log")[:, 3:]
    torch.testing.assert_close(gain, torch.full_like(gain, float(np.log(3.0))), atol=1e-5, rtol=0)
    assert torch.equal(framed(moved, None, "keep"), moved)


def test_a_flat_cloud_has_finite_features():
    data = clouds(channels=3)
    data[:, 1] = 0.0
    for scale in ("unit", "log"):
        assert torch.isfinite(framed(data, None, scale)).all()


def plain_neighbours(x, k, real):
    """One point at a time, by the definition."""
    found = []
    for i in range(x.shape[1]):
        distance = [(float((x[:, i] - x[:, j]).square().sum()), j) for j in range(x.shape[1]) if real[j]]
        found.append({j for _, j in sorted(distance)[:k]})
    return found


@pytest.mark.parametrize("held", [1 << 24, 700])
def test_neighbours_are_those_of_a_plain_loop_whatever_is_held_at_a_time(held, monkeypatch):
    monkeypatch.setattr(dgcnn, "HELD", held)
    x = torch.randn(3, 4, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mask = torch.arange(30) < torch.tensor([[30], [12], [4]])
    near = neighbours(x, 6, mask)
    assert near.shape == (3, 30, 6)
    for row in range(3):
        expected = plain_neighbours(x[row], 6, mask[row])
        for point in range(int(mask[row].sum())):
            assert set(near[row, point].tolist()) == expected[point]


def test_an_edge_convolution_is_that_of_a_plain_loop_in_value_and_gradient():
    torch.manual_seed(0)
    edge = EdgeConv(4, 5, "layer").double()
    x = torch.randn(2, 4, 12, dtype=torch.float64, requires_grad=True)
    near = neighbours(x, 3)
    out = edge(x, near, None)
    out.square().sum().backward()
    fast, x.grad = x.grad, None
    points = []
    for row in range(2):
        for i in range(12):
            own = x[row, :, i]
            each = [edge.difference.weight @ (x[row, :, j] - own) + edge.own.weight @ own for j in near[row, i]]
            highest = torch.stack(each).amax(0)
            points.append(torch.nn.functional.leaky_relu(edge.norm(highest[None, :, None])[0, :, 0], 0.2))
    plain = torch.stack(points).view(2, 12, 5).transpose(1, 2)
    torch.testing.assert_close(out, plain)
    plain.square().sum().backward()
    torch.testing.assert_close(fast, x.grad)


def test_the_maximum_over_neighbours_is_that_of_a_gather():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 20, generator=generator)
    near = torch.randint(0, 20, (2, 20, 7), generator=generator)
    whole = x[:, :, None].expand(-1, -1, 20, -1).gather(3, near[:, None].expand(-1, 5, -1, -1)).amax(-1)
    assert torch.equal(max_over(x, near), whole)


def test_the_shape_distribution_is_a_histogram_and_sizes_and_has_no_parameters():
    encoder, data = ShapeDistribution(bins=16), clouds(channels=3)
    h = encoder(data)
    assert list(encoder.parameters()) == []
    torch.testing.assert_close(h[:, :16].sum(1), torch.ones(4), atol=1e-5, rtol=0)
    turned = data[:, [2, 1, 0]] * torch.tensor([[1.0], [1.0], [-1.0]])  # a quarter about y
    torch.testing.assert_close(encoder(turned), h, atol=1e-5, rtol=1e-5)
    extent = (data.amax(-1) - data.amin(-1)).log()
    torch.testing.assert_close(h[:, 16], extent[:, 1], atol=1e-5, rtol=1e-5)


def test_the_descriptor_is_sizes_and_shares_of_the_points_in_every_cell():
    data = torch.rand(1, 3, 200, generator=torch.Generator().manual_seed(0)) * torch.tensor([[1.0], [2.0], [0.5]])
    found, point = global_geometry(data, None, 1)[0], data[0]
    assert found.shape == (WIDTH,) and torch.isfinite(found).all()
    extent = point.amax(1) - point.amin(1)
    torch.testing.assert_close(found[:3], extent.log())
    along = ((point[0] - point[0].amin()) / extent[0] * 16).long().clamp(max=15).bincount(minlength=16) / 200
    torch.testing.assert_close(found[3:19], (along * 16).sqrt())
    ends = torch.tensor([3, 19, 35, 51, 87, 151, 215, WIDTH])
    for start, end in pairwise(ends.tolist()):  # each histogram sums to one
        torch.testing.assert_close(found[start:end].square().mean(), torch.tensor(1.0))
    torch.testing.assert_close(global_geometry(data * 4, None, 1)[0, 3:], found[3:])
    assert torch.isfinite(global_geometry(data * torch.tensor([[1.0], [0.0], [1.0]]), None, 1)).all()


@pytest.mark.parametrize("name", ["pointnet", "dgcnn_batch"])
def test_autocast_stays_close(name):
    encoder, data = build(name).eval(), clouds()
    with torch.autocast("cpu", torch.bfloat16):
        h = encoder(data)
    assert torch.nn.functional.cosine_similarity(h.float(), encoder(data)).min() > 0.98


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: PointNet(channels=2), "3 channels or more .* the data has 2"),
        (lambda: PointNet(channels=3, widths=()), "widths of 1 or more"),
        (lambda: PointNet(channels=3, up=3), "up is an axis, 0, 1 or 2; got 3"),
        (lambda: DGCNN(channels=3, k=0), "k is 1 or more; got 0"),
        (lambda: DGCNN(channels=1), "points3d.dgcnn"),
        (lambda: ShapeDistribution(bins=1), "bins of 2 or more"),
    ],
)
def test_a_mistake_is_refused(make, message):
    with pytest.raises(ComponentError, match=message):
        make()
