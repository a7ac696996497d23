"""Model soups: the average of the weights of several runs of one recipe, as a run (Wortsman et al., ICML 2022).

1. Every run is scored by the recipe's evaluators on samples that are not the test split.
2. uniform: the mean of all. greedy (algorithm 1): from the best run down, each stays in the mean unless the score falls.
3. Batch statistics of an average are computed anew, over views of the training split.

What is judged on is a split of the data named validation, valid, val or dev, or else a quarter of the training split,
whole identities of an evaluator's `cluster` together, the rest serving as the fit set. The encoders saw those samples in
training, all of them alike: the scores compare the runs, and are too good to be what new samples would give. The test
split takes no part in any choice, so that its score at the end stays one of unseen samples.

Averages work for runs that began at the same weights, such as those that fine-tune one encoder; those of unlike starts
lie in different valleys, and the scores beside them show it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from counterpoint.data.split import hold_out
from counterpoint.errors import CounterpointError, RunError, suggest
from counterpoint.evaluate import table
from counterpoint.evaluate.embed import embed
from counterpoint.evaluate.evaluator import Embeddings
from counterpoint.fit.assembly import build_dataset, build_pipeline, given_by
from counterpoint.fit.batch_statistics import recomputed
from counterpoint.fit.length import workers_of
from counterpoint.fit.mergeable import fitting, kept_files
from counterpoint.fit.scoring import labelled
from counterpoint.modules import NamedModules
from counterpoint.recipe import Recipe
from counterpoint.runs.run import ROOT, Run, now, versions
from counterpoint.towers.loading import load_towers
from counterpoint.towers.storing import read_tensors, save_towers, stored_checksum

VALIDATION = ("validation", "valid", "val", "dev")
HELD_OUT = 0.25  # of the identities of the training split, where the data have no such split
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Soup:
    """Some of the runs, by number, and the score of their mean."""

    title: str
    members: tuple[int, ...]
    value: float = float("nan")


@dataclass(frozen=True)
class Merged:
    """The run that was written, what it was chosen by and judged on, and the score of every run and soup."""

    run: Run
    by: str | None
    judged_on: str
    tried: list[Soup]
    kept: Soup


def merge(
    runs: Sequence[Run], *, soup: str = "greedy", by: str | None = None, name: str | None = None, root: Path = ROOT
) -> Merged:
    """Average the encoders and heads of `runs` into a new run folder, by the recipe of the first.

    soup  greedy or uniform: which average is kept. by: the score that judges, `evaluator/metric` or its metric alone; by
    default the first of the recipe's first evaluator. RunError for runs that do not fit each other.
    """
    recipe = fitting(runs)
    weights = [read_tensors(run.weights) for run in runs]
    judge = _Judge(recipe, load_towers(runs[0]), weights, by) if recipe.evaluate else None
    if judge is None and soup == "greedy":
        raise RunError(f"{runs[0].recipe}: there is nothing under `evaluate` to choose by; take the uniform soup")
    everything = tuple(range(len(runs)))
    if judge is None:
        tried = [kept := Soup("uniform", everything)]
        towers = _filled(load_towers(runs[0]), weights, everything, lambda towers: recomputed_over(recipe, towers))
    else:
        tried = [Soup(str(run.folder), (k,), judge((k,))) for k, run in enumerate(runs)]
        tried += [Soup("uniform", everything, judge(everything)), greedy(tried, judge, judge.sign)]
        kept = tried[-1] if soup == "greedy" else tried[-2]
        towers = judge.filled(kept.members)
    written = _write(runs, recipe, towers, name, root)
    merged = Merged(written, judge and judge.by, judge.judged_on if judge else "nothing", tried, kept)
    _note(merged, runs)
    return merged


def greedy(single: Sequence[Soup], score: Callable[[tuple[int, ...]], float], sign: float = 1.0) -> Soup:
    """The greedy soup of runs scored alone: `sign` is -1 where a lower score is better; an equal score lets a run in."""
    ranked = sorted(single, key=lambda one: -sign * one.value)  # stable: of equal runs, the first named
    members, value = ranked[0].members, ranked[0].value
    for one in ranked[1:]:
        tried = score(members + one.members)
        if sign * tried >= sign * value:
            members, value = members + one.members, tried
    return Soup("greedy", members, value)


def average(weights: Sequence[Tensors]) -> dict[str, Tensor]:
    """The mean of every floating-point tensor, in its precision; of any other, the first."""
    return {
        name: (sum(one[name].double() for one in weights) / len(weights)).to(first.dtype)
        if first.is_floating_point()
        else first
        for name, first in weights[0].items()
    }


class _Judge:
    """Scores the mean of some runs on what is not the test split."""

    def __init__(self, recipe: Recipe, towers: dict[str, nn.Module], weights: Sequence[Tensors], by: str | None):
        self.recipe, self.towers, self.weights, self.by = recipe, towers, weights, by
        self.evaluators = {label: call.build() for label, call in labelled(recipe.evaluate)}
        self.train = build_dataset(recipe)
        named = [split for split in VALIDATION if split in self.train.spec.splits]
        self.validation = build_dataset(recipe, split=named[0]) if named else None
        self.held = None if named else torch.from_numpy(_held_out(self.train, self.evaluators.values()))
        self.judged_on = f"split {named[0]!r}" if named else f"{int(self.held.sum())} of the training samples"
        self.pipelines, self.sign, self._known = pipelines_of(recipe, self.train), 1.0, {}

    def __call__(self, members: tuple[int, ...]) -> float:
        key = tuple(sorted(members))
        if key not in self._known:
            self._known[key] = self._chosen(self._records(self.filled(key)))
        return self._known[key]

    def filled(self, members: tuple[int, ...]) -> dict[str, nn.Module]:
        """The towers with the mean of these runs' weights."""
        again = lambda towers: recomputed(towers, self.pipelines, self.train, self.recipe)  # noqa: E731
        return _filled(self.towers, self.weights, tuple(sorted(members)), again)

    def _records(self, towers: dict[str, nn.Module]) -> list[dict]:
        options = {
            "device": "cuda" if torch.cuda.is_available() else "cpu",
            "workers": workers_of(self.recipe, self.train),
            "skip": 0.1 if self.recipe.loader.on_bad == "skip" else 0.0,
        }
        see = lambda dataset: embed({table.TRAINED: towers}, self.pipelines, dataset, **options)[table.TRAINED]  # noqa: E731
        seen = see(self.train)
        fit, judged = (seen, see(self.validation)) if self.held is None else _cut(seen, self.held)
        return table.score(self.evaluators, {table.TRAINED: fit}, {table.TRAINED: judged})

    def _chosen(self, records: list[dict]) -> float:
        names = {f"{r['evaluator']}/{r['metric']}": r for r in records}
        found = [n for n, r in names.items() if self.by in (None, n, r["metric"])]
        if not found or (self.by is not None and self.by not in names and len(found) > 1):
            which = "is not a score" if not found else f"names {len(found)} scores"
            raise CounterpointError(f"merge: {self.by!r} {which}{suggest(str(self.by), names)}")
        self.by = self.by if self.by in names else found[0]
        self.sign = 1.0 if names[self.by]["higher_is_better"] else -1.0
        return names[self.by]["value"]


def _filled(towers, weights: Sequence[Tensors], members: tuple[int, ...], again) -> dict[str, nn.Module]:
    NamedModules(towers).load_state_dict(average([weights[k] for k in members]))
    if len(members) > 1:
        again(towers)
    return towers


def recomputed_over(recipe: Recipe, towers: Mapping[str, nn.Module]) -> None:
    train = build_dataset(recipe)
    recomputed(towers, pipelines_of(recipe, train), train, recipe)


def pipelines_of(recipe: Recipe, dataset) -> dict:
    last, given = recipe.stage_recipes()[-1][1], given_by(dataset.spec)
    return {modality: build_pipeline(last, modality, given[modality]) for modality in recipe.encoders}


def _held_out(dataset, evaluators) -> np.ndarray:
    """bool (N,): the samples of the training split to judge on."""
    clusters = [e.cluster for e in evaluators if getattr(e, "cluster", None)]
    column = {**dataset.labels, **dataset.groups}[clusters[0]] if clusters else np.full(len(dataset), -1)
    held = hold_out([f"sample {i}" if who == -1 else str(who) for i, who in enumerate(column.tolist())], HELD_OUT)
    if not held.any():
        what = f"one {clusters[0]!r}" if clusters else "one sample"
        raise CounterpointError(f"merge: the training split has {what}; nothing of it can be held out to judge on")
    return held


def _cut(seen: Embeddings, held: Tensor) -> tuple[Embeddings, Embeddings]:
    parts = []
    for chosen in (~held, held):
        rows = {modality: chosen[index] for modality, index in seen.index.items()}
        pick = lambda table, rows=rows: {m: x[rows[m]] for m, x in table.items()}  # noqa: E731
        parts.append(Embeddings(pick(seen.h), pick(seen.index), pick(seen.z), seen.groups, seen.labels))
    return parts[0], parts[1]


def _write(runs: Sequence[Run], recipe: Recipe, towers, name: str | None, root: Path) -> Run:
    first = runs[0]
    run = Run.create(name or re.sub(r"-\d+$", "", first.name) + "-soup", root)
    facts, started = first.facts(), now()
    run.write("recipe.yaml", recipe.as_yaml())
    for file, text in kept_files(first).items():
        run.write(file, str(text))
    save_towers(towers, run.weights)
    run.note(
        name=run.name, created=started, finished=now(), state="trained", seed=recipe.seed, recipe=facts.get("recipe"),
        versions=versions(call.component.provider.distribution for call in recipe.calls()), given=facts.get("given", {}),
        shapes=facts.get("shapes", {}), features=facts.get("features", []),
    )  # fmt: skip
    return run


def _note(merged: Merged, runs: Sequence[Run]) -> None:
    folders = [str(run.folder) for run in runs]
    merged.run.note(
        merged={
            "runs": {str(run.folder): stored_checksum(run.weights) for run in runs},
            "by": merged.by,
            "judged_on": merged.judged_on,
            "scores": {soup.title: soup.value for soup in merged.tried},
            "kept": merged.kept.title,
            "members": [folders[k] for k in merged.kept.members],
        }
    )
