"""The types that flow: rows know their sample, pairs are aligned, absence needs no test."""

import pytest
import torch

from counterpoint.batch import Batch, Encoded, Outputs, View, align, map_tensors
from counterpoint.by_hand.outputs import outputs
from counterpoint.errors import CounterpointError


def encoded(row, modality="a", view=0, role="global", seed=0):
    row = torch.as_tensor(row)
    z = torch.randn(len(row), 3, generator=torch.Generator().manual_seed(seed))
    return Encoded(modality, role, view, row, z, z)


def brute_force(a, b):
    return [(i, j) for i in range(len(a.row)) for j in range(len(b.row)) if a.row[i] == b.row[j]]


@pytest.mark.parametrize(
    "rows", [([0, 1, 2], [0, 1, 2]), ([0, 2, 5], [1, 2, 5, 7]), ([0, 0, 3], [3, 0]), ([1, 1, 2], [1, 1, 2, 2]), ([], [1]), ([2, 0], [0, 1])]
)  # fmt: skip
def test_align_joins_rows_of_one_sample(rows):
    a, b = (encoded(torch.tensor(r, dtype=torch.long), seed=i) for i, r in enumerate(rows))
    pair = align(a, b)
    expected = sorted(brute_force(a, b))
    assert len(pair.row) == len(expected)
    got = sorted(
        (int((a.z == q).all(1).nonzero()[0]), int((b.z == k).all(1).nonzero()[0])) for q, k in zip(pair.q, pair.k)
    )
    assert got == expected


def test_pairs_by_kind():
    views = [
        encoded([0, 1], "ecg", 0),
        encoded([0, 1], "ecg", 1),
        encoded([1], "text", 2),
        encoded([0, 1], "text", 3, "negative"),
    ]
    out = Outputs(views, Batch({}, torch.arange(2)), momentum=views[:3])
    names = lambda pairs: [(p.query.view, p.key.view) for p in pairs]  # noqa: E731
    assert names(out.pairs()) == [(0, 1), (0, 2), (1, 2)]
    assert names(out.pairs("within")) == [(0, 1)]
    assert names(out.pairs("across")) == [(0, 2), (1, 2)]
    assert names(out.pairs("text")) == [(2, 0), (2, 1)]
    assert names(out.pairs("within", keys="momentum")) == [(0, 1), (1, 0)]


def test_pairs_without_a_common_sample_are_left_out_and_zero_is_connected():
    views = [encoded([0], "ecg", 0), encoded([1], "text", 1)]
    for view in views:
        view.z.requires_grad_()
    out = Outputs(views, Batch({}, torch.arange(2)))
    assert out.pairs() == []
    out.zero().backward()
    assert all(torch.equal(view.z.grad, torch.zeros_like(view.z)) for view in views)


def test_stack_takes_the_samples_that_every_view_has():
    views = [encoded([0, 1, 3], view=0, seed=1), encoded([3, 0], view=1, seed=2)]
    z, row = Outputs(views, Batch({}, torch.arange(4))).stack()
    assert row.tolist() == [0, 3]
    assert torch.equal(z[0], views[0].z[[0, 2]]) and torch.equal(z[1], views[1].z[[1, 0]])


def test_an_unknown_group_equals_nothing():
    batch = Batch({}, torch.tensor([10, 11, 12]), groups={"patient": torch.tensor([4, -1, -1])})
    ids = Outputs([], batch).ids(encoded([0, 1, 2]), "patient").tolist()
    assert ids[0] == 4 and len(set(ids)) == 3


def test_map_visits_every_tensor_once_and_keeps_sharing():
    views = [encoded([0, 1], view=0), encoded([0, 1], view=1)]
    views[1].row = views[0].row
    seen = []
    moved = Outputs(views, Batch({"a": View("a", torch.zeros(2, 1), views[0].row)}, torch.arange(2))).map(
        lambda t: seen.append(1) or t.clone()
    )
    assert moved.student[0].row is moved.student[1].row is moved.batch.inputs["a"].row
    assert len(seen) == 5  # the shared row, one z (= h) a view, the input's data, the index


def test_view_slices_its_mask_and_meta():
    view = View(
        "a",
        torch.arange(12).view(4, 3),
        torch.arange(4),
        torch.ones(4, 3, dtype=torch.bool),
        meta={"box": torch.arange(4), "rate": 5},
    )
    part = view[1:3]
    assert part.row.tolist() == [1, 2] and part.mask.shape == (2, 3)
    assert part.meta["box"].tolist() == [1, 2] and part.meta["rate"] == 5


def test_outputs_of_bare_tensors():
    z = torch.randn(4, 3)
    assert len(outputs(z, z + 1).pairs()) == 1
    assert len(outputs({"image": z, "text": [z, z]}).pairs("across")) == 2
    with pytest.raises(CounterpointError, match=r"got input \(4, 3\), input \(3, 3\)"):
        outputs(z, z[:3])


def test_map_tensors_keeps_named_tuples():
    from counterpoint.batch import Features

    mapped = map_tensors(lambda t: t * 2, Features(torch.ones(1, 1)))
    assert isinstance(mapped, Features) and mapped.h.item() == 2 and mapped.tokens is None


def test_bare_tensors_for_every_kind_of_objective():
    """Momentum views and queues too, so that MoCo and BYOL work in a notebook."""
    import counterpoint

    torch.manual_seed(0)
    za, zb, ka, kb, held = (torch.randn(n, 4) for n in (6, 6, 6, 6, 9))
    given = {
        "moco": ({"queue": 9}, {"momentum": [ka, kb], "queues": {"keys": held}}),
        "byol": ({"dim": 4}, {"momentum": [ka, kb]}),
        "info_nce": ({"positives": "patient"}, {"groups": {"patient": torch.arange(6) // 2}}),
    }
    for name, (parameters, more) in given.items():
        loss, _ = counterpoint.build("objective", name, **parameters)(outputs(za, zb, **more))
        assert torch.isfinite(loss) and loss > 0
    with pytest.raises(CounterpointError, match=r"momentum=\[ka, kb\]"):
        counterpoint.build("objective", "moco")(outputs(za, zb))
    with pytest.raises(CounterpointError, match="wrap tensors"):
        counterpoint.build("objective", "nt_xent")(za)
    with pytest.raises(CounterpointError, match="'patient' is not a group of the batch; it has: none"):
        counterpoint.build("objective", "info_nce", positives="patient")(outputs(za, zb))
