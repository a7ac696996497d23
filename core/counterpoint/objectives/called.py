"""A call from Python: what an objective needs against what it was given, before its loss, and whether it compared anything.

What a recipe checks once, a call checks, in the same words (`needs.check`). In the loop none of this runs: there a batch
without a pair is a zero, and what is lacking has been said before training.
"""

from __future__ import annotations

import warnings
from typing import Protocol

import torch
from torch import Tensor

from counterpoint.batch import APART, Encoded, Outputs, paired, replace
from counterpoint.by_hand.outputs import ByHand, NotSaid
from counterpoint.errors import ComponentError, suggest
from counterpoint.objectives.needs import Needs, Offers, check
from counterpoint.objectives.remedies import CALL

FEATURES = ("tokens", "map", "input")
CALLER = 6  # the frame that called the objective, from a warning here: two of this module, forward, two of torch's


class Asked(Protocol):
    """What is asked of an objective here."""

    draws: tuple[str, ...]

    def needs(self) -> Needs: ...

    def prepare(self, outputs: Outputs) -> Outputs: ...

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]: ...


def name_of(objective: Asked) -> str:
    return f"objective {type(objective).__name__}"


def called(objective: Asked, outputs: ByHand) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss and its parts; ComponentError for what is lacking, and where nothing is compared with anything."""
    who, needs = name_of(objective), objective.needs()
    if problems := lacks(who, objective, needs, outputs):
        raise ComponentError("\n".join(dict.fromkeys(problems)))
    when = {name: getattr(outputs, name) for name in NotSaid.COUNTS}
    seen = replace(outputs, noted=set(), **{n: NotSaid(n, who) for n, at in when.items() if isinstance(at, NotSaid)})
    loss, parts = _loss(objective, who, objective.prepare(seen))
    if "zero" in seen.noted and not _waits(needs, seen) and _compares_nothing(loss):
        raise ComponentError(
            f"{who}: there is nothing to compare, and the loss is 0: no two views that it pairs have a sample in common; "
            f"given are {described(seen)}"
        )
    _warn(who, needs, seen, len({id(e.z) for e in outputs.student}) < len(outputs.student))
    return loss, parts


def _loss(objective: Asked, who: str, seen: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
    try:
        return objective.loss(seen)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, RuntimeError) and type(error) is not RuntimeError:  # out of memory, and the like
            raise
        raise ComponentError(
            f"{who}: cannot take what it was given ({described(seen)}): {type(error).__name__}: {error}"
        ) from error


def lacks(who: str, objective: Asked, needs: Needs, outputs: ByHand) -> list[str]:
    """What the objective needs and the outputs lack, one message each."""
    problems = _sides(who, needs, outputs)
    return (
        problems
        + check(who, needs, offered(needs, outputs))
        + _widths(who, needs, outputs)
        + ([] if problems else _twins(who, needs, outputs))
        + _queues(who, needs, outputs)
        + _draws(who, objective, outputs)
    )


def _sides(who: str, needs: Needs, outputs: ByHand) -> list[str]:
    if needs.momentum is None or outputs.momentum or not outputs.student:
        return []
    return [
        f"{who}: expected `momentum` in the outputs, the views as the momentum encoders see them; got none. "
        "counterpoint.outputs(za, zb, momentum=[ka, kb])"
    ]


def _widths(who: str, needs: Needs, outputs: ByHand) -> list[str]:
    """Of an objective that pairs views and looks at z alone."""
    widths = {e.z.shape[1] for e in outputs.views() if e.modality not in needs.apart}
    if needs.pairs is None or needs.features or needs.heads or len(widths) < 2:
        return []
    return [f"{who}: compares views of one width; got {described(outputs)}"]


def offered(needs: Needs, outputs: ByHand) -> Offers:
    """What was given, in the terms of a recipe."""
    ordinary = [e for e in outputs.student if e.role not in APART]
    by_modality = {m: [e for e in ordinary if e.modality == m] for m in outputs.modalities()}
    batch, indexed = outputs.batch, "index" in outputs.said
    return Offers(
        views=_roles(needs, outputs),
        data="",
        groups=dict.fromkeys(batch.groups, 2),
        labels=dict.fromkeys(batch.labels, 2),
        of={m: _common([_features(e) for e in views]) for m, views in by_modality.items()},
        batch=_different(batch.index) if indexed and needs.batch > 1 else len(batch),
        heads=_common([{*e.heads, *(["map"] if e.map is not None else [])} for e in ordinary]),
        teacher=bool(outputs.teacher),
        records={m: _common([set(e.meta) for e in views]) for m, views in by_modality.items()},
        queues=outputs.queues,
        index=indexed,
        size=int(batch.index.max()) + 1 if indexed and needs.state is not None and len(batch) else None,
        remedies=CALL,
    )


def _roles(needs: Needs, outputs: ByHand) -> dict[str, list[str]]:
    """The roles of every modality's views: the student's, and those that momentum encoders alone see, as keys."""
    views = {e.view: e for e in [*(outputs.momentum if needs.momentum else []), *outputs.student]}
    ordered = sorted(views.values(), key=lambda e: e.view)
    return {m: [e.role for e in ordered if e.modality == m] for m in dict.fromkeys(e.modality for e in ordered)}


def _features(e: Encoded) -> set[str]:
    return {name for name in FEATURES if getattr(e, name) is not None} | ({"layers"} if e.layers else set())


def _common(sets: list[set[str]]) -> set[str]:
    return set.intersection(*sets) if sets else set()


def _different(index: Tensor) -> int:
    """How many samples there are; 1 for a batch that is the same one again and again."""
    return len(index) if len(index) and bool((index != index[0]).any()) else min(len(index), 1)


def _twins(who: str, needs: Needs, outputs: ByHand) -> list[str]:
    """Momentum and teacher views that are of none of the student's, or of nothing but the view they would be compared with."""
    number = lambda views: ", ".join(f"{e.view} ({e.modality})" for e in views) or "none"  # noqa: E731
    if needs.teacher and outputs.teacher and not {e.view for e in outputs.teacher} & {e.view for e in outputs.student}:
        return [
            f"{who}: the teacher's views are {number(outputs.teacher)} and the student's {number(outputs.student)}: "
            "none is the same; counterpoint.encoded(t, view=0)"
        ]
    if needs.momentum is None or needs.pairs is None:
        return []
    keys = outputs.views(of="momentum")
    if any(paired(needs.pairs, query, key) for query in outputs.views() for key in keys):
        return []
    return [
        f"{who}: the student's views are {number(outputs.views())} and the momentum encoders' {number(keys)}: a key is "
        "another view of the sample than its query; momentum=[ka, kb] for two views, or momentum=[counterpoint.encoded(k, "
        "view=1)]"
    ]


def _queues(who: str, needs: Needs, outputs: ByHand) -> list[str]:
    problems = []
    for name in [name for name in needs.queues if name in outputs.queues]:
        queue, widths = outputs.queues[name], {e.z.shape[1] for e in [*outputs.student, *outputs.momentum]}
        if widths and queue.z.shape[1] not in widths:
            k, d = queue.z.shape
            turned = "; it stands on its side: rows.T" if k in widths else ""
            problems.append(
                f"{who}: queue {name!r}: expected (K, {min(widths)}), rows as wide as z; got ({k}, {d}){turned}"
            )
        if needs.owners and name not in outputs.said:
            problems.append(
                f"{who}: queue {name!r} does not say whose its rows are, which it looks at; "
                f"queues={{{name!r}: {{'z': rows, 'index': index}}}}"
            )
    return problems


def _draws(who: str, objective: Asked, outputs: ByHand) -> list[str]:
    return [
        f"{who}: {name!r} is nothing that it draws{suggest(name, objective.draws) or '; it draws nothing'}"
        for name in outputs.draws
        if name not in objective.draws
    ]


def _waits(needs: Needs, outputs: ByHand) -> bool:
    """Whether a queue holds no row yet: a zero is right then."""
    return any(not len(outputs.queues[name].z) for name in needs.queues)


def _compares_nothing(loss: Tensor) -> bool:
    """Whether the loss is exactly 0 and no gradient but the zero of `Outputs.zero` flows from it."""
    if float(loss.detach()):
        return False
    todo, met = [loss.grad_fn], set()
    while todo:
        node = todo.pop()
        if node is None or node in met or type(node).__name__.startswith("_Zero"):
            continue
        if not node.next_functions:
            return False
        met.add(node)
        todo += [following for following, _ in node.next_functions]
    return True


def _warn(who: str, needs: Needs, outputs: ByHand, twice: bool) -> None:
    """What was given and not looked at, and one tensor in the place of two views."""
    idle = [side for side in ("momentum", "teacher") if getattr(outputs, side) and not getattr(needs, side)]
    roles = sorted({e.role for e in outputs.student} & APART - outputs.noted)
    for what in [f"`{side}`" for side in idle] + [f"views of role {role!r}" for role in roles]:
        warnings.warn(f"{who} does not look at {what}, which it was given", stacklevel=CALLER)
    if twice and needs.pairs:
        warnings.warn(f"{who}: one tensor stands for two views; embed each view for itself", stacklevel=CALLER)


def described(outputs: Outputs) -> str:
    """`image z (8, 16), text z (8, 16); momentum text z (8, 16)`."""
    sides = [(side, getattr(outputs, side)) for side in ("student", "momentum", "teacher")]
    listed = [(side, ", ".join(f"{e.modality} z {tuple(e.z.shape)}" for e in views)) for side, views in sides if views]
    listed += [(f"queue {name!r}", str(tuple(queue.z.shape))) for name, queue in outputs.queues.items()]
    return "; ".join(text if side == "student" else f"{side} {text}" for side, text in listed)


def refused(who: str, given: tuple) -> str:
    """What is said where an objective is called with anything but Outputs."""
    got = ", ".join(type(value).__name__ for value in given) or "nothing"
    views = ", ".join(["za", "zb", "zc"][: max(2, sum(isinstance(value, torch.Tensor) for value in given))])
    return f"{who}: expected Outputs, got {got}; wrap tensors: objective(counterpoint.outputs({views}))"
