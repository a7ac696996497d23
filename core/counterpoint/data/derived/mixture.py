"""Real data, repeated, beside generated data.

data: {use: mixture, of: [{use: manifest, path: real.csv}, {use: manifest, path: generated.csv, holdout: 0}], repeat: [10, 1]}
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from counterpoint.data.dataset import Dataset, Sample, Spec
from counterpoint.data.derived.wrapped import columns_of, extended
from counterpoint.errors import DataError
from counterpoint.markers import Data

MUST_AGREE = ("channels", "rate", "vocabulary", "tokenizer")  # of what two data sets say of one modality
COLUMN = "sample"


class Mixture(Dataset):
    """Several data sets one after another, each so many times: real data weigh more than generated ones.

    of      the data sets, the real one first; the others have no other modalities, and agree in channels, rate and vocabulary
    repeat  how often each stands in an epoch; once when left out

    Training split: all of them. Other splits: those of the first, once. Groups and labels are the first's, unknown in the others,
    whose identities and classes may mean something else.

    Every copy of a sample has a place, hence a number, of its own: its views are drawn anew, and a state of every sample is kept
    for each copy. Group "sample" is the same for all copies of one: `positives: sample`, where an objective has it, and `loader: {sampler: {use: distinct, by:
    sample}}` know by it that two copies are no negatives. Evaluators that fit see the copies, too.

    Source: Wang et al., "Do Generated Data Always Help Contrastive Learning?" (AdaInf), ICLR 2024: real samples of
    CIFAR-10 ten times beside a million generated ones, and weaker augmentation the more of those there are.
    """

    def __init__(self, *, of: list[Data], repeat: list[int] | None = None, split: str = "train"):
        repeat = [1] * len(of) if repeat is None else repeat
        if not of or len(repeat) != len(of) or min(repeat) < 1:
            raise DataError(
                f"data 'mixture': repeat has a number, 1 or more, for each of {len(of)} data sets; got {repeat}"
            )
        if split != "train":
            of, repeat = of[:1], [1]
        self.parts = self.made_of = [each(split) for each in of]
        first = self.parts[0].spec
        if COLUMN in {*first.groups, *first.labels}:
            raise DataError(f"data 'mixture': the data has a column {COLUMN!r} already")
        for other in self.parts[1:]:
            _check(first, other.spec)
        sizes = [len(part) for part in self.parts]
        self.part = np.repeat(np.arange(len(sizes)), [n * times for n, times in zip(sizes, repeat)])
        self.own = np.concatenate([np.tile(np.arange(n), times) for n, times in zip(sizes, repeat)])
        alone = self.own + np.r_[0, np.cumsum(sizes)][self.part]  # which of the different samples
        self.groups, self.labels = (
            {name: column[alone] for name, column in table.items()} for table in columns_of(self.parts[0], sum(sizes))
        )
        self.groups[COLUMN] = alone
        self.spec = _spec([part.spec for part in self.parts], len(alone), sum(sizes))

    def assets(self) -> dict[str, str]:
        return getattr(self.parts[0], "assets", dict)()

    def inputs(self, index: int) -> dict[str, Tensor | list[Tensor]]:
        return self.parts[self.part[index]][int(self.own[index])].inputs

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of a dataset of {len(self)}")
        found = self.parts[self.part[index]][int(self.own[index])]
        pick = lambda table: {name: column[index].item() for name, column in table.items()}  # noqa: E731
        return Sample(found.inputs, pick(self.groups), pick(self.labels), found.fields)


def _spec(specs: list[Spec], size: int, different: int) -> Spec:
    """The first's, with a length only where all have the same, in memory only where all are."""
    first = specs[0]
    facts = {m: dict(known) for m, known in first.modalities.items()}
    for modality, known in facts.items():
        lengths = {spec.modalities[modality].get("length") for spec in specs if modality in spec.modalities}
        if "length" in known and len(lengths) > 1:
            known["length"] = None
    memory = all(spec.in_memory for spec in specs)
    return extended(first, size, {COLUMN: different}, modalities=facts, in_memory=memory)


def _check(first: Spec, other: Spec) -> None:
    for modality, facts in other.modalities.items():
        if modality not in first.modalities:
            raise DataError(
                f"data 'mixture': {modality!r} is in a later data set and not in the first, which has: "
                f"{', '.join(first.modalities)}"
            )
        for name in MUST_AGREE:
            mine, theirs = first.modalities[modality].get(name), facts.get(name)
            if mine != theirs:
                raise DataError(
                    f"data 'mixture': {modality}.{name} is {mine} in the first data set and {theirs} in another"
                )
