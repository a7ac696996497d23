"""What all rows of a view share: drawn for the view, handed to encoders that ask for it, and the same for any rows."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from counterpoint.batch import Features, View
from counterpoint.randomness import Draw
from counterpoint.testing.finding import Broken
from counterpoint.testing.material import Trial
from counterpoint.testing.views import leaves_its_input_as_it_was, makes_a_view_of_each_row_alone
from counterpoint.towers.side_by_side import SideBySide
from counterpoint.towers.tower import Tower
from counterpoint.views.generator import ViewGenerator


@dataclass
class Table:
    """A tensor that has as many rows as the view by chance, and is not cut with it."""

    values: Tensor


def view(n: int = 4) -> View:
    return View("node", torch.arange(n)[:, None], torch.arange(n), meta={"table": Table(torch.arange(4.0))})


class Looks(nn.Module):
    """Looks its rows up in the table of the view; `seen` holds what it was called with."""

    width = 1

    def forward(self, data: Tensor, mask: Tensor | None = None, meta: dict | None = None) -> Tensor:
        self.seen = (mask, meta)
        return meta["table"].values[data[:, 0]][:, None]


class Plain(nn.Module):
    width = 1

    def forward(self, data: Tensor) -> Features:
        return Features(data.float())


def test_an_encoder_gets_the_meta_of_its_view_if_it_asks():
    rows = view()[torch.tensor([3, 1])]
    assert Tower("node", Looks(), nn.Identity())(rows, 0).h.flatten().tolist() == [3.0, 1.0]
    assert Tower("node", Plain(), nn.Identity())(rows, 0).h.flatten().tolist() == [3.0, 1.0]
    looks = Looks()
    Tower("node", looks, nn.Identity())(rows.replace(mask=torch.ones(2, 1, dtype=torch.bool)), 0)
    assert looks.seen[0].all() and looks.seen[1] is rows.meta


def test_so_do_the_encoders_of_several_stages_side_by_side():
    parts = {"one": Tower("node", Looks(), nn.Identity()), "two": Tower("node", Plain(), nn.Identity())}
    both = Tower("node", SideBySide(parts), nn.Identity())
    assert both(view(), 0).h.tolist() == [[0.0, 0.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]  # normalised


def test_what_is_shared_is_drawn_alike_for_any_rows_and_apart_by_view_and_name():
    drawn = lambda seed, ids, what: Draw(seed, torch.tensor(ids)).shared(what, 5).uniform().tolist()  # noqa: E731
    assert drawn(1, [7, 8], "edges") == drawn(1, [9], "edges") == drawn(1, [], "edges")
    assert len({tuple(drawn(seed, [7], what)) for seed in (1, 2) for what in ("edges", "features")}) == 4
    longer = Draw(1, torch.tensor([7])).shared("edges", 9).uniform().tolist()
    assert longer[:5] == drawn(1, [7], "edges")


class OfTheRows(ViewGenerator):
    """Its table depends on which rows are there."""

    def forward(self, view: View, draw: Draw) -> View:
        return view.replace(meta={"table": Table(draw.uniform()[:1])})


class OfTheView(ViewGenerator):
    def forward(self, view: View, draw: Draw) -> View:
        return view.replace(meta={"table": Table(draw.shared("table", 3).uniform())})


class InPlace(ViewGenerator):
    def forward(self, view: View, draw: Draw) -> View:
        view.meta["table"].values.mul_(2)
        return view


def test_the_kit_tells_shared_meta_that_depends_on_the_rows_or_is_written_to():
    trial = lambda step: Trial(None, step, view())  # noqa: E731
    makes_a_view_of_each_row_alone(trial(OfTheView))
    leaves_its_input_as_it_was(trial(OfTheView))
    with pytest.raises(Broken, match="what all rows share in `meta` depends on the rows"):
        makes_a_view_of_each_row_alone(trial(OfTheRows))
    with pytest.raises(Broken, match="changes its input in place"):
        leaves_its_input_as_it_was(trial(InPlace))
