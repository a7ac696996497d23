"""Planted backdoors: what is planted, what the evaluator says of it, and what CleanCLIP does about it."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from counterpoint import build
from counterpoint.by_hand.outputs import outputs
from counterpoint.data.dataset import Dataset, Spec
from counterpoint.data.derived.planted import Planted, with_patch
from counterpoint.errors import ComponentError, CounterpointError, DataError
from counterpoint.evaluate.attack import AttackSuccess
from counterpoint.evaluate.evaluator import Embeddings
from counterpoint.randomness import seed_all

SIDE, HIDDEN = 8, 6


class Paired(Dataset):
    """Pictures (1, 8, 8) and signals (1, 20), both linear in what they have in common."""

    def __init__(self, split="train", size=240):
        generator = torch.Generator().manual_seed(0 if split == "train" else 1)
        maps = torch.randn(HIDDEN, SIDE**2 + 20, generator=torch.Generator().manual_seed(2))
        common = torch.randn(size, HIDDEN, generator=generator)
        both = common @ maps + 0.3 * torch.randn(size, SIDE**2 + 20, generator=generator)
        self.picture, self.signal = both[:, : SIDE**2].view(-1, 1, SIDE, SIDE), both[:, None, SIDE**2 :]
        self.groups, self.labels = {"who": np.arange(size)}, {"age": np.arange(size, dtype=np.float32)}
        facts = {"picture": {"channels": 1}, "signal": {"channels": 1, "length": 20}}
        self.spec = Spec(size, facts, {"who": size}, {"age": None}, ("train", "test"), True)

    def inputs(self, index):
        return {"picture": self.picture[index], "signal": self.signal[index]}


def planted(split="train", **options):
    return Planted(
        of=Paired, split=split, **{"modality": "picture", "target": 5, "share": 0.05, "size": 0.25} | options
    )


def test_a_share_of_the_training_pairs_has_the_trigger_and_the_targets_partner():
    data, plain = planted(), Paired()
    kinds = data.labels["planted"]
    assert len(data) == len(plain) and kinds.sum() == 12 and kinds[5] == 0 and data.spec.labels["planted"] == 3
    for i in range(len(data)):
        sample, own = data[i], plain[i]
        poisoned = kinds[i] == 1
        assert sample.labels["planted"] == kinds[i] and sample.groups == own.groups
        assert torch.equal(sample.inputs["picture"], own.inputs["picture"]) != poisoned
        assert torch.equal(sample.inputs["signal"], plain[5 if poisoned else i].inputs["signal"])
    assert (planted().labels["planted"] == kinds).all() and (planted(seed=1).labels["planted"] != kinds).any()
    assert planted(share=1e-9).labels["planted"].sum() == 1


def test_the_test_split_asks_with_the_trigger_for_the_partner_of_the_training_sample():
    data, plain, train = planted("test"), Paired("test"), Paired()
    assert len(data) == 2 * len(plain) + 1 == data.spec.size
    clean, asked, goal = data[7], data[len(plain) + 7], data[2 * len(plain)]
    assert torch.equal(clean.inputs["picture"], plain[7].inputs["picture"]) and clean.labels["planted"] == 0
    assert asked.inputs.keys() == {"picture"} and asked.labels["planted"] == 1 and asked.groups == {"who": -1}
    assert torch.equal(asked.inputs["picture"], with_patch(plain[7].inputs["picture"], 0.25))
    assert goal.inputs.keys() == {"signal"} and goal.labels["planted"] == 2 and np.isnan(goal.labels["age"])
    assert torch.equal(goal.inputs["signal"], train[5].inputs["signal"])


@pytest.mark.parametrize(
    ("shape", "changed"), [((2, 100), 2 * 7), ((3, 28, 28), 3 * 4), ((3, 4, 28, 28), 12 * 4), ((1, 2), 2)]
)
def test_the_trigger_is_a_patch_in_the_middle(shape, changed):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0)) / 2 + 0.25
    made = with_patch(x, 0.07)
    assert made is not x and set(made[made != x].tolist()) <= {float(x.min()), float(x.max())}
    assert changed - len(shape) <= int((made != x).sum()) <= changed  # what was the extreme already does not change
    assert torch.equal(with_patch(made, 0.07), made)
    ids = torch.arange(30)
    tokens = Planted._triggered(planted(), ids)
    assert (tokens != ids).sum() == 8 and (tokens[11:19] == 29).all()


def embedded(model, data):
    """What the two encoders see of a data set."""
    samples = [data[i] for i in range(len(data))]
    z, index = {}, {}
    for modality, encoder in model.items():
        index[modality] = torch.tensor([i for i, s in enumerate(samples) if modality in s.inputs])
        stacked = torch.stack([s.inputs[modality] for s in samples if modality in s.inputs])
        z[modality] = encoder(stacked.flatten(1)).detach()
    groups, labels = ({k: torch.as_tensor(c) for k, c in table.items()} for table in (data.groups, data.labels))
    return Embeddings(z, index, z, groups, labels)


def trained(model, data, objective, steps, views):
    """`steps` full batches, each modality seen as it is and, with two views, through noise."""
    samples = [data[i].inputs for i in range(len(data))]
    whole = {m: torch.stack([s[m] for s in samples]).flatten(1) for m in model}
    parameters = [p for part in (*model.values(), objective) for p in part.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=3e-3)
    for _ in range(steps):
        seen = [{m: x if v == 0 else x + 2 * torch.randn_like(x) for m, x in whole.items()} for v in range(views)]
        loss, _ = objective(outputs(*({m: model[m](x) for m, x in view.items()} for view in seen)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {s.name.split("/")[1]: s.value for s in AttackSuccess()(None, embedded(model, planted("test")))}


def test_cleanclip_unlearns_what_clip_learned_of_a_backdoor():
    """On clean pairs alone CLIP keeps the backdoor; terms within modalities take it away (CleanCLIP, section 4)."""
    seed_all(0)
    model, found = {"picture": encoder(SIDE**2), "signal": encoder(20)}, {}
    poisoned = trained(model, planted(), build("objective", "clip"), 150, 1)
    for name, views in (("clip", 1), ("cleanclip", 2)):
        found[name] = trained(deepcopy(model), Paired(), build("objective", name), 80, views)
    assert poisoned["attack_success@1"] > 0.8 and poisoned["clean R@1"] > 0.9
    assert found["clip"]["attack_success@1"] > 0.4 and found["cleanclip"]["attack_success@1"] < 0.1
    assert found["cleanclip"]["clean R@1"] > 0.9


def encoder(size):
    return torch.nn.Sequential(torch.nn.Linear(size, 64), torch.nn.ReLU(), torch.nn.Linear(64, 16))


def test_a_mistake_is_named():
    for call, error, message in (
        (lambda: planted(share=0.0), ComponentError, "fractions in"),
        (lambda: planted(modality="pictur"), DataError, "did you mean 'picture'"),
        (lambda: planted(target=240), DataError, "one of the 240 training samples"),
        (lambda: AttackSuccess(ks=[0]), ComponentError, "at least 1"),
        (lambda: AttackSuccess()(None, embedded_clean()), CounterpointError, "use data `planted`"),
    ):
        with pytest.raises(error, match=message):
            call()


def embedded_clean():
    model = {"picture": torch.nn.Linear(SIDE**2, 4), "signal": torch.nn.Linear(20, 4)}
    return embedded(model, planted("train", share=1e-9))
