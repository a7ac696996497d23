"""What an objective is: a module called with Outputs that returns the loss and named parts to log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from counterpoint.batch import APART, Encoded, Outputs, replace
from counterpoint.errors import ComponentError, suggest
from counterpoint.kernels.autocast import no_autocast
from counterpoint.kernels.unit_rows import unit

MAKES = {"scores": "slots", "map": "dense"}  # outputs beside z, and the head of the core that makes them


@dataclass(frozen=True)
class Momentum:
    """EMA of the encoders: target = decay * target + (1 - decay) * student after every optimizer step.

    With `final`, decay rises from `decay` to `final` along a half cosine over the run (BYOL, section 3.3). Without
    `dropout` the averaged encoders see the views in evaluation mode, but for their batch statistics.
    """

    decay: float
    final: float | None = None
    dropout: bool = True

    def at(self, progress: float) -> float:
        """The decay when `progress` in [0, 1] of the run is done."""
        from math import cos, pi

        if self.final is None:
            return self.decay
        return self.final - (self.final - self.decay) * (cos(pi * min(progress, 1.0)) + 1) / 2


@dataclass(frozen=True)
class Needs:
    """What an objective asks of the recipe and of the data; it depends on the objective's parameters.

    pairs       kind of positive pair there must be at least one of: all, within, across, or a modality; None: none
    views       views that every modality must have
    roles       roles of which some modality must have a view: one of them is enough
    modalities  how many modalities there must be, or their names
    batch       smallest batch in which the loss means something
    groups      group names of the data; labels: label names of the data
    features    {"tokens"}, {"map"}: what encoders must return beside `h`
    heads       outputs that every head must have beside `z`, by name
    records     what the views of every modality must hold in `meta`: {"place"}
    teacher     whether the views must also be seen by a frozen run
    momentum    EMA encoders, and the decay they have unless the recipe says otherwise
    queues      name -> capacity in rows
    """

    pairs: str | None = None
    views: int = 1
    roles: frozenset[str] = frozenset()
    modalities: int | tuple[str, ...] = 1
    batch: int = 1
    groups: frozenset[str] = frozenset()
    labels: frozenset[str] = frozenset()
    features: frozenset[str] = frozenset()
    heads: frozenset[str] = frozenset()
    records: frozenset[str] = frozenset()
    teacher: bool = False
    momentum: Momentum | None = None
    queues: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Offers:
    """What a recipe and its data give: `views` maps a modality to the roles of its views (negatives included).

    groups: name -> identities; labels: name -> classes, None for a continuous value; records: modality -> what the meta of
    its views holds
    """

    views: Mapping[str, list[str]]
    data: str
    groups: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, int | None] = field(default_factory=dict)
    features: Iterable[str] = ()
    batch: int | None = None
    heads: Iterable[str] = ()
    teacher: bool = False
    records: Mapping[str, Iterable[str]] = field(default_factory=dict)


class Objective(nn.Module):
    """Base of every objective.

    A subclass defines `loss(outputs)` and returns `(loss, parts)`. Before that, once for all: `z` of every Encoded is
    L2-normalised when `unit` is true, and momentum, teacher and queues are detached. After it, a zero connected to
    every embedding and to every parameter of the objective is added, so that a batch without any pair gives a zero loss
    with zero gradients: distributed training waits for a gradient of every parameter.
    """

    unit = True

    def needs(self) -> Needs:
        return Needs()

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        raise TypeError(f"{type(self).__name__} must define loss(outputs)")

    def enqueue(self, outputs: Outputs) -> dict[str, Encoded]:
        """What enters each queue after the loss: rows as prepared (normalised, detached)."""
        return {}

    def prepare(self, outputs: Outputs) -> Outputs:
        """The Outputs as `loss` and `enqueue` see them."""
        return replace(
            outputs,
            student=[self._prepared(e) for e in outputs.student],
            momentum=[self._prepared(e, detach=True) for e in outputs.momentum],
            teacher=[self._prepared(e, detach=True) for e in outputs.teacher],
            queues={name: replace(queue, z=queue.z.detach()) for name, queue in outputs.queues.items()},
        )

    def _prepared(self, e: Encoded, detach: bool = False) -> Encoded:
        e = e.detach() if detach else e
        return replace(e, z=unit(e.z) if self.unit else e.z)

    def forward(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        if not isinstance(outputs, Outputs):
            name, got = type(self).__name__, type(outputs).__name__
            raise ComponentError(
                f"objective {name}: expected Outputs, got {got}; wrap tensors: counterpoint.outputs(za, zb)"
            )
        needs, name = self.needs(), type(self).__name__
        for side, wanted, who in (
            ("momentum", needs.momentum, "the momentum encoders see"),
            ("teacher", needs.teacher, "the teacher sees"),
        ):
            if wanted and outputs.student and not getattr(outputs, side):
                raise ComponentError(
                    f"objective {name}: expected `{side}` in the outputs, the views as {who} them; got none. "
                    f"Outside a run: counterpoint.outputs(za, zb, {side}=[ka, kb])"
                )
        with no_autocast(outputs.batch.index.device.type):
            loss, parts = self.loss(self.prepare(outputs))
        own = (p.sum() * 0.0 for p in self.parameters() if p.requires_grad)
        return sum(own, loss + outputs.zero()), parts


def mean(terms: list[Tensor], outputs: Outputs) -> Tensor:
    """The mean of `terms`, or a connected zero when there are none."""
    return sum(terms) / len(terms) if terms else outputs.zero()


def check(path: str, needs: Needs, offers: Offers) -> list[str]:
    """What the objective at `path` needs and `offers` lacks: one message each, with the line to add."""
    views = {m: [role for role in roles if role not in APART] for m, roles in offers.views.items()}
    problems = [*_check_views(path, needs, views), *_check_columns(path, needs, offers)]
    if needs.roles and not needs.roles & {role for roles in offers.views.values() for role in roles}:
        wanted = " or ".join(sorted(needs.roles))
        problems.append(f"{path}: needs views of role {wanted}, and no step under `views` makes one")
    if missing := needs.features - set(offers.features):
        problems.append(f"{path}: needs {', '.join(sorted(missing))} from the encoders, which return h alone")
    if missing := needs.heads - set(offers.heads):
        has = ", ".join(sorted(offers.heads)) or "z alone"
        example = next(
            (
                f"; add heads.{next(iter(views))}: {{use: {head}, ...}}"
                for name, head in MAKES.items()
                if name in missing
            ),
            "",
        )
        problems.append(f"{path}: needs heads that also give {', '.join(sorted(missing))}; they give: {has}{example}")
    problems += _check_records(path, needs, offers)
    if needs.teacher and not offers.teacher:
        problems.append(
            f"{path}: needs a teacher, a trained run (or an earlier stage) that sees the same views; add teacher: {{run: runs/...}}"
        )
    if offers.batch is not None and offers.batch < needs.batch:
        problems.append(
            f"{path}: a batch of {offers.batch} has nothing to contrast a sample with; "
            f"the smallest batch that makes sense is loader.batch: {needs.batch}"
        )
    return problems


def _check_records(path: str, needs: Needs, offers: Offers) -> list[str]:
    return [
        f"{path}: needs views that record their {name}, and no step of views.{modality} does; "
        "crops and flips that know where in the sample they look do (medical.crop)"
        for modality in offers.views
        for name in sorted(needs.records - set(offers.records.get(modality, ())))
    ]


def _check_views(path: str, needs: Needs, views: dict[str, list[str]]) -> list[str]:
    problems = []
    example = next(iter(views), "input")
    if isinstance(needs.modalities, int):
        if len(views) < needs.modalities:
            problems.append(
                f"{path}: needs {needs.modalities} modalities, the recipe has {len(views)} ({', '.join(views)}); "
                "add one under `encoders`"
            )
    else:
        for name in sorted(set(needs.modalities) - set(views)):
            problems.append(f"{path}: {name!r} is not a modality of the recipe{suggest(name, views)}")
    for modality, roles in views.items():
        if len(roles) < needs.views:
            problems.append(
                f"{path}: needs {needs.views} views of {modality!r}, the recipe makes {len(roles)}; "
                f"add views.{modality}: [{{use: copies, n: {needs.views}}}, ...]"
            )
    within = any(len(roles) > 1 for roles in views.values())
    across = len(views) > 1
    have = {"all": within or across, "within": within, "across": across}.get(needs.pairs or "", True)
    if not have and not problems:
        remedy = (
            "add a second modality under `encoders`"
            if needs.pairs == "across"
            else f"add views.{example}: [{{use: copies, n: 2}}, ...]"
        )
        problems.append(f"{path}: needs two views of one sample to form a positive pair; {remedy}")
    return problems


def _check_columns(path: str, needs: Needs, offers: Offers) -> list[str]:
    problems = []
    for name, count in offers.groups.items():
        if name in needs.groups and count < 2:
            problems.append(
                f"{path}: group {name!r} has {count} identity in data {offers.data!r}; a contrast needs two"
            )
    for kind, wanted, there in (("group", needs.groups, offers.groups), ("label", needs.labels, offers.labels)):
        for name in sorted(wanted - set(there)):
            has = ", ".join(sorted(there)) or "none"
            made = f"; a pseudo label is made by refresh: {{{name}: {{use: kmeans, clusters: 100}}}}"
            problems.append(
                f"{path}: {name!r} is not a {kind} of data {offers.data!r}; it has: {has}{made if kind == 'group' else ''}"
            )
    return problems
