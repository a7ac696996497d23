"""The four things that flow through the loop: Batch -> View -> Encoded -> Outputs.

Dimensions: B samples in a batch, n rows of one view, D width of the contrasted embedding `z`, H width of the kept
representation `h`, L tokens, V views.

A sample that lacks a modality has no row in that modality: there is no filler and no presence flag. `row` says which
sample of the batch a row belongs to, so a sample may also have several rows (captions, windows, hard negatives). Rows
of a View are in ascending order of `row` when they leave the collate function.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from counterpoint.errors import ComponentError, suggest

NEGATIVE, POSITIVE, MIXED = "negative", "positive", "mixed"
APART = frozenset({NEGATIVE, POSITIVE, MIXED})  # roles of views that only objectives which name them look at
PAIRS = ("all", "within", "across")  # kinds of pairs, beside those of one modality


def replace(value: Any, **changes) -> Any:
    """A dataclass of this module with some fields changed: `dataclasses.replace` at a tenth of its cost."""
    if not changes.keys() <= value.__dict__.keys():
        unknown = ", ".join(sorted(changes.keys() - value.__dict__.keys()))
        raise TypeError(f"{type(value).__name__} has no field {unknown}")
    made = object.__new__(type(value))
    made.__dict__ = value.__dict__ | changes
    return made


def map_tensors(fn: Callable[[Tensor], Tensor], value: Any, memo: dict[int, Any] | None = None) -> Any:
    """`value` with `fn` applied to every tensor in it; a tensor that stands in several places is mapped once."""
    memo = {} if memo is None else memo
    if isinstance(value, Tensor):
        if id(value) not in memo:
            memo[id(value)] = (fn(value), value)  # the original is kept alive so that its id stays its own
        return memo[id(value)][0]
    if is_dataclass(value) and not isinstance(value, type):
        mapped = {f.name: map_tensors(fn, getattr(value, f.name), memo) for f in fields(value) if f.init}
        return dataclasses.replace(value, **mapped)
    if isinstance(value, dict):
        return {key: map_tensors(fn, item, memo) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_tensors(fn, item, memo) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(map_tensors(fn, item, memo) for item in value)
    return value


class _Movable:
    """`.to(...)` and `.pin_memory()`: Lightning's transfer and torch's pinning look for these."""

    def to(self, *args, **kwargs):
        return map_tensors(lambda tensor: tensor.to(*args, **kwargs), self)

    def pin_memory(self):
        return map_tensors(lambda tensor: tensor.pin_memory(), self)


@dataclass
class View(_Movable):
    """Some rows of one modality: raw input as collated (role "raw"), or what a view generator made of it.

    data  (n, ...) of any dtype; only rows that exist
    row   int64 (n,): which sample of the batch each row belongs to
    mask  bool (n, L), true = real, or None when nothing is padded
    role  raw, global, local, query, negative, ... A `negative` never forms a positive pair
    meta  tensors with n rows (crop boxes, correspondences), or values that all rows share and that are the same for any
          rows of the sample's view: in a dataclass, a tuple or a mapping they may hold tensors, which move along
    """

    modality: str
    data: Tensor
    row: Tensor
    mask: Tensor | None = None
    role: str = "raw"
    meta: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, rows: slice | Tensor) -> View:
        """The named rows, with their part of mask and meta."""
        n = len(self)
        pick = lambda value: value[rows] if isinstance(value, Tensor) and value.ndim and len(value) == n else value  # noqa: E731
        return replace(
            self,
            data=self.data[rows],
            row=self.row[rows],
            mask=pick(self.mask),
            meta={key: pick(value) for key, value in self.meta.items()},
        )

    def replace(self, **changes) -> View:
        return replace(self, **changes)

    def input_mask(self) -> Tensor | None:
        """The mask; of rows of numbers always one, since on another rank there may be padding."""
        if self.mask is None and self.data.ndim == 2:
            return torch.ones_like(self.data, dtype=torch.bool)
        return self.mask


@dataclass
class Batch(_Movable):
    """B samples as they come from the loader.

    inputs  modality -> raw View; a modality that no sample of the batch has is absent
    index   int64 (B,): position in the data set, always there
    groups  name -> int64 (B,): identities such as patient or recording; -1 = unknown, equal to nothing
    labels  name -> (B,): int64 classes (-1 = unknown) or float32 values (NaN = unknown)
    fields  named extras of a pack
    """

    inputs: dict[str, View]
    index: Tensor
    groups: dict[str, Tensor] = field(default_factory=dict)
    labels: dict[str, Tensor] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.index)


class Features(NamedTuple):
    """What an encoder may return instead of `h` alone.

    h (n, H), tokens (n, L, C) with mask bool (n, L), map (n, C, ...); layers: pooled features (n, W_k) of layers before
    the last, from the input on
    """

    h: Tensor
    tokens: Tensor | None = None
    mask: Tensor | None = None
    map: Tensor | None = None
    layers: tuple[Tensor, ...] = ()


@dataclass
class Encoded(_Movable):
    """What encoder and head made of a View.

    z      float32 (n, D): the contrasted embedding, not normalised
    h      (n, H): the representation kept for downstream use
    row    int64 (n,): the sample of the batch each row belongs to
    view   id of the View: the same number for student, momentum and teacher outputs of one View
    tokens, mask, map, layers: as in Features; heads: other outputs of the head, by name; meta: of the View
    input, input_mask: data and mask of the View itself, of students and where an objective needs `input`; else None.
    What is a row of numbers has a mask then, also where nothing is padded
    """

    modality: str
    role: str
    view: int
    row: Tensor
    z: Tensor
    h: Tensor
    tokens: Tensor | None = None
    mask: Tensor | None = None
    map: Tensor | None = None
    heads: dict[str, Tensor] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    input: Tensor | None = None
    input_mask: Tensor | None = None
    layers: tuple[Tensor, ...] = ()

    def detach(self) -> Encoded:
        """The same values without a gradient."""
        return map_tensors(lambda t: t.detach() if t.requires_grad else t, self)


@dataclass
class Queued(_Movable):
    """Rows that a queue held before this batch, oldest overwritten first.

    z float32 (K, D); index int64 (K,): position in the data set; groups: name -> int64 (K,)
    """

    z: Tensor
    index: Tensor
    groups: dict[str, Tensor] = field(default_factory=dict)

    def ids(self, by: str = "index") -> Tensor:
        """int64 (K,): what `Outputs.ids` gives for these rows; ComponentError for a group that they do not know."""
        return self.index if by == "index" else unknown_to_unique(_column(self.groups, by, "the queue"), self.index)


class Pair(NamedTuple):
    """Two Encoded aligned: q[j] and k[j], (N, D) each, come from sample row[j] of the batch."""

    q: Tensor
    k: Tensor
    query: Encoded
    key: Encoded
    row: Tensor


@dataclass
class Outputs:
    """Everything an objective may look at.

    student   one Encoded a view; gradients flow
    momentum  the same views through the EMA encoders, when an objective needs them
    teacher   the same views through a frozen checkpoint, when the recipe names one
    queues    name -> Queued, as they were before this batch
    batch     index, groups, labels of the whole batch over all ranks; raw inputs of this rank only
    step      counts batches from 0; epoch; total_steps: batches in the whole run
    draws     random numbers that the objective takes in the place of its own, by name; generator: what it draws from
              then, None: torch's own. The loop gives neither
    """

    student: list[Encoded]
    batch: Batch
    momentum: list[Encoded] = field(default_factory=list)
    teacher: list[Encoded] = field(default_factory=list)
    queues: dict[str, Queued] = field(default_factory=dict)
    step: int = 0
    epoch: int = 0
    total_steps: int = 1
    draws: Mapping[str, Tensor] = field(default_factory=dict)
    generator: torch.Generator | None = None

    def views(self, modality: str | None = None, role: str | None = None, of: str = "student") -> list[Encoded]:
        """The Encoded of one modality and role, in order; without `role`, all but negatives, edited positives and mixtures."""
        return [
            e
            for e in getattr(self, of)
            if (modality is None or e.modality == modality)
            and (e.role == role if role is not None else e.role not in APART)
        ]

    def one(self, modality: str | None = None, role: str | None = None, of: str = "student") -> Encoded:
        """The only such Encoded; ValueError when there is none or more than one."""
        found = self.views(modality, role, of)
        if len(found) != 1:
            raise ValueError(f"expected one {of} view of modality {modality}, role {role}; there are {len(found)}")
        return found[0]

    def modalities(self) -> list[str]:
        return list(dict.fromkeys(e.modality for e in self.student))

    def ids(self, e: Encoded, by: str = "index") -> Tensor:
        """int64 (n,): whose each row is: position in the data set, or a group; an unknown group equals nothing."""
        index = self.batch.index[e.row]
        if by == "index":
            return index
        return unknown_to_unique(_column(self.batch.groups, by, "the batch")[e.row], index)

    def pairs(self, which: str = "all", keys: str = "student") -> list[Pair]:
        """Aligned pairs of views of the same samples; a pair without a common sample is left out.

        which  all | within (views of one modality) | across (modalities) | a modality: it is the query of every pair
        keys   student: unordered pairs of student views; momentum or teacher: ordered (student view, another view)

        Raises ComponentError for a kind that is none and no modality either.
        """
        found = []
        queries = self.views()
        if which not in PAIRS and self.student and which not in (names := self.modalities()):
            raise ComponentError(
                f"pairs: {which!r} is none of {', '.join(PAIRS)}, and no modality here{suggest(which, [*PAIRS, *names])}"
            )
        for a, query in enumerate(queries):
            others = queries[a + 1 :] if keys == "student" else self.views(of=keys)
            for key in others:
                ordered = paired(which, query, key)
                if ordered is None:
                    continue
                pair = align(*ordered)
                if len(pair.row):
                    found.append(pair)
        return found

    def stack(self, name: str = "z", modality: str | None = None, of: str = "student") -> tuple[Tensor, Tensor]:
        """(V, N, ...) of the N samples that every view has, and their rows int64 (N,)."""
        encoded = self.views(modality, of=of)
        row = encoded[0].row
        for e in encoded[1:]:
            row = row if e.row is row else row[torch.isin(row, e.row)]
        return torch.stack([getattr(e, name)[_locate(e.row, row)] for e in encoded]), row

    # Random numbers

    def seed(self) -> int:
        """62 bits from torch's generator on the host, from which an objective makes numbers that follow the samples."""
        return int(torch.randint(2**62, (), generator=self.generator, device=self._drawn_on("cpu")))

    def rand(self, *shape: int, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Tensor:
        """Uniform numbers in [0, 1) of this shape."""
        made = torch.rand(shape, dtype=dtype, generator=self.generator, device=self._drawn_on(device))
        return made if self.generator is None else made.to(device)

    def randperm(self, n: int, device: torch.device | None = None) -> Tensor:
        """int64 (n,): a random order of 0..n-1."""
        made = torch.randperm(n, generator=self.generator, device=self._drawn_on(device))
        return made if self.generator is None else made.to(device)

    def _drawn_on(self, device):
        return device if self.generator is None else self.generator.device

    def drawn(self, name: str, shape: Sequence[int], draw: Callable[[], Tensor]) -> Tensor:
        """What was given under this name of `draws`, else what `draw` makes; ComponentError for another shape."""
        if name not in self.draws:
            return draw()
        given = torch.as_tensor(self.draws[name], device=self.batch.index.device)
        if given.shape != tuple(shape):
            raise ComponentError(f"draws: {name!r}: expected {tuple(shape)}, got {tuple(given.shape)}")
        return given

    def zero(self) -> Tensor:
        """A zero connected to every student embedding, so that no parameter is left without a gradient."""
        z = [e.z for e in self.student]
        return _Zero.apply(*z) if z else torch.zeros((), device=self.batch.index.device)

    def map(self, fn: Callable[[Tensor], Tensor]) -> Outputs:
        """The same Outputs with `fn` applied to every tensor."""
        return map_tensors(fn, self)

    def __iter__(self) -> Iterator[Encoded]:
        return iter(self.student)


class _Zero(torch.autograd.Function):
    """A zero whose gradient by every tensor is zero, whatever is in them: one number each, not a table of them."""

    @staticmethod
    def forward(ctx, *tensors: Tensor) -> Tensor:
        ctx.shapes = [x.shape for x in tensors]
        return tensors[0].new_zeros(())

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, ...]:
        nothing = torch.zeros_like(grad)
        return tuple(nothing.expand(shape) for shape in ctx.shapes)


def paired(which: str, query: Encoded, key: Encoded) -> tuple[Encoded, Encoded] | None:
    """The two views as query and key of a pair of this kind; None when they form none."""
    if query.view == key.view:
        return None
    same = query.modality == key.modality
    if which == "all" or which == ("within" if same else "across"):
        return query, key
    if which in (query.modality, key.modality) and not same:
        return (query, key) if query.modality == which else (key, query)
    return None


def align(query: Encoded, key: Encoded) -> Pair:
    """Every combination of a row of `query` and a row of `key` that belong to the same sample."""
    if query.row is key.row:
        return Pair(query.z, key.z, query, key, query.row)
    order = torch.argsort(key.row, stable=True)
    ranked = key.row[order].contiguous()
    first = torch.searchsorted(ranked, query.row)
    count = torch.searchsorted(ranked, query.row, right=True) - first
    left = torch.repeat_interleave(torch.arange(len(query.row), device=order.device), count)
    nth = torch.arange(len(left), device=order.device) - (count.cumsum(0) - count)[left]
    right = order[first[left] + nth]
    return Pair(query.z[left], key.z[right], query, key, query.row[left])


def padded(rows: Tensor, sizes: Sequence[int]) -> Tensor:
    """`rows` (n, ...) with zeros (false) at the end of each further dimension, up to `sizes`."""
    if list(rows.shape[1:]) == list(sizes):
        return rows
    ends = [n for have, want in zip(reversed(rows.shape[1:]), reversed(sizes)) for n in (0, want - have)]
    return torch.nn.functional.pad(rows, ends)


def _locate(rows: Tensor, wanted: Tensor) -> Tensor | slice:
    """Positions in `rows` (each value once) of the values `wanted`."""
    if rows is wanted:
        return slice(None)
    order = torch.argsort(rows)
    return order[torch.searchsorted(rows[order].contiguous(), wanted)]


def _column(columns: Mapping[str, Tensor], name: str, whose: str) -> Tensor:
    if name not in columns:
        raise ComponentError(f"{name!r} is not a group of {whose}; it has: {', '.join(columns) or 'none'}")
    return columns[name]


def unknown_to_unique(ids: Tensor, index: Tensor) -> Tensor:
    """Group ids with every -1 replaced by a number that only its own sample has."""
    return torch.where(ids < 0, -2 - index, ids)
