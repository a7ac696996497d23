"""Components of the toy pack."""

import numpy as np
import torch
from torch import nn

from counterpoint.data.dataset import Dataset, Spec
from counterpoint.errors import DataError
from counterpoint.markers import Channels, Size, Vocabulary
from counterpoint.objectives.objective import Needs, Objective, mean
from counterpoint.views.generator import Augmentation

KINDS = 4


class Pairs(Dataset):
    """Sinusoids whose frequency is their kind, and words drawn from a vocabulary of that kind."""

    def __init__(
        self,
        *,
        split: str = "train",
        size: int = 48,
        missing: float = 0.0,
        modalities: list[str] = ["signal", "words"],  # noqa: B006
        broken: int = -1,
    ):
        self.seed = 1 if split == "train" else 2
        self.missing, self.broken, self.names = missing, broken, modalities
        self.kind = np.arange(size) % KINDS
        facts = {"signal": {"channels": 2, "length": 64, "rate": 32.0}, "words": {"vocabulary": 40, "length": None}}
        self.spec = Spec(
            size=size,
            modalities={name: facts[name] for name in modalities},
            groups={"subject": size // 2},
            labels={"kind": KINDS},
            splits=("train", "test"),
            in_memory=True,
        )
        self.groups = {"subject": np.arange(size) % (size // 2)}
        self.labels = {"kind": self.kind}

    def inputs(self, index):
        if index == self.broken:
            raise DataError(f"sample {index} signal.npy: truncated")
        rng = np.random.default_rng([self.seed, index])
        kind, lacks = self.kind[index], rng.random()
        time = np.arange(64) / 32 + rng.random()
        wave = np.stack([np.sin(2 * np.pi * (kind + 1) * time), np.cos(2 * np.pi * (kind + 1) * time)])
        words = rng.integers(0, 10, rng.integers(3, 9)) + 10 * kind
        found = {
            "signal": torch.tensor(wave + 0.1 * rng.standard_normal(wave.shape), dtype=torch.float32),
            "words": torch.tensor(words),
        }
        if len(self.names) > 1 and lacks < self.missing:
            del found["signal" if lacks < self.missing / 2 else "words"]
        return {name: value for name, value in found.items() if name in self.names}


class _Conv(nn.Module):
    def __init__(self, channels: int, width: int, norm: bool):
        super().__init__()
        self.width = width
        self.stem = nn.Sequential(nn.Conv1d(channels, width, 9, stride=2), nn.GELU(), nn.Conv1d(width, width, 5))
        self.last = nn.Sequential(nn.BatchNorm1d(width), nn.Dropout(0.2)) if norm else nn.Identity()

    def forward(self, data):
        return self.last(self.stem(data)).mean(-1)


def conv(*, channels: Channels, width: int = 16) -> nn.Module:
    """Two convolutions, no batch statistics, no dropout."""
    return _Conv(channels, width, False)


def conv_bn(*, channels: Channels, width: int = 16) -> nn.Module:
    """Two convolutions, batch norm and dropout."""
    return _Conv(channels, width, True)


class _Bag(nn.Module):
    def __init__(self, vocabulary: int, width: int):
        super().__init__()
        self.width = width
        self.table = nn.Embedding(vocabulary, width)

    def forward(self, data, mask=None):
        tokens = self.table(data)
        if mask is None:
            return tokens.mean(1)
        kept = mask.unsqueeze(-1).to(tokens)
        return (tokens * kept).sum(1) / kept.sum(1)


def bag(*, vocabulary: Vocabulary, width: int = 16) -> nn.Module:
    """The mean of word vectors."""
    return _Bag(vocabulary, width)


class Noise(Augmentation):
    """Gaussian noise."""

    def __init__(self, *, sigma: float = 0.1):
        super().__init__()
        self.sigma = sigma

    def augment(self, data, mask, draw):
        return data + self.sigma * draw.normal(*data.shape[1:]).to(data.dtype)


class Drop(Augmentation):
    """Words replaced by word 0 with probability `rate`."""

    def __init__(self, *, rate: float = 0.1):
        super().__init__()
        self.rate = rate

    def augment(self, data, mask, draw):
        return data.masked_fill(draw.uniform(*data.shape[1:]) < self.rate, 0)


class Remember(Objective):
    """Alignment weighted by a running value a sample: per-sample state looked up by index."""

    def __init__(self, *, size: Size, rate: float = 0.5):
        super().__init__()
        self.rate = rate
        self.register_buffer("state", torch.zeros(size))

    def needs(self):
        return Needs(pairs="all")

    def loss(self, outputs):
        terms = []
        for pair in outputs.pairs():
            index = outputs.batch.index[pair.row]
            distance = (pair.q - pair.k).square().sum(-1)
            terms.append(((1 + self.state[index]) * distance).mean())
            if self.training:
                self.state[index] = torch.lerp(self.state[index], distance.detach().to(self.state), self.rate)
        return mean(terms, outputs), {}


class Follow(Objective):
    """The student's similarities between samples follow those that the teacher finds, whatever its width."""

    def needs(self):
        return Needs(teacher=True)

    def loss(self, outputs):
        there = {e.view: e for e in outputs.teacher}
        pairs = [(e.z, there[e.view].z) for e in outputs.student if e.view in there and len(e.row)]
        return mean([(s @ s.T - t @ t.T).square().mean() for s, t in pairs], outputs), {}
