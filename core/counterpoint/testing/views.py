"""What holds for every view generator. Dimensions: n rows of a view."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from counterpoint.batch import View, map_tensors
from counterpoint.randomness import Draw, seed_all
from counterpoint.testing.device import check_moves, other_device
from counterpoint.testing.finding import Broken
from counterpoint.testing.material import Trial

COPIES = 16  # equal rows among which a random step must make a difference
SEEDS = (11, 12, 13)
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def made_of(trial: Trial, view: View, seed: int = SEEDS[0], world: int = 0) -> list[View]:
    """What the step, built anew, makes of a view; `world` is what torch's, numpy's and python's generators are at."""
    step = trial.build()
    seed_all(world)
    made = step(view, Draw(seed, 100 + view.row))
    return list(made) if isinstance(made, list | tuple) else [made]


def copied(view: View) -> View:
    return map_tensors(torch.clone, view)


def fits(trial: Trial) -> None:
    made_of(trial, copied(trial.view))


def makes_views(trial: Trial) -> None:
    view = copied(trial.view)
    made = made_of(trial, view)
    for one in made:
        if not isinstance(one, View):
            raise Broken(
                "it does not return a View",
                expected="a View or a list of Views",
                got=type(one).__name__,
                mend="return view.replace(data=...)",
            )
        if len(one.data) != len(one.row) or (one.mask is not None and len(one.mask) != len(one.row)):
            raise Broken(
                "data, row and mask of its view differ in their rows",
                expected=f"as many rows as `row`: {len(one.row)}",
                got=f"data {tuple(one.data.shape)}, mask {None if one.mask is None else tuple(one.mask.shape)}",
                mend="change data with view.replace(data=...), select rows with view[rows]",
            )
        if not torch.isin(one.row, view.row).all():
            raise Broken(
                "its view has rows of samples that were not there",
                expected="`row` says which sample of the batch each row belongs to",
                got=str(one.row.tolist()[:8]),
                mend="keep view.row, or select rows with view[rows]",
            )
    roles = trial.build().layout([view.role])
    if roles != [one.role for one in made]:
        raise Broken(
            "it makes other views than layout() says",
            expected=f"views of the roles {roles}",
            got=str([one.role for one in made]),
            mend="define layout(roles): the roles of the views that come out, known without running",
        )


def keeps_the_type_of_floats(trial: Trial) -> None:
    before = trial.view.data.dtype
    for one in made_of(trial, copied(trial.view)):
        after = one.data.dtype
        if (after != before) if before.is_floating_point else after not in (before, torch.float32):
            raise Broken(
                "its view has another type than its data",
                expected=str(before) if before.is_floating_point else f"{before} or torch.float32",
                got=str(after),
                mend="return data.to(view.data.dtype)",
            )


def leaves_its_input_as_it_was(trial: Trial) -> None:
    view = copied(trial.view)
    kept = copied(view)
    made_of(trial, view)
    trial.build().prepare(view)
    changed = [name for name in ("data", "row", "mask") if not _same(getattr(view, name), getattr(kept, name))]
    if changed or view.meta.keys() != kept.meta.keys() or not _same_meta(view.meta, kept.meta):
        raise Broken(
            "it changes its input in place",
            expected="the view that came in as it was: other views are made of it, too",
            got=f"another {', '.join(changed) or 'meta'}",
            mend="no `data[...] = x`, `data += x` or `x.mul_()` on view.data: compute a new tensor, or clone() first",
        )


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b or (a is not None and b is not None and torch.equal(a, b))


def _same_meta(a: dict, b: dict) -> bool:
    """Whether all tensors in them, however deep, are equal."""
    found: list[list[Tensor]] = [[], []]
    for meta, into in zip((a, b), found):
        map_tensors(lambda t, into=into: into.append(t) or t, meta)
    return len(found[0]) == len(found[1]) and all(map(torch.equal, *found))


def makes_the_same_view_of_the_same_seed(trial: Trial) -> None:
    """Whatever torch's, numpy's and python's own generators are at."""
    once, again = (made_of(trial, copied(trial.view), world=world) for world in (1, 2))
    alike = [
        _same(a.data, b.data) and _same(a.mask, b.mask) and _same_meta(a.meta, b.meta) for a, b in zip(once, again)
    ]
    if not all(alike):
        raise Broken(
            "the same seed makes another view the second time",
            expected="a view is a function of the seed, the step and the sample: a resumed run sees the same",
            got="other data",
            mend="take every random number from `draw`: draw.uniform, draw.normal, draw.chance; no torch.rand, no numpy",
        )


def draws_for_each_sample_on_its_own(trial: Trial) -> None:
    """Copies of one row as different samples do not all become the same view, where chance has a part in it at all."""
    view = copied(trial.view)[torch.zeros(COPIES, dtype=torch.int64)].replace(row=torch.arange(COPIES))
    found = [made_of(trial, copied(view), seed) for seed in SEEDS]
    for number, views in enumerate(zip(*found)):
        random = any(
            a.data.shape != b.data.shape or not torch.equal(a.data[:1], b.data[:1]) for a, b in pairwise(views)
        )
        if random and all(len(one.data) and torch.equal(one.data, one.data[:1].expand_as(one.data)) for one in views):
            raise Broken(
                "all samples of a batch share one random draw",
                expected=f"{COPIES} copies of one row, as different samples, become different views",
                got=f"{COPIES} equal rows in view {number}, which differ from seed to seed",
                mend="draw.uniform() and others give a number for each row, (n, ...): use each row's own, not [0], not torch.rand(1)",
            )


def makes_a_view_of_each_row_alone(trial: Trial) -> None:
    """What a row becomes does not depend on the rows beside it, unless the step says `whole_batch`."""
    if getattr(trial.build(), "whole_batch", False):
        return
    view = copied(trial.view)
    rows = torch.arange(1, len(view))
    together, apart = made_of(trial, copied(view)), made_of(trial, copied(view[rows]))
    for a, b in zip(together, apart):
        kept = torch.isin(a.row, view.row[rows])
        if not _alike(a[kept] if not kept.all() else a, b):
            raise Broken(
                "the view of a row depends on the rows beside it",
                expected="the same view of a sample in any batch, micro-batch and process",
                got="other data without the first row",
                mend="let each row use its own numbers of `draw`; a step that needs all rows says whole_batch = True",
            )
        if not _same_meta(_shared(a), _shared(b)):
            raise Broken(
                "what all rows share in `meta` depends on the rows",
                expected="the same in any batch, micro-batch and process",
                got=f"other values of {', '.join(_shared(a))} without the first row",
                mend="draw it for the view, not for its rows: draw.shared('edges', count).uniform()",
            )


def _shared(view: View) -> dict:
    """What of the meta is no tensor with a row for each of the view's."""
    rows = len(view)
    return {k: v for k, v in view.meta.items() if not (isinstance(v, Tensor) and v.ndim and len(v) == rows)}


def _alike(a: View, b: View) -> bool:
    """Equal but for rounding, and for padding at the ends."""
    if len(a) != len(b) or a.data.ndim != b.data.ndim:
        return False
    common = tuple(slice(0, min(x, y)) for x, y in zip(a.data.shape, b.data.shape))
    x, y = a.data[common].double(), b.data[common].double()
    return torch.allclose(x, y, equal_nan=True, **CLOSE)


def prepares_without_chance(trial: Trial) -> None:
    step = trial.build()
    seed_all(1)
    once = step.prepare(copied(trial.view))
    seed_all(2)
    again = step.prepare(copied(trial.view))
    if not isinstance(once, View) or not _same(once.data, again.data) or len(once) != len(trial.view):
        raise Broken(
            "prepare() is not one fixed view of every row",
            expected="what an evaluation sees: a View of the same rows, without chance",
            got=type(once).__name__ if not isinstance(once, View) else f"{len(once)} rows of {len(trial.view)}",
            mend="return the view as it is, unless the step is a preparation such as a spectrogram",
        )


def moves_to_another_device(trial: Trial) -> None:
    """Whole; where there is a GPU, views of rows that are there stay there."""
    step, device = trial.build(), other_device()
    check_moves(step)
    if device is None:
        return
    view = copied(trial.view).to(device)
    made = step.to(device)(view, Draw(SEEDS[0], 100 + view.row))
    for one in made if isinstance(made, list | tuple) else [made]:
        if one.data.device.type != device.type:
            raise Broken(
                f"its view of rows on {device} lies elsewhere",
                expected=str(device),
                got=str(one.data.device),
                mend="make new tensors on the device of the data: torch.arange(n, device=view.data.device)",
            )


def checks(trial: Trial) -> Iterator:
    yield from (
        makes_views,
        keeps_the_type_of_floats,
        leaves_its_input_as_it_was,
        makes_the_same_view_of_the_same_seed,
        draws_for_each_sample_on_its_own,
        makes_a_view_of_each_row_alone,
        prepares_without_chance,
        moves_to_another_device,
    )
