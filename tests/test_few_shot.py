"""Few-shot episodes against a plain loop, their draw, and the transport of prototypes."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from counterpoint.errors import ComponentError, CounterpointError
from counterpoint.evaluate.few_shot import FewShot, draw, nearest_is_own, one_each, transported
from counterpoint.evaluate.rows import rows
from test_evaluate import clustered, embeddings, normal, shuffled, values


def plain_transport(p, q, epsilon=0.05):
    """One episode by alternate scaling of the kernel, in numpy."""
    cost = ((p[:, None] - q[None]) ** 2).sum(-1)
    plan = np.exp(-cost / cost.max() / epsilon)
    for _ in range(5000):
        plan = plan / plan.sum(0) / plan.shape[1]
        plan = plan / plan.sum(1, keepdims=True) / plan.shape[0]
    return plan, plan / plan.sum(1, keepdims=True) @ q


def test_an_episode_is_that_of_a_plain_loop():
    x = normalize(normal(6, 3, 9, 8).double(), dim=-1) + torch.eye(8)[:3, None].double()
    support, queries = x[:, :, :2], x[:, :, 2:]
    found = nearest_is_own(support.mean(2), queries, transport=False)
    for e in range(6):
        prototypes = [support[e, c].mean(0) for c in range(3)]
        right = [
            min(range(3), key=lambda k: float((q - prototypes[k]).square().sum())) == c
            for c in range(3)
            for q in queries[e, c]
        ]
        assert float(found[e]) == pytest.approx(np.mean(right))


def test_transport_moves_prototypes_to_the_mean_of_the_queries_that_come_to_them():
    p, q = normal(2, 4, 5).double(), normal(2, 20, 5, seed=1).double()
    moved = transported(p, q, iterations=3000)
    for e in range(2):
        plan, expected = plain_transport(p[e].numpy(), q[e].numpy())
        np.testing.assert_allclose(plan.sum(0), 1 / 20, rtol=1e-3)
        np.testing.assert_allclose(moved[e].numpy(), expected, rtol=1e-4, atol=1e-5)


def test_transport_mends_prototypes_that_are_off_by_a_common_shift():
    """Supports of another site: each class's support lies away from its queries, in one direction for all."""
    centres, noise = 4 * torch.eye(5, 16).double(), normal(20, 5, 15, 16).double()
    queries = centres[:, None] + 0.5 * noise
    support = centres.expand(20, -1, -1) + 1.5 * centres[0] + 0.5 * normal(20, 5, 16, seed=2).double()
    before, after = (nearest_is_own(support, queries, transport=t).mean() for t in (False, True))
    assert after > before + 0.05 and after > 0.99


def test_episodes_hang_on_the_seed_and_the_samples_alone():
    e = clustered(400, classes=6, spread=2.0)
    one, again = FewShot(label="label", episodes=50)(None, e), FewShot(label="label", episodes=50)(None, shuffled(e))
    other = FewShot(label="label", episodes=50, seed=1)(None, e)
    assert values(one) == pytest.approx(values(again)) and values(one) != values(other)
    assert one[0].name == "5-way 1-shot accuracy" and one[0].n == 50 and one[0].low < one[0].value < one[0].high
    whole = rows("few_shot", e, "h", "signal", "label")
    members = FewShot(label="label")._members(one_each(whole))
    drawn = draw(torch.arange(40), one_each(whole), members, 5, 16)
    classes = one_each(whole).target[drawn]
    assert (classes == classes[..., :1]).all()
    assert all(len(set(c)) == 5 for c in classes[..., 0].tolist())
    assert all(len(set(d)) == 5 * 16 for d in drawn.flatten(1).tolist())
    assert len({tuple(sorted(d)) for d in drawn.flatten(1).tolist()}) == 40


def test_more_shots_are_better_and_chance_is_one_in_ways():
    e = clustered(600, classes=6, spread=2.5)
    few, many = (FewShot(label="label", shots=k, episodes=200)(None, e)[0].value for k in (1, 10))
    assert many > few + 0.05 > 0.4
    same = embeddings(torch.ones(600, 6), label=e.labels["label"])
    assert FewShot(label="label", episodes=20)(None, same)[0].value == pytest.approx(0.2)
    assert FewShot(label="label", episodes=20, transport=True)(None, same)[0].value == pytest.approx(0.2, abs=0.2)


def test_a_patient_is_never_in_support_and_queries_of_a_class():
    patient = torch.arange(800) // 8
    e = embeddings(normal(100, 6)[patient], label=patient % 2, patient=patient)  # chance, but for the patient
    alone, whole = (
        FewShot(label="label", ways=2, shots=5, episodes=200, cluster=c)(None, e)[0].value for c in (None, "patient")
    )
    assert abs(whole - 0.5) < 0.06 and len(one_each(rows("few_shot", e, "h", "signal", "label", "patient"))) == 100
    assert alone > whole


def test_what_is_wrong_is_named():
    with pytest.raises(CounterpointError, match=r"expected 5 classes of 'label' with 101 samples .* there are 0, of 4"):
        FewShot(label="label", shots=1, queries=100)(None, clustered(80))
    with pytest.raises(CounterpointError, match="continuous"):
        FewShot(label="value")(None, embeddings(normal(9, 4), value=normal(9)))
    with pytest.raises(ComponentError, match="ways is at least 2"):
        FewShot(label="label", ways=1)
    assert FewShot(label="label", cluster="patient").needs() == {"label", "patient"}
