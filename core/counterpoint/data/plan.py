"""The order of samples as a pure function of (seed, epoch), started at any position; nothing is stored."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from counterpoint.batch import Batch
from counterpoint.data.collate import together
from counterpoint.data.guard import one_line
from counterpoint.data.stream import Stream, Stretches
from counterpoint.errors import ComponentError, CounterpointError, DataError, suggest
from counterpoint.randomness import key, seed_host


@dataclass(frozen=True)
class Order:
    """What a sampler may look at: samples in the data set, batch over all ranks, least batch, columns.

    groups     name -> int64 (size,); tables: name -> int (size, k), other samples for each sample; -1 = unknown
    stretches  of a stream, which cannot give its samples in any order: what it can
    """

    size: int
    batch: int
    least: int
    groups: Mapping[str, np.ndarray]
    tables: Mapping[str, np.ndarray] = field(default_factory=dict)
    stretches: Stretches | None = None

    @classmethod
    def of(cls, dataset, batch: int, world: int = 1) -> Order:
        """Of a dataset in batches of `batch`, or of all of it; so many that each of `world` ranks has two samples."""
        stretches = dataset.stretches() if isinstance(dataset, Stream) else None
        groups = getattr(dataset, "groups", {})
        return cls(len(dataset), min(batch, len(dataset)), 2 * world, groups, stretches=stretches)


Sampler = Callable[[Order, np.random.Generator], list[np.ndarray]]


def cut(indices: np.ndarray, order: Order) -> list[np.ndarray]:
    """Batches of `order.batch`; a left-over smaller than `order.least` joins the batch before it."""
    edges = list(range(order.batch, len(indices), order.batch))
    if edges and len(indices) - edges[-1] < order.least:
        edges.pop()
    return np.split(indices, edges)


def shuffle() -> Sampler:
    """Every sample once an epoch, in random order; of a stream, mixed within its windows, its parts in random order."""

    def sample(order: Order, rng: np.random.Generator) -> list[np.ndarray]:
        if order.stretches is None:
            return cut(rng.permutation(order.size), order)
        return cut(np.concatenate([rng.permutation(block) for block in order.stretches.blocks(rng)]), order)

    return sample


def by_group(*, by: str, per_group: int = 2) -> Sampler:
    """Every sample once an epoch, `per_group` samples of one group together in a batch.

    What is left of a group when it does not divide comes in the last batches. Samples of unknown group stand alone.
    """
    if per_group < 1:
        raise ValueError(f"per_group is at least 1; got {per_group}")

    def sample(order: Order, rng: np.random.Generator) -> list[np.ndarray]:
        group = _identities(order, by, "by_group")
        members = np.lexsort((rng.random(order.size), group))
        starts = np.r_[0, np.flatnonzero(np.diff(group[members])) + 1]
        within = np.arange(order.size) - np.repeat(starts, np.diff(np.r_[starts, order.size]))
        handful = np.cumsum(within % per_group == 0) - 1
        partial = np.bincount(handful) < per_group
        rank = np.lexsort((rng.random(len(partial)), partial))
        place = np.empty_like(rank)
        place[rank] = np.arange(len(rank))
        return cut(members[np.argsort(place[handful], kind="stable")], order)

    return sample


def distinct(*, by: str) -> Sampler:
    """Every sample once an epoch, samples of one group in different batches as far as there are batches.

    G-SimCLR (Chakraborty et al., 2020, section 3.2), whose batches have no two samples of one pseudo label, so that
    no negative is a false one. Batches have the same size but for one. Samples of unknown group stand alone.
    """

    def sample(order: Order, rng: np.random.Generator) -> list[np.ndarray]:
        group = _identities(order, by, "distinct")
        names, place = np.unique(group, return_inverse=True)
        dealt = np.lexsort((rng.random(order.size), rng.permutation(len(names))[place]))
        count = len(cut(dealt, order))  # dealt like cards: a group no larger than that meets itself nowhere
        return [dealt[first::count] for first in rng.permutation(count)]

    return sample


def neighbours(*, by: str, nearest: int = 32, random: int = 32) -> Sampler:
    """Every sample once an epoch, in batches of samples that are hard to tell apart.

    Sample4Geo (Deuser et al., 2023, section 3.3): a random sample, the `nearest` of its neighbours in the table `by`
    and `random` ones of the rest of the table, then the next, leaving out whatever the epoch has had, until the batch
    is full. `by` names a table made by `refresh: {near: {use: neighbours, k: 128}}`; before there is one, the order is
    random. The authors drop the left-over batch and start from distances on the ground.
    """
    if nearest < 0 or random < 0:
        raise ValueError(f"nearest and random are not negative; got {nearest} and {random}")

    def sample(order: Order, rng: np.random.Generator) -> list[np.ndarray]:
        _check_any_order(order, "neighbours")
        if by not in order.tables:
            known = suggest(by, order.tables) or f"; make it: refresh: {{{by}: {{use: neighbours}}}}"
            raise ComponentError(f"sampler 'neighbours': {by!r} is not a table of neighbours{known}")
        table, left, placed = order.tables[by], np.ones(order.size, dtype=bool), []
        room = order.batch
        for first in rng.permutation(order.size):
            if not left[first]:
                continue
            near = np.r_[table[first, :nearest], rng.permutation(table[first, nearest:])[:random]]
            chosen = np.r_[first, near[(near >= 0) & left[near]]][:room]
            left[chosen] = False
            placed.append(chosen)
            room = room - len(chosen) or order.batch
        return cut(np.concatenate(placed), order)

    return sample


def _identities(order: Order, by: str, who: str) -> np.ndarray:
    """The group of every sample; an unknown one is a group of its own."""
    _check_any_order(order, who)
    if by not in order.groups:
        raise ComponentError(f"sampler {who!r}: {by!r} is not a group of the data{suggest(by, order.groups)}")
    group = np.asarray(order.groups[by]).copy()
    group[group < 0] = -1 - np.flatnonzero(group < 0)
    return group


def _check_any_order(order: Order, who: str) -> None:
    if order.stretches is not None:
        raise ComponentError(
            f"sampler {who!r}: the data is a stream, which is read from front to back; its sampler is 'shuffle'"
        )


class Plan(torch.utils.data.Sampler):
    """The batch sampler: yields this rank's part of each batch as [(epoch, index), ...].

    It asks for its position (batches done since the start of the run) whenever it is iterated, so that a resumed run
    goes on with the very next batch; and since every rank cuts the same global batch, ranks never overlap.
    """

    def __init__(self, sampler: Sampler, order: Order, seed: int, world: int = 1, rank: int = 0):
        self.sampler, self.order, self.seed = sampler, order, seed
        self.world, self.rank = world, rank
        self.position: Callable[[], int] = lambda: 0
        self.refreshed: Callable[[Order, int], Order] = lambda order, epoch: order  # its columns, as of an epoch
        self._length = len(self.batches(0))

    def batches(self, epoch: int, order: Order | None = None) -> list[np.ndarray]:
        """The global batches of an epoch."""
        return self.sampler(order or self.order, np.random.default_rng(key(self.seed, "order", epoch)))

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, start = divmod(self.position(), len(self))
        batches = self.batches(epoch, self.refreshed(self.order, epoch))
        if len(batches) != len(self):
            raise ComponentError(f"the sampler gave {len(batches)} batches in epoch {epoch} and {len(self)} in epoch 0")
        for batch in batches[start:]:
            own = batch if self.world == 1 else np.array_split(batch, self.world)[self.rank]
            yield [(epoch, i) for i in own.tolist()]


class Seeded(torch.utils.data.Dataset):
    """Reads sample i of an epoch with every host generator seeded by (seed, epoch, i).

    A sample that cannot be read comes as its DataError: raised in a worker it would arrive wrapped in a traceback. So
    does one at which the dataset raises anything else; with COUNTERPOINT_TRACEBACK set, that is raised as it is.
    The collate function leaves it out, and the main process raises or counts it.
    Data sets that read many samples at once, without chance, give a Batch; the generators are left as reading one by
    one leaves them.
    """

    def __init__(self, dataset, seed: int):
        self.dataset, self.seed = dataset, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, places: list[tuple[int, int]]) -> Batch | list:
        batch = together(self.dataset, [index for _, index in places])
        if batch is None:
            return [self[place] for place in places]
        seed_host(key(self.seed, "read", *places[-1]))
        return batch

    def __getitem__(self, place: tuple[int, int]):
        epoch, index = place
        seed_host(key(self.seed, "read", epoch, index))
        try:
            return index, self.dataset[index]
        except DataError as error:
            return index, error
        except CounterpointError:
            raise
        except Exception as error:  # a pack's own: named, too
            if os.environ.get("COUNTERPOINT_TRACEBACK"):
                raise
            return index, DataError(f"sample {index}: {_where(error)}")


def _where(error: Exception) -> str:
    """`KeyError: 'lead' (arrays.py:57)`: what was raised, and the line that raised it."""
    *_, last = traceback.extract_tb(error.__traceback__)
    return f"{one_line(f'{type(error).__name__}: {error}')} ({os.path.basename(last.filename)}:{last.lineno})"
