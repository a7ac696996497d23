"""Dense objectives: where views lie in their sample, heads that project maps, and what follows from both.

Dimensions: n rows, S spatial axes, L cells of a map.
"""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import grid_sample, interpolate

import building
from building import Gradients, assert_same_state, loop, train
from counterpoint.batch import Features, View
from counterpoint.errors import ComponentError
from counterpoint.heads.dense import Dense, Slots
from counterpoint.heads.projection import MLP
from counterpoint.loop.optimizers import sgd
from counterpoint.objectives.dense import PixPro
from counterpoint.objectives.needs import Offers, check
from counterpoint.objectives.slotcon import SlotCon
from counterpoint.towers.momentum import MomentumTowers
from counterpoint.towers.sharing import share
from counterpoint.towers.tower import Tower
from counterpoint.views.branches import Branches
from counterpoint.views.copies import Copies
from counterpoint.views.generator import ViewGenerator
from counterpoint.views.pipeline import Pipeline
from counterpoint.views.place import PLACE, cells, diagonals, fractions, interpolation, moved, overlap
from counterpoint_toy.parts import Noise, Pairs
from objectives.scenes import D, scene

SIZES = [(24,), (24, 16), (24, 16, 12)]
each_number_of_axes = pytest.mark.parametrize("sizes", SIZES, ids=["1d", "2d", "3d"])


def coordinates(sizes, n=3):
    """A view (n, S, ...) whose channels say where in the sample each voxel has its centre."""
    axes = torch.meshgrid(*(torch.arange(size) + 0.5 for size in sizes), indexing="ij")
    return View("scan", torch.stack(axes).expand(n, -1, *sizes), torch.arange(n))


def cut(view, start, side):
    sizes = torch.tensor(view.data.shape[2:])
    data = torch.stack(
        [row[(slice(None), *(slice(a, a + side) for a in s))] for row, s in zip(view.data, start.tolist())]
    )
    share = torch.full((len(view), len(sizes)), float(side)) / sizes
    return view.replace(data=data, meta=moved(view, share, start / sizes))


def flip(view, which):
    data = torch.stack([row.flip([1 + a for a, f in enumerate(w) if f]) for row, w in zip(view.data, which.tolist())])
    return view.replace(data=data, meta=moved(view, 1.0 - 2.0 * which, which.float()))


def resize(view, size):
    mode = {3: "linear", 4: "bilinear", 5: "trilinear"}[view.data.ndim]
    return view.replace(data=interpolate(view.data, size=size, mode=mode, antialias=False))


@each_number_of_axes
def test_crops_flips_and_resizing_in_any_order_lead_back_to_the_sample(sizes):
    random, axes = torch.Generator().manual_seed(0), len(sizes)
    draw = lambda high: torch.randint(0, high, (3, axes), generator=random)  # noqa: E731
    view = cut(flip(coordinates(sizes), draw(2) == 1), draw(3), 10)
    view = flip(cut(flip(resize(view, 5), draw(2) == 1), draw(2), 4), draw(2) == 1)
    place = view.meta[PLACE]
    assert place.shape == (3, 1 + axes, axes)
    torch.testing.assert_close(
        cells(place, view.data.shape[2:]), view.data.flatten(2).transpose(1, 2), atol=1e-4, rtol=0
    )
    shown = fractions(place, cells(place, (7,) * axes))
    assert ((shown > 0) & (shown < 1)).all()
    torch.testing.assert_close(diagonals(place, (4,) * axes), torch.full((3,), (axes * 2.0**2) ** 0.5))


@each_number_of_axes
def test_a_map_is_read_between_its_cells(sizes):
    view = flip(
        cut(coordinates(sizes), torch.tensor([[1] * len(sizes)] * 3), 8), torch.tensor([[True] * len(sizes)] * 3)
    )
    points = 3 + 4 * torch.rand(3, 9, len(sizes), generator=torch.Generator().manual_seed(1))
    shares = interpolation(view.meta[PLACE], points, view.data.shape[2:])
    torch.testing.assert_close(shares.sum(2), torch.ones(3, 9))
    torch.testing.assert_close(shares @ view.data.flatten(2).transpose(1, 2), points)


@pytest.mark.parametrize("sizes", SIZES[1:], ids=["2d", "3d"])
def test_reading_beyond_the_centres_is_that_of_grid_sample_with_borders(sizes):
    place = coordinates(sizes).replace(meta={})
    place = moved(place, torch.ones(3, len(sizes)), torch.zeros(3, len(sizes)))[PLACE]
    u = torch.rand(3, 50, len(sizes), generator=torch.Generator().manual_seed(2))
    values = torch.randn(3, 4, *sizes, generator=torch.Generator().manual_seed(3))
    grid = (2 * u - 1).flip(-1).view(3, 50, *[1] * (len(sizes) - 1), len(sizes))
    expected = grid_sample(values, grid, padding_mode="border", align_corners=False).flatten(2).transpose(1, 2)
    shares = interpolation(place, u * torch.tensor(sizes), sizes)
    torch.testing.assert_close(shares @ values.flatten(2).transpose(1, 2), expected, atol=1e-5, rtol=1e-4)


def test_the_overlap_is_where_both_look():
    box = lambda corner, edges: torch.cat([torch.tensor([corner]), torch.diag(torch.tensor(edges))])[None]  # noqa: E731
    a, b = box([0.0, 0.0], [8.0, 6.0]), box([10.0, 2.0], [-6.0, 6.0])  # b is flipped: 4 to 10
    points, there = overlap(a, b, (2, 2))
    assert points[0].tolist() == [[5, 3], [5, 5], [7, 3], [7, 5]] and there.all()
    assert not overlap(a, box([8.5, 0.0], [3.0, 3.0]), (2, 2))[1].any()
    turned = torch.tensor([[[4.0, 0.0], [4.0, 4.0], [-4.0, 4.0]]])  # a diamond in a box of 8 by 8
    points, there = overlap(turned, box([0.0, 0.0], [8.0, 8.0]), (9, 9))
    inside = (points - 4).abs().sum(2) < 4
    assert torch.equal(there, inside) and 0 < int(inside.sum()) < 81


# --- objectives ------------------------------------------------------------------------------------------------------

MAKE = {"pixpro": lambda: PixPro(dim=D), "slotcon": lambda: SlotCon(dim=D, prototypes=5, hidden=6)}
each = pytest.mark.parametrize("name", MAKE)


def value(name, outputs):
    torch.manual_seed(0)
    return MAKE[name]().double()(outputs)[0]


def changed(outputs, view, change):
    """The outputs with one view as the students and the momentum encoders would see it otherwise."""
    swap = lambda side: [change(e) if e.view == view else e for e in side]  # noqa: E731
    return replace(outputs, student=swap(outputs.student), momentum=swap(outputs.momentum))


def flipped(e):
    place = View("ecg", torch.zeros(len(e.row), 1, 2, 3), e.row, meta=e.meta)
    meta = moved(
        place, torch.tensor([[1.0, -1.0]]).expand(len(e.row), 2), torch.tensor([[0.0, 1.0]]).expand(len(e.row), 2)
    )
    return replace(e, map=e.map.flip(-1), heads={**e.heads, "scores": e.heads["scores"].flip(-1)}, meta=meta)


@each
def test_a_flipped_view_counts_as_if_it_were_not(name):
    o = scene("three views")
    torch.testing.assert_close(value(name, changed(o, 1, flipped)), value(name, o))


def deepened(e):
    """The same in three axes, the first of which has one thin layer."""
    layer = lambda t: t[:, :, None]  # noqa: E731
    place = torch.nn.functional.pad(e.meta["place"], (1, 0))
    thin = torch.tensor([[1e-4, 0.0, 0.0]]).to(place).expand(len(place), 1, 3)
    meta = {**e.meta, "place": torch.cat([place[:, :1], thin, place[:, 1:]], 1)}
    return replace(e, map=layer(e.map), heads={**e.heads, "scores": layer(e.heads["scores"])}, meta=meta)


@each
def test_volumes_are_as_pictures(name):
    o = scene("rows missing")
    deep = changed(changed(o, 0, deepened), 1, deepened)
    torch.testing.assert_close(value(name, deep), value(name, o))


@each
def test_what_a_view_lacks_is_said_in_a_line(name):
    o = scene("two views")
    no_place = changed(o, 1, lambda e: replace(e, meta={}))
    with pytest.raises(ComponentError, match=rf"^objective '{name}': view 1 of 'ecg' does not say where it lies"):
        value(name, no_place)
    with pytest.raises(ComponentError, match="view 0 of 'ecg' has no map"):
        value(name, changed(o, 0, lambda e: replace(e, map=None)))
    with pytest.raises(ComponentError, match="3 spatial axes and its place 2"):
        value(name, changed(o, 0, lambda e: replace(e, map=e.map[..., None])))
    bare = check("recipe.yaml:3: objective", MAKE[name]().needs(), Offers({"scan": ["global", "global"]}, "toy"))
    assert any("record their place, and no step of views.scan does" in line for line in bare)
    assert any(f"add heads.scan: {{use: {'dense' if name == 'pixpro' else 'slots'}" in line for line in bare)


def test_prototypes_that_the_head_lacks_are_said_in_a_line():
    o = scene("two views")
    with pytest.raises(ComponentError, match=r"heads\.ecg gives no scores; use: slots does"):
        value("slotcon", changed(o, 1, lambda e: replace(e, heads={})))
    with pytest.raises(ComponentError, match=r"expected 7 prototypes; heads\.ecg has 5"):
        SlotCon(dim=D, prototypes=7).double()(o)


def test_parts_of_one_sample_are_not_compared():
    o = scene("two views")
    parts = {v: lambda e, v=v: replace(e, meta={**e.meta, "part": torch.arange(5) + v}) for v in (0, 1)}
    assert value("pixpro", changed(changed(o, 0, parts[0]), 1, parts[1])) == 0
    same = changed(changed(o, 0, parts[0]), 1, parts[0])
    torch.testing.assert_close(value("pixpro", same), value("pixpro", o))


def test_the_centre_follows_the_teacher_in_training_alone():
    m, o = SlotCon(dim=D, prototypes=5, hidden=6, centre_momentum=0.75).double(), scene("rows missing")
    m.eval()(o)
    assert not m.centre.any()
    m.train()(o)
    seen = torch.cat([e.heads["scores"].detach().flatten(2).transpose(1, 2).flatten(0, 1) for e in o.momentum])
    torch.testing.assert_close(m.centre, 0.25 * seen.mean(0))


# --- heads -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [Dense, Slots])
@each_number_of_axes
def test_every_place_is_projected_by_itself(cls, sizes):
    head = cls(map_width=6, dim=5, hidden=7).double().eval()
    seen = torch.randn(2, 6, *sizes, dtype=torch.float64)
    out = head(Features(torch.zeros(2, 9, dtype=torch.float64), map=seen))
    assert set(out) == {"z", *head.gives} and out["map"].shape == (2, 5, *sizes)
    torch.testing.assert_close(head(Features(seen[:, :, 0], map=seen.flip(2)))["map"], out["map"].flip(2))
    torch.testing.assert_close(out["z"], out["map"].flatten(2).mean(2))
    if cls is Slots:
        expected = torch.cosine_similarity(head.prototypes[3][:, None], out["map"].flatten(2), dim=1)
        torch.testing.assert_close(out["scores"][:, 3].flatten(1), expected)


def test_a_fine_map_is_averaged_and_z_may_have_a_head_of_its_own():
    head = Dense(map_width=6, dim=5, hidden=7, layers=1, grid=4, instance=MLP(width=9, dim=5))
    seen, h = torch.randn(2, 6, 12, 3), torch.randn(2, 9)
    out = head(Features(h, map=seen))
    assert out["map"].shape == (2, 5, 4, 3)
    torch.testing.assert_close(
        out["map"], head.stack(seen.unflatten(2, (4, 3)).mean(3).flatten(2)).unflatten(2, (4, 3))
    )
    assert torch.equal(out["z"], head.instance(h))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dense(map_width=4, layers=0), "head 'dense': dim, hidden, layers and grid are at least 1"),
        (lambda: Slots(map_width=4, prototypes=1), "head 'slots': prototypes are at least 2"),
        (lambda: Dense(map_width=4, dim=8, instance=MLP(width=4, dim=9)), "instance makes 9 numbers; expected dim, 8"),
        (lambda: Slots(map_width=4)(Features(torch.zeros(2, 4))), "head 'slots': the encoder gives no map"),
        (lambda: PixPro(dim=4, sharpness=0.5), "sharpness is at least 1"),
        (lambda: SlotCon(dim=4, temperature=0.0), "temperatures and hidden are positive"),
        (lambda: SlotCon(dim=4, group_weight=1.5), "are in"),
    ],
)
def test_a_mistake_is_refused(make, message):
    with pytest.raises(ComponentError, match=message):
        make()


def test_records_are_those_that_every_view_has():
    assert Pipeline("signal", [Copies(n=2), Noise(), Window()]).records == {PLACE}
    assert Pipeline("signal", [Noise()]).records == frozenset()
    half = Branches(global_steps=[Window()], local_steps=[Noise()])
    assert half.records == frozenset() and Branches(global_steps=[Window()], n_local=0).records == {PLACE}


# --- the loop --------------------------------------------------------------------------------------------------------


class Window(ViewGenerator):
    """40 of 64 steps of a signal."""

    records = frozenset({PLACE})

    def forward(self, view, draw):
        start = draw.integers(0, 25)[:, None]
        data = view.data.gather(2, (start + torch.arange(40))[:, None].expand(-1, view.data.shape[1], -1))
        return view.replace(data=data, meta=moved(view, torch.full_like(start, 40) / 64, start / 64))


class Mapped(nn.Module):
    """A convolution, its map (n, 16, 9) and the mean of it."""

    width, map_width, gives = 16, 16, frozenset({"map"})

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv1d(2, 16, 8, stride=4)

    def forward(self, data):
        seen = torch.tanh(self.stem(data))
        return Features(seen.mean(2), map=seen)


def dense_loop(name, monkeypatch, micro=None, lr=1e-2):
    torch.manual_seed(0)
    head = Slots(map_width=16, dim=D, hidden=8, prototypes=5, batch_norm=False)
    made = {"signal": Tower("signal", Mapped(), head)}
    steps = [Copies(n=2), Window(), Noise(sigma=0.2)]
    monkeypatch.setattr(building, "pipelines", lambda modalities: {"signal": Pipeline("signal", steps)})
    return loop({name: MAKE[name]()}, modalities=("signal",), micro=micro, optimizer=sgd(lr=lr), made=made)


@each
def test_micro_batches_give_the_gradient_of_the_whole_batch(name, monkeypatch):
    found = []
    for micro in (None, 5):
        seen = Gradients()
        module, data = dense_loop(name, monkeypatch, micro, 0.0), Pairs(size=16, modalities=["signal"])
        train(module, data, batch=16, epochs=1, callbacks=[seen], precision="64-true")
        found.append(seen.seen[0])
    whole, parts = found
    assert whole.keys() == parts.keys() and any(g.any() for g in whole.values())
    for key in whole:
        torch.testing.assert_close(parts[key], whole[key], rtol=1e-8, atol=1e-10)


@each
def test_a_run_that_goes_on_is_that_which_never_stopped(name, monkeypatch, tmp_path):
    data = Pairs(size=16, modalities=["signal"])
    straight, again = dense_loop(name, monkeypatch), dense_loop(name, monkeypatch)
    train(straight, data, batch=8, epochs=2)
    train(dense_loop(name, monkeypatch), data, batch=8, epochs=1).save_checkpoint(tmp_path / "half.ckpt")
    train(again, data, batch=8, epochs=2, ckpt=tmp_path / "half.ckpt")
    assert_same_state(again, straight)


def test_prototypes_have_a_momentum_of_their_own_and_are_shared():
    made = {m: Tower(m, Mapped(), Slots(map_width=16, dim=D, hidden=8, prototypes=5)) for m in ("a", "b")}
    share(made)
    momentum = MomentumTowers(made)
    own = made["a"].head.prototypes
    assert made["b"].head.prototypes is own and momentum.towers["a"].head.prototypes is not own
    before = own.detach().clone()
    with torch.no_grad():
        own += 1
    momentum.update(made, 0.9)
    torch.testing.assert_close(momentum.towers["a"].head.prototypes, before + 0.1)
