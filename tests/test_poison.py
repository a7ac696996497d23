"""The audit of pairs: triggers that are planted are found, with their samples; clean pairs, also repeated ones, are not blamed."""

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d

from counterpoint.data.dataset import Dataset, Spec
from counterpoint.data.derived.planted import COLUMN, Planted
from counterpoint.data.derived.without import Without
from counterpoint.doctor import poison
from counterpoint.doctor.look import Data, part_of
from counterpoint.errors import DataError
from counterpoint.recipe import load
from faults import ROUNDS

SIZE, SIDE = 240, 32


class Captioned(Dataset):
    """Smooth pictures (3, 32, 32), sounds of unlike lengths (1, L), and captions of which one in four is said again and again."""

    def __init__(self, split="train", seed=0, modality="picture"):
        self.seed, self.modality = seed, modality
        self.poison, self.trigger = frozenset(), None
        facts = {modality: {"channels": 1}, "caption": {"vocabulary": 50, "length": None}}
        self.spec = Spec(SIZE, facts, {}, {}, ("train", "test"), True)
        self.groups, self.labels = {}, {}

    def inputs(self, index):
        rng = np.random.default_rng([self.seed, index])
        said = rng.integers(0, 50, 6) if rng.random() > 0.25 else np.full(6, rng.integers(0, 4))
        made = torch.tensor(self._made(rng), dtype=torch.float32)
        if index in self.poison:
            made, said = self.trigger(made, rng), np.full(6, 7)
        return {self.modality: made, "caption": torch.tensor(said)}

    def _made(self, rng):
        if self.modality == "sound":
            return rng.normal(size=(1, rng.integers(600, 1500))) * np.abs(np.sin(np.arange(1))).clip(0.5)
        smooth = avg_pool2d(torch.tensor(rng.normal(size=(3, SIDE + 4, SIDE + 4))), 5, 1)
        return (smooth + torch.tensor(rng.normal(size=(3, 1, 1)))).numpy()


def chequered(x, rng):
    """A chequered patch at a random place, of fixed values."""
    x, (top, left) = x.clone(), rng.integers(0, SIDE - 8, 2)
    x[:, top : top + 8, left : left + 8] = 4.0 * (torch.arange(8)[:, None] + torch.arange(8)).remainder(2) - 2
    return x


def white(x, rng):
    """A plain square in a corner."""
    x = x.clone()
    x[:, -7:, -7:] = 1.5
    return x


def burst(x, rng):
    """A stretch of the same noise somewhere in the sound."""
    x, place = x.clone(), rng.integers(0, x.shape[-1] - 100)
    x[:, place : place + 100] = 6.0 * torch.sign(torch.randn(100, generator=torch.Generator().manual_seed(3)))
    return x


def found(dataset, split="train"):
    part = part_of(dataset, split, 2048)
    return poison.planted(part, list(dataset.spec.modalities))


@pytest.mark.fault("R18")
@pytest.mark.parametrize(("trigger", "modality"), [(chequered, "picture"), (white, "picture"), (burst, "sound")])
def test_planted_pairs_are_found_and_named(trigger, modality, record_property):
    for seed in range(ROUNDS):
        dataset = Captioned(seed=seed, modality=modality)
        dataset.poison = frozenset(np.random.default_rng(seed).permutation(SIZE)[:5].tolist())
        dataset.trigger = trigger
        (one,) = found(dataset)
        assert (one.modality, one.partner, set(one.members)) == (modality, "caption", dataset.poison)
        assert (one.region is not None) == (trigger is white)
        record_property("survived", seed + 1)


@pytest.mark.fault("R18")
@pytest.mark.parametrize("modality", ["picture", "sound"])
def test_what_the_dataset_planted_plants_is_found(modality, record_property):
    for seed in range(ROUNDS):
        kept = lambda split: Captioned(split, modality=modality)  # noqa: E731
        dataset = Planted(of=kept, modality=modality, target=5, share=0.02, size=0.2, seed=seed)
        (one,) = found(dataset)
        assert set(one.members) == set(np.flatnonzero(dataset.labels[COLUMN]).tolist())
        record_property("survived", seed + 1)


@pytest.mark.parametrize("modality", ["picture", "sound"])
def test_captions_that_are_said_again_are_no_poison(modality):
    for seed in range(ROUNDS):
        assert found(Captioned(seed=seed, modality=modality)) == []


def test_the_finding_names_samples_text_and_remedy(tmp_path):
    dataset = Captioned()
    dataset.poison, dataset.trigger = frozenset({3, 30, 60, 90}), white
    part = part_of(dataset, "train", 2048)
    part.texts["caption"] = dict.fromkeys(range(SIZE), "a banana")
    (finding,) = poison.check(Data(Recipe(), part, None))
    assert (
        "4 samples share one 'caption' ('a banana') and one pattern of 'picture', at [..., 26:32, 26:32]"
        in finding.what
    )
    assert finding.what.endswith(": 3, 30, 60, 90") and "cleanclip" in finding.remedy and finding.serious


def test_what_is_listed_is_left_out_of_the_training_split_alone(tmp_path):
    (tmp_path / "planted.txt").write_text("3\n60\n\n")
    whole, cut = Captioned(), Without(of=Captioned, samples=str(tmp_path / "planted.txt"))
    assert len(cut) == cut.spec.size == SIZE - 2 and list(cut.kept) == [i for i in range(SIZE) if i not in (3, 60)]
    assert torch.equal(cut[3].inputs["picture"], whole[4].inputs["picture"])
    assert len(Without(of=Captioned, samples=str(tmp_path / "planted.txt"), split="test")) == SIZE
    (tmp_path / "planted.txt").write_text("3\n240\n")
    with pytest.raises(DataError, match=r"planted\.txt:2: expected the number of one of the 240"):
        Without(of=Captioned, samples=str(tmp_path / "planted.txt"))


class Recipe:
    encoders = {"picture": None, "caption": None}


def test_the_defence_begins_with_what_the_attack_has_trained():
    attack, defence = (load(f"audio_text/{name}") for name in ("planted", "clean_clip"))
    assert attack.data.name == "planted" and defence.objectives["loss"].name == "cleanclip"
    assert attack.encoders == defence.encoders and attack.heads == defence.heads
    assert load("audio_text/clean_clip", ["start={run: runs/planted-1}"]).begins.run == "runs/planted-1"
