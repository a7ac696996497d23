"""What an objective asks for, and whether a recipe, or a call from Python, gives it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from counterpoint.batch import APART, PAIRS
from counterpoint.errors import suggest
from counterpoint.objectives.remedies import RECIPE, OfRecipe


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
    apart       modalities whose views form no pairs
    of          modality -> the `features` it looks at there, where that is not all of them
    index       whether it looks at whose a row is beyond the batch: the loop always says so, a call has to
    owners      whether the rows of queues, too, have to say whose they are
    state       samples that a state by index holds; None: there is none
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
    apart: frozenset[str] = frozenset()
    of: Mapping[str, frozenset[str]] = field(default_factory=dict)
    index: bool = False
    owners: bool = False
    state: int | None = None


@dataclass(frozen=True)
class Offers:
    """What a recipe and its data give, or a call: `views` maps a modality to the roles of its views (negatives included).

    groups: name -> identities; labels: name -> classes, None for a continuous value; records: modality -> what the meta of
    its views holds; of: modality -> features, where that is not `features`; queues, index: what a call gives, None where
    the loop keeps them; size: samples of the data, or one more than the largest index of a call
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
    of: Mapping[str, Iterable[str]] = field(default_factory=dict)
    queues: Iterable[str] | None = None
    index: bool | None = None
    size: int | None = None
    remedies: OfRecipe = RECIPE


def check(path: str, needs: Needs, offers: Offers) -> list[str]:
    """What the objective at `path` needs and `offers` lacks: one message each, with the line to add."""
    remedies = offers.remedies
    views = {m: [role for role in roles if role not in APART] for m, roles in offers.views.items()}
    problems = [*_check_views(path, needs, views, remedies), *_check_columns(path, needs, offers)]
    if needs.roles and not needs.roles & {role for roles in offers.views.values() for role in roles}:
        problems.append(f"{path}: needs views of role {' or '.join(sorted(needs.roles))}{remedies.role(needs.roles)}")
    problems += _check_features(path, needs, offers)
    if missing := needs.heads - set(offers.heads):
        has = ", ".join(sorted(offers.heads)) or "z alone"
        example = remedies.heads(missing, next(iter(views), "input"))
        problems.append(f"{path}: needs heads that also give {', '.join(sorted(missing))}; they give: {has}{example}")
    problems += [
        remedies.record(path, name, modality)
        for modality in offers.views
        for name in sorted(needs.records - set(offers.records.get(modality, ())))
    ]
    if needs.teacher and not offers.teacher:
        problems.append(f"{path}: {remedies.teacher()}")
    if offers.batch is not None and offers.batch < needs.batch:
        problems.append(
            f"{path}: a batch of {offers.batch} has nothing to contrast a sample with; {remedies.batch(needs.batch)}"
        )
    return problems + _check_kept(path, needs, offers)


def _check_features(path: str, needs: Needs, offers: Offers) -> list[str]:
    wanted = {m: needs.of.get(m, needs.features) for m in offers.views if m not in needs.apart}
    missing = {m: features - set(offers.of.get(m, offers.features)) for m, features in wanted.items()}
    return offers.remedies.features(path, {m: lacking for m, lacking in missing.items() if lacking})


def _check_views(path: str, needs: Needs, views: dict[str, list[str]], remedies: OfRecipe) -> list[str]:
    problems = []
    if isinstance(needs.modalities, int):
        if len(views) < needs.modalities:
            problems.append(
                f"{path}: needs {needs.modalities} modalities, {remedies.has} {len(views)} ({', '.join(views)}); "
                f"{remedies.modality()}"
            )
    else:
        for name in sorted(set(needs.modalities) - set(views)):
            problems.append(f"{path}: {name!r} is not a modality of {remedies.whole}{suggest(name, views)}")
    for modality, roles in views.items():
        if len(roles) < needs.views:
            problems.append(
                f"{path}: needs {needs.views} views of {modality!r}, {remedies.makes} {len(roles)}; "
                f"{remedies.views(modality, needs.views)}"
            )
    return problems or _check_pairs(path, needs, views, remedies)


def _check_pairs(path: str, needs: Needs, views: dict[str, list[str]], remedies: OfRecipe) -> list[str]:
    if needs.pairs not in (None, *PAIRS, *views):
        choices = suggest(needs.pairs, [*PAIRS, *views])
        return [
            f"{path}: pairs: {needs.pairs!r} is none of {', '.join(PAIRS)} and no modality of {remedies.whole}{choices}"
        ]
    views = {modality: roles for modality, roles in views.items() if modality not in needs.apart}
    within, across = any(len(roles) > 1 for roles in views.values()), len(views) > 1
    if {None: True, "all": within or across, "within": within}.get(needs.pairs, across):
        return []
    two = needs.pairs in ("all", "within")
    remedy = remedies.views(next(iter(views), "input"), 2) if two else remedies.second_modality()
    return [f"{path}: needs two views of one sample to form a positive pair; {remedy}"]


def _check_columns(path: str, needs: Needs, offers: Offers) -> list[str]:
    problems = []
    data = offers.remedies.data(offers.data)
    for name, count in offers.groups.items():
        if name in needs.groups and count < 2:
            problems.append(f"{path}: group {name!r} has {count} identity in {data}; a contrast needs two")
    for kind, wanted, there in (("group", needs.groups, offers.groups), ("label", needs.labels, offers.labels)):
        for name in sorted(wanted - set(there)):
            has = ", ".join(sorted(there)) or "none"
            remedy = offers.remedies.column(kind, name)
            problems.append(f"{path}: {name!r} is not a {kind} of {data}; it has: {has}{remedy}")
    return problems


def _check_kept(path: str, needs: Needs, offers: Offers) -> list[str]:
    """What is kept between batches: queues and identities, which a call has to give, and room for every sample."""
    problems = []
    if offers.queues is not None:
        for name in sorted(set(offers.queues) - set(needs.queues)):
            known = suggest(name, needs.queues) or "; it takes none"
            problems.append(f"{path}: {name!r} is not a queue of it{known}")
        for name in sorted(set(needs.queues) - set(offers.queues)):
            problems.append(
                f"{path}: needs the queue {name!r}, at most {needs.queues[name]} past rows (K, D), none at first; "
                f"counterpoint.outputs(..., queues={{{name!r}: rows}})"
            )
    if needs.index and offers.index is False:
        problems.append(
            f"{path}: looks at whose a row is beyond the batch; counterpoint.outputs(..., index=index), int64 (B,), the "
            "position of each sample in the data set"
        )
    elif needs.state is not None and offers.size is not None and offers.size > needs.state:
        problems.append(f"{path}: its state holds {needs.state} samples, and {offers.remedies.state(offers.size)}")
    return problems
