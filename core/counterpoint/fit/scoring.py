"""The scores of a trained run, beside the untrained encoder, the raw input and the recipe's baselines."""

from __future__ import annotations

import json

import torch

from counterpoint.data.loader import named_faults
from counterpoint.evaluate import table
from counterpoint.evaluate.embed import Bare, Raw, attach, embed, observe
from counterpoint.fit.assembly import build_dataset, build_objectives, build_pipeline, given_by
from counterpoint.fit.length import workers_of
from counterpoint.fit.summary import closing
from counterpoint.objectives.mechanisms.learned_similarity import load_similarity
from counterpoint.recipe import Recipe
from counterpoint.runs.run import Run, now
from counterpoint.towers.building import build_towers
from counterpoint.towers.loading import load_towers


def finish(run: Run, recipe: Recipe) -> str:
    """Score a trained run, write scores.json and summary.md, and return what the user is told."""
    records = evaluate(run, recipe)
    run.write("scores.json", json.dumps(records, indent=2) + "\n")
    run.note(finished=run.facts().get("finished") or now(), **spent())
    text = closing(run, recipe, records)
    run.write("summary.md", f"# {run.name}\n\n```\n{text}\n```\n")
    run.note(state="done")  # last, so that a run that is done has all of its files
    return text


def spent() -> dict[str, float]:
    """What this process and those it has waited for took: CPU seconds, and the most memory that one of them held, in MiB."""
    import resource

    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    seconds = sum(u.ru_utime + u.ru_stime for u in used)
    return {"cpu_seconds": round(seconds, 1), "peak_memory_mib": round(max(u.ru_maxrss for u in used) / 1024)}


def evaluate(run: Run, recipe: Recipe) -> list[dict]:
    """One record a score: evaluator, metric, representation, value, interval, number of queries."""
    if not recipe.evaluate:
        return []
    with named_faults():
        return _evaluate(run, recipe)


def _evaluate(run: Run, recipe: Recipe) -> list[dict]:
    train, test = build_dataset(recipe), build_dataset(recipe, split="test")
    last = recipe.stage_recipes()[-1][1]
    given = given_by(train.spec)
    pipelines = {m: build_pipeline(last, m, given[m]) for m in recipe.encoders}
    options = {
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "workers": workers_of(recipe, train),
        "skip": 0.1 if recipe.loader.on_bad == "skip" else 0.0,
    }
    models = _representations(run, recipe, given)
    evaluators = {name: call.build() for name, call in labelled(recipe.evaluate)}
    observe(models, pipelines, train, options["workers"], options["skip"])
    fitted = any(getattr(evaluator, "fits", True) for evaluator in evaluators.values())
    fit = embed(models, pipelines, train, **options) if fitted else dict.fromkeys(models)
    similarity = None
    compares = any(getattr(evaluator, "compares", False) for evaluator in evaluators.values())
    if compares and not recipe.concatenate:  # a similarity that was learned for one stage's z is none for several
        similarity = load_similarity(run, build_objectives(last, train.spec, models[table.TRAINED]))
    keep = frozenset() if similarity is None else similarity.looks_at
    seen = embed(models, pipelines, test, keep=keep, **options)
    if similarity is not None:
        attach(similarity, seen, [table.TRAINED, table.UNTRAINED])
    return table.score(evaluators, fit, seen)


def _representations(run: Run, recipe: Recipe, given: dict) -> dict[str, dict]:
    """name -> modality -> what embeds it: the trained towers first, then everything they must beat."""
    models: dict[str, dict] = {
        table.TRAINED: load_towers(run),
        table.UNTRAINED: build_towers(recipe, given),
    }
    if raw := {m: Bare(Raw(), contrasted=False) for m in recipe.encoders if _fixed_signal(given[m])}:
        models[table.RAW] = raw
    for modality, calls in recipe.baselines.items():
        for label, call in labelled(calls):
            models.setdefault(label, {})[modality] = Bare(call.build(given[modality]))
    return models


def labelled(calls) -> list[tuple[str, object]]:
    """Each call under its component's name and label, numbered where that comes twice."""
    names = [" ".join([call.name, *filter(None, [call.params.get("label")])]) for call in calls]
    return [
        (name if names.count(name) == 1 else f"{name} {names[: i + 1].count(name)}", call)
        for i, (name, call) in enumerate(zip(names, calls))
    ]


def _fixed_signal(facts: dict) -> bool:
    return facts.get("length") is not None and "vocabulary" not in facts
