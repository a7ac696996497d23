"""A graph of the user's own: a table of its nodes and a table of its edges. Dimensions: N nodes, F features, E edges."""

from __future__ import annotations

import math

import numpy as np

from counterpoint.data.files import encode_labels
from counterpoint.data.guard import name_of
from counterpoint.data.split import select
from counterpoint.data.table import Table, raise_problems, read_table
from counterpoint.errors import DataError, suggest
from counterpoint_graphs.data import Nodes


class FromCSV(Nodes):
    """The graph in two tables (CSV, TSV or Parquet): a row a node, and a row an edge.

    edges     with the columns `source` and `target`; direction, repetition and edges to oneself do not count
    nodes     with a column `id`; other columns are features, numbers all of them, but for `labels` and `split`; they are taken
              as they are, so bring columns of different units to one scale before
    labels    columns: words and integers are classes, other numbers are values, empty = unknown
    holdout   fraction of the nodes whose labels are held out, by a hash of the id, where there is no column `split`

    Held-out nodes stay in the graph of every split, with their features and edges and without their labels.
    Raises DataError with every problem of a table, each with its line.
    """

    def __init__(
        self, *, edges: str, nodes: str, labels: list[str] | None = None, holdout: float = 0.5, split: str = "train"
    ):
        table, labels = read_table(nodes), labels or []
        _check_columns(table, ["id", *labels])
        ids = table.columns["id"]
        chosen, splits = select(split, table.columns.get("split"), ids, holdout, name_of(nodes))
        found = {name: encode_labels(table.columns[name]) for name in labels}
        super().__init__(
            _features(table, {"id", "split", *labels}),
            _edges(read_table(edges), _places(table)),
            chosen,
            {name: values for name, (values, _) in found.items()},
            {name: None if names is None else len(names) for name, (_, names) in found.items()},
            splits,
        )


def _check_columns(table: Table, wanted: list[str]) -> None:
    missing = [name for name in wanted if name not in table.columns]
    if missing:
        raise DataError(f"{name_of(table.path)}: there is no column {missing[0]!r}{suggest(missing[0], table.columns)}")


def _places(table: Table) -> dict[str, int]:
    """id -> number of the node; DataError for an id that is empty or comes twice."""
    places: dict[str, int] = {}
    problems = [
        (line, f"id {node!r} is on an earlier line, too" if node else "id is empty")
        for number, (node, line) in enumerate(zip(table.columns["id"], table.lines))
        if not node or places.setdefault(node, number) != number
    ]
    raise_problems(table.path, problems)
    return places


def _features(table: Table, others: set[str]) -> np.ndarray:
    """float32 (N, F): every column that is no id, split or label."""
    names = [name for name in table.columns if name not in others]
    x, problems = np.zeros((len(table), len(names)), np.float32), []
    for column, name in enumerate(names):
        for row, cell in enumerate(table.columns[name]):
            try:
                x[row, column] = value = float(cell)
            except ValueError:
                value = math.nan
            if not math.isfinite(value):
                problems.append((table.lines[row], f"{name}: a feature is a number; got {cell!r}"))
    raise_problems(table.path, problems)
    return x


def _edges(table: Table, places: dict[str, int]) -> np.ndarray:
    """int64 (2, E) of the numbers of the nodes."""
    _check_columns(table, ["source", "target"])
    ends = [table.columns["source"], table.columns["target"]]
    unknown = [
        (line, f"there is no node {node!r}")
        for line, *pair in zip(table.lines, *ends)
        for node in pair
        if node not in places
    ]
    raise_problems(table.path, unknown)
    return np.array([[places[node] for node in column] for column in ends], dtype=np.int64)
