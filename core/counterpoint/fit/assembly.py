"""From a checked recipe to the parts that train: built, and checked against each other before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch.utils.data import IterableDataset

from counterpoint.data.dataset import Spec
from counterpoint.errors import ComponentError, DataError, suggest
from counterpoint.fit.checks import (
    Problems,
    check_device,
    check_masks,
    check_micro_batch,
    check_modalities,
    check_scores,
)
from counterpoint.fit.frozen import TEACHER, frozen
from counterpoint.objectives.needs import Momentum, Needs, Offers, check
from counterpoint.objectives.objective import Objective
from counterpoint.randomness import key, seed_all
from counterpoint.recipe import Recipe
from counterpoint.refresh.refresh import Refresh
from counterpoint.towers.building import build_tower, widths_of
from counterpoint.towers.sharing import share
from counterpoint.towers.teacher import Teacher
from counterpoint.towers.tower import Tower
from counterpoint.views.pipeline import Pipeline


@dataclass
class Assembly:
    """What a recipe builds: data set, towers, pipelines and objectives, what the momentum encoders follow, and frozen towers."""

    recipe: Recipe
    dataset: Any
    given: dict[str, dict[str, Any]]  # modality -> what the data knows
    towers: dict[str, Tower]
    pipelines: dict[str, Pipeline]
    objectives: dict[str, Objective]
    momentum: Momentum | None
    teacher: Teacher | None = None
    refresh: dict[str, Refresh] = field(default_factory=dict)
    earlier: dict[str, Teacher] = field(default_factory=dict)  # stages that the teacher or a refresh is, by name
    seen_by: dict[str, Teacher] = field(default_factory=dict)  # those that refreshes name


def build_dataset(recipe: Recipe, split: str | None = None):
    """The training data, or another split of it; RecipeError or DataError when it cannot be had."""
    call = recipe.data
    if split is not None:
        call = replace(call, params=call.params | {"split": split})
    dataset = call.build()
    spec = getattr(dataset, "spec", None)
    if not isinstance(spec, Spec):
        raise ComponentError(
            f"{recipe.where('data')}: {call.name!r} has no `spec` of type Spec; got {type(spec).__name__}"
        )
    if isinstance(dataset, IterableDataset):
        raise ComponentError(
            f"{recipe.where('data')}: {call.name!r} is one of torch's iterable datasets, which a run cannot go on with; "
            "derive it from counterpoint.data.stream.Stream"
        )
    if spec.size < 1:
        raise DataError(f"{recipe.where('data')}: {call.name!r} is empty: it has no sample")
    return dataset


def given_by(spec: Spec) -> dict[str, dict[str, Any]]:
    """modality -> values that `Given` may take, the data set's own included."""
    return {m: {"size": spec.size, **facts} for m, facts in spec.modalities.items()}


def build_pipeline(recipe: Recipe, modality: str, given: Mapping[str, Any]) -> Pipeline:
    """The view generators of a modality; the initial weights of those that learn are a function of the recipe's seed."""
    seed_all(key(recipe.seed, "init", "views", modality))
    calls = recipe.views.get(modality, [])
    return Pipeline(modality, [call.build(given) for call in calls], [call.name for call in calls])


def assemble(recipe: Recipe) -> Assembly:
    """Build every part and check them together.

    Raises RecipeError with every lack at once: a modality the data does not have or that has no encoder, a value that
    nobody gives, an objective that needs what the recipe does not make.
    """
    problems = Problems()
    check_device(recipe, problems)
    check_micro_batch(recipe, problems)
    for call in (recipe.optimizer, recipe.schedule):
        problems.attempt(call.build)
    dataset = problems.attempt(lambda: build_dataset(recipe))
    if dataset is None:
        problems.stop()
    spec: Spec = dataset.spec
    check_modalities(recipe, spec, problems)
    check_scores(recipe, dataset, problems)
    given = given_by(spec)
    known = [m for m in recipe.encoders if m in given]
    towers = {m: t for m in known if (t := problems.attempt(lambda m=m: build_tower(recipe, m, given[m])))}
    pipelines = {
        m: p for m in known if (p := problems.attempt(lambda m=m: build_pipeline(recipe, m, given[m]))) is not None
    }
    problems.stop()
    problems.attempt(lambda: share(towers))
    check_masks(recipe, spec, towers, problems)
    objectives = _build_objectives(recipe, spec, towers, problems)
    refresh = _refresh(recipe, spec, problems)
    offers = _offers(recipe, spec, towers, pipelines, refresh)
    needs = {name: objective.needs() for name, objective in objectives.items()}
    for name, need in needs.items():
        problems.found += check(recipe.where(recipe.objectives[name].path), need, offers)
    momentum = momentum_of(recipe, needs, problems)
    taught, assets = any(need.teacher for need in needs.values()), getattr(dataset, "assets", dict)()
    others = problems.attempt(lambda: frozen(recipe, taught, refresh, given, assets))
    problems.stop()
    return Assembly(
        recipe, dataset, given, towers, pipelines, objectives, momentum, others.seen.get(TEACHER) if taught else None,
        refresh, others.earlier, {who: others.seen[who] for rule in refresh.values() for who in rule.by},
    )  # fmt: skip


def build_objectives(recipe: Recipe, spec: Spec, towers: Mapping[str, Tower]) -> dict[str, Objective]:
    """The objectives of a recipe with their initial weights."""
    return _build_objectives(recipe, spec, towers, Problems())


def _build_objectives(recipe: Recipe, spec: Spec, towers: Mapping[str, Tower], problems: Problems) -> dict:
    dims = {modality: tower.dim for modality, tower in towers.items()}
    if len(set(dims.values())) > 1:
        listed = ", ".join(f"{modality} {dim}" for modality, dim in dims.items())
        problems.found.append(
            f"{recipe.where('heads')}: heads give embeddings of different widths ({listed}); set one dim"
        )
    facts = {modality: {**spec.modalities[modality], **widths_of(tower)} for modality, tower in towers.items()}
    given = {"dim": next(iter(dims.values())), "size": spec.size, "modalities": list(towers), "facts": facts}
    if counts := [len(t.head.prototypes) for t in towers.values() if hasattr(t.head, "prototypes")]:
        given["prototypes"] = counts[0]
    built = {}
    for name, call in recipe.objectives.items():
        seed_all(key(recipe.seed, "init", "objective", name))
        objective = problems.attempt(lambda call=call: call.build(given))
        if objective is not None:
            built[name] = objective
    problems.stop()
    return built


def _refresh(recipe: Recipe, spec: Spec, problems: Problems) -> dict[str, Refresh]:
    """The columns that are made between epochs, whose names must be free and whose modalities must be there."""
    rules = {name: rule for name, call in recipe.refresh.items() if (rule := problems.attempt(call.build))}
    taken = dict.fromkeys(["index", *spec.groups, *spec.labels], f"of data {recipe.data.name!r}")
    for name, rule in rules.items():
        where = recipe.where(recipe.refresh[name].path)
        for column in rule.groups(name) or [name]:
            if column in taken:
                problems.found.append(f"{where}: {column!r} is a column {taken[column]} already")
            taken[column] = f"of refresh.{name}"
        if lacking := rule.lacking(spec.size):
            problems.found.append(f"{where}: {lacking}")
        for modality in sorted({m for m in rule.modalities if m is not None and m not in recipe.encoders}):
            lack = f"{modality!r} is not a modality of the recipe{suggest(modality, recipe.encoders)}"
            problems.found.append(f"{where}: {lack}")
    return rules


def _offers(
    recipe: Recipe,
    spec: Spec,
    towers: Mapping[str, Tower],
    pipelines: Mapping[str, Pipeline],
    refresh: Mapping[str, Refresh],
) -> Offers:
    gives = [frozenset(getattr(tower.encoder, "gives", ())) for tower in towers.values()]
    return Offers(
        views={modality: pipeline.layout() for modality, pipeline in pipelines.items()},
        data=recipe.data.name,
        groups={**spec.groups, **{group: r.identities for name, r in refresh.items() for group in r.groups(name)}},
        labels=spec.labels,
        features=frozenset.intersection(*gives) | {"input"},
        batch=min(recipe.loader.batch, spec.size),
        heads=frozenset.intersection(*(frozenset(getattr(t.head, "gives", ())) for t in towers.values())) - {"tokens"},
        teacher=recipe.teacher is not None,
        records={modality: pipeline.records for modality, pipeline in pipelines.items()},
        size=spec.size,
    )


def momentum_of(recipe: Recipe, needs: Mapping[str, Needs], problems: Problems) -> Momentum | None:
    asked = {name: need.momentum for name, need in needs.items() if need.momentum is not None}
    chosen = recipe.momentum
    if not asked:
        return None
    dropout = all(m.dropout for m in asked.values())  # one that asks for none has its way: the copies are shared
    if chosen.decay is not None:
        return Momentum(chosen.decay, chosen.final, dropout)
    if len({(m.decay, m.final) for m in asked.values()}) > 1:
        listed = ", ".join(f"{name} {m.decay}" for name, m in asked.items())
        problems.found.append(
            f"{recipe.where('objective')}: the objectives follow momentum encoders at different rates ({listed}); "
            "set momentum.decay"
        )
    return replace(next(iter(asked.values())), dropout=dropout)
