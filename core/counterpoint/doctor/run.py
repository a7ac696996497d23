"""A run, while it trains or afterwards, from the files in its folder alone."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from counterpoint.doctor.chance import chances, lowest_temperatures
from counterpoint.doctor.finding import Finding, percent
from counterpoint.evaluate.table import RAW, TRAINED, UNTRAINED
from counterpoint.recipe import Recipe, load
from counterpoint.runs.run import MetricsFile, Run

JUDGED = 50  # steps before which nothing is said of the loss
SETTLED = 0.02  # relative distance from the loss of chance
ONE_POINT = -0.1  # uniformity above it: the mean squared distance of two embeddings is under 0.05
RANK = 2.0  # effective directions of h, of which one is its mean
FLAT = 1.0  # a learned temperature above it tells hardly any two rows apart
WAITING = 0.4  # share of the time without data


@dataclass
class Log:
    """metrics.csv and timings.csv: name -> (step, value) in the order of the steps."""

    series: dict[str, list[tuple[int, float]]]

    @classmethod
    def of(cls, run: Run) -> Log:
        series: dict[str, list[tuple[int, float]]] = {}
        for path in (log.path for log in run.logs() if log.path.is_file()):
            with path.open(newline="", encoding="utf-8", errors="replace") as file:
                for row in filter(_is_whole, csv.reader(file)):
                    series.setdefault(row[2], []).append((int(row[0]), float(row[3])))
        return cls(series)

    def late(self, name: str) -> list[tuple[int, float]]:
        """The second half of what there is of a name, by steps."""
        found = self.series.get(name, [])
        return [pair for pair in found if pair[0] > found[-1][0] / 2]

    def named(self, name: str) -> list[str]:
        """`temperature`, `loss/temperature`, ...: the names that end so."""
        return [known for known in self.series if known.rpartition("/")[2] == name]


def _is_whole(row: list[str]) -> bool:
    """Unlike the last line of a run that is writing it."""
    try:
        return len(row) == len(MetricsFile.FIELDS) and row[0].isdigit() and float(row[3]) is not None
    except ValueError:
        return False


def check(run: Run) -> Iterator[Finding]:
    log, facts = Log.of(run), run.facts()
    recipe = load(run.recipe).stage_recipes()[-1][1]
    yield from ended(run, facts)
    yield from at_chance(log, chances(recipe, facts.get("given", {})))
    yield from collapsed(log)
    yield from temperature(log, lowest_temperatures(recipe, facts.get("given", {})))
    yield from waiting(log, recipe)
    yield from no_better(run.scores())


def ended(run: Run, facts: Mapping) -> Iterator[Finding]:
    state = run.state()
    if state == "failed":
        yield Finding(
            "run", f"it failed: {facts.get('error', '?')}", f"mend that, then: counterpoint fit --resume {run.folder}"
        )
    if state in ("stopped", "interrupted"):
        yield Finding("run", f"it is {state}", f"go on with: counterpoint fit --resume {run.folder}", serious=False)
    if (skipped := run.folder / "skipped.txt").is_file():
        count = len(skipped.read_text(encoding="utf-8", errors="replace").splitlines())
        yield Finding(
            "data",
            f"{count} samples could not be read, and were left out",
            f"they are named in {skipped}",
            serious=False,
        )


def at_chance(log: Log, chance: Mapping[str, tuple[str, float]]) -> Iterator[Finding]:
    """Losses that have stayed where embeddings that are all alike would be."""
    for name, (told, value) in chance.items():
        late = log.late(name)
        if len(late) < 3 or late[-1][0] < JUDGED:
            continue
        if all(abs(loss - value) <= SETTLED * value for _, loss in late):
            what = f"{name} has stayed at {told} = {value:.2f}, that of guessing, from step {late[0][0]} to {late[-1][0]}: nothing is learnt"
            remedy = (
                "try optimizer.lr three times lower and higher; look at what doctor says of the recipe's views and data"
            )
            yield Finding("loss", what, remedy)


def collapsed(log: Log) -> Iterator[Finding]:
    for name, values in log.series.items():
        kind, _, modality = name.partition("/")
        step, value = values[-1]
        if kind == "uniformity" and value > ONE_POINT:
            what = f"the embeddings of {modality!r} are nearly one point at step {step} (uniformity {value:.3f}; of one point: 0)"
            yield Finding("collapse", what, _apart())
        if kind == "effective_rank" and value < RANK:
            what = f"h of {modality!r} has {value:.1f} effective directions at step {step}"
            yield Finding("collapse", what, _apart())


def _apart() -> str:
    return (
        "lower optimizer.lr, enlarge loader.batch, or take an objective with a term against it (koleo, vicreg, barlow_twins); "
        "without negatives (byol, simsiam) it needs its predictor and momentum"
    )


def temperature(log: Log, lowest: Mapping[str, float]) -> Iterator[Finding]:
    for name in log.named("temperature"):
        late, least = log.late(name), lowest.get(name)
        if least is not None and all(value <= least * 1.001 for _, value in late[-3:]):
            what = f"{name} has come to its bound {least:g} and stays there up to step {late[-1][0]}"
            remedy = (
                "fix it (learnable: false, temperature: 0.05), or look for pairs that are copies: they pull it down"
            )
            yield Finding("temperature", what, remedy, serious=False)
        elif late[-1][1] > FLAT:
            what = f"{name} has risen to {late[-1][1]:.2g}: it tells hardly any two samples apart"
            yield Finding(
                "temperature",
                what,
                "fix it (learnable: false); look for pairs that do not belong together",
                serious=False,
            )


def waiting(log: Log, recipe: Recipe) -> Iterator[Finding]:
    late = log.late("data_wait")
    share = sum(value for _, value in late) / max(1, len(late))
    if len(late) >= 2 and share > WAITING:
        workers = recipe.loader.workers
        more = 4 if workers in ("auto", 0) else 2 * workers
        remedy = (
            f"read in more processes: loader.workers={more} (now {workers}); or store the data smaller, and decoded"
        )
        yield Finding("data", f"the device waits for data {percent(share)} of the time", remedy, serious=False)


def no_better(scores: list[dict]) -> Iterator[Finding]:
    """Scores in which training has changed nothing, or for the worse."""
    table: dict[tuple, dict[str, dict]] = {}
    for record in scores:
        table.setdefault((record["evaluator"], record["metric"]), {})[record["representation"]] = record
    for (evaluator, metric), found in table.items():
        for other in (UNTRAINED, RAW):
            if TRAINED in found and other in found and _behind(found[TRAINED], found[other]):
                ours, theirs = found[TRAINED]["value"], found[other]["value"]
                what = f"{evaluator}: {metric} is {ours:.3f} with the trained encoder, {theirs:.3f} with the {other}"
                yield Finding(
                    "scores", what, "train longer, or look at the views: what they change is what is forgotten"
                )
                break


def _behind(ours: Mapping, theirs: Mapping) -> bool:
    """Not above it, of a score of queries of which more is better; the success of an attack, say, is not."""
    told = math.isfinite(ours["low"]) and ours.get("higher_is_better", True)
    return told and ours["value"] <= theirs["value"]
