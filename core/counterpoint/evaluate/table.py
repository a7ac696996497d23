"""Scores beside their baselines: every evaluator run on every representation, and the table a person reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isnan

from counterpoint.errors import CounterpointError
from counterpoint.evaluate.evaluator import Embeddings, Score

TRAINED, UNTRAINED, RAW = "trained encoder", "untrained encoder", "raw input"


def score(
    evaluators: Mapping[str, object], fit: Mapping[str, Embeddings | None], test: Mapping[str, Embeddings]
) -> list[dict]:
    """One record a score: evaluator, metric, representation, value, interval, number of queries."""
    records = []
    for label, evaluator in evaluators.items():
        for representation in test:
            if _applies(evaluator, test[representation]):
                scores: Sequence[Score] = evaluator(fit[representation], test[representation])
                for s in scores:
                    facts = asdict(s)
                    records.append(
                        {"evaluator": label, "metric": facts.pop("name"), "representation": representation, **facts}
                    )
    return records


def _applies(evaluator, embeddings: Embeddings) -> bool:
    """Whether a representation has what the evaluator compares: z, or several modalities, or just h."""
    there = getattr(embeddings, getattr(evaluator, "on", "h"))
    named = {getattr(evaluator, name, None) for name in ("modality", "query", "key")} - {None}
    return bool(there) and named <= set(there) and (not getattr(evaluator, "crosses", False) or len(there) > 1)


def render(records: list[dict]) -> str:
    """The records as aligned text: one block an evaluator's metric, the trained encoder first."""
    if not records:
        return ""
    rows, last = [], None
    for record in sorted(records, key=_block(records)):
        block = f"{record['evaluator']}: {record['metric']}"
        shown = "" if isnan(record["low"]) else f"[{record['low']:.3f}, {record['high']:.3f}]"
        rows.append((block if block != last else "", record["representation"], f"{record['value']:.3f}", shown))
        last = block
    head = ("score", "representation", "value", "95 % interval")
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in [head, *rows]]
    return "\n".join(lines)


def _block(records: list[dict]):
    order: dict = {}
    for record in records:
        order.setdefault((record["evaluator"], record["metric"]), len(order))
    return lambda record: order[record["evaluator"], record["metric"]]


def best(records: list[dict], metric: str) -> float:
    """The trained encoder's value of a metric, named `metric` or `evaluator/metric`."""
    for record in records:
        if record["representation"] == TRAINED and metric in (
            record["metric"],
            f"{record['evaluator']}/{record['metric']}",
        ):
            return record["value"]
    names = sorted({record["metric"] for record in records})
    raise CounterpointError(f"no score named {metric!r}; there are: {', '.join(names) or 'none'}")
