"""Retrieval: does a query find the rows that belong to it among all rows of a modality?

Dimensions: N queries, M keys (candidates), D width, P most relevant keys that a query has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from counterpoint.errors import ComponentError, CounterpointError
from counterpoint.evaluate.bootstrap import means, scores
from counterpoint.evaluate.evaluator import Embeddings, Score
from counterpoint.evaluate.rows import Rows, modalities, rows
from counterpoint.objectives.mechanisms.similarity import Side
from counterpoint.randomness import splitmix64


class Retrieval:
    """Recall@k, mean reciprocal rank and mean average precision of ranking keys by their similarity to a query.

    A key is relevant when it is of the same sample (`by: index`) or shares the label or group named by `by`. R@k is the
    share of queries with a relevant key among the first k; MRR the mean of 1 / rank of the first relevant key; mAP the
    mean over relevant keys of the precision at their rank, averaged over queries, given when some query has several
    relevant keys (else it is the MRR). Ties count against the encoder: a relevant key stands behind all others of equal
    similarity, so a collapsed encoder scores 0 instead of 1. Only the test set is searched. Rows whose `by` is unknown
    are neither queries nor keys; a query without any relevant key is not counted; in its own modality a query does not
    find itself.

    query, key  modalities; every ordered pair of different ones that fits when not both are named, or the only modality
    by          "index", or the name of a label or group
    ks          how many first keys recall looks at
    on          contrasted embedding `z` or representation `h`
    within      group (language): a query is ranked among the keys of its own value alone
    pool        a query is ranked among the keys of a block of this many samples, chosen by a hash of the sample, as the
                1,000 candidates of CodeSearchNet (Husain et al., 2019, section 3); samples that fill no block are left out
    cluster     group whose queries are not independent (patient): the interval resamples whole groups
    similarity  objective: rows of z as the trained objective compares them, where it has a similarity of its own (filip,
                cico, gram, symile), for the trained and the untrained encoder; cosine for all else. One that compares all
                modalities at once is for queries and keys of two modalities: only samples that have all are ranked, for
                every representation alike, and the modalities that are neither query nor key join the side it says, by
                the first row of the sample
    """

    fits = False  # only the test split is looked at

    def __init__(
        self,
        *,
        query: str | None = None,
        key: str | None = None,
        by: str = "index",
        ks: Sequence[int] = (1, 5, 10),
        on: Literal["h", "z"] = "z",
        within: str | None = None,
        pool: int | None = None,
        cluster: str | None = None,
        similarity: Literal["objective", "cosine"] = "objective",
    ):
        if not ks or min(ks) < 1:
            raise ComponentError(f"retrieval: ks must name at least one rank, each at least 1; got {list(ks)}")
        if pool is not None and pool < 2:
            raise ComponentError(f"retrieval: pool is at least 2 candidates; got {pool}")
        self.query, self.key, self.by, self.ks, self.on, self.cluster = query, key, by, sorted(set(ks)), on, cluster
        self.within, self.pool = within, pool
        self.compares = similarity == "objective" and on == "z"
        self.crosses = query != key or (query is None and by == "index")

    def needs(self) -> set[str]:
        return {name for name in (self.by, self.within, self.cluster) if name not in (None, "index")}

    def __call__(self, fit: Embeddings | None, test: Embeddings) -> list[Score]:
        found = []
        for query, key in self._directions(test):
            asked = rows("retrieval", test, self.on, query, self.by, self.cluster)
            keys = rows("retrieval", test, self.on, key, self.by, self.cluster)
            if self.compares and test.complete is not None and query != key:
                asked, keys = (r[torch.isin(r.index, test.complete)] for r in (asked, keys))
                if not len(asked) or not len(keys):
                    raise CounterpointError(
                        "retrieval: the objective compares all modalities of a sample, and no sample of the test has all; "
                        "set similarity: cosine"
                    )
            found += self._score(test, query, key, asked, keys, self._blocks(test, query, key, asked, keys))
        return found

    def _blocks(self, test: Embeddings, query: str, key: str, asked: Rows, keys: Rows) -> list[tuple[Tensor, Tensor]]:
        """Positions of the queries and of the keys that are ranked together, one pair a block."""
        of_query, of_key = asked.index * 0, keys.index * 0
        if self.within is not None:
            of_query, of_key = (
                _at(test.column(self.within, m), test.index[m], r.index) for m, r in ((query, asked), (key, keys))
            )
        blocks = [(of_query == value, of_key == value) for value in of_query.unique().tolist() if value >= 0]
        blocks = [(q, k) for q, k in blocks if k.any()]  # a group may have queries and no key
        if not blocks:
            raise CounterpointError(f"retrieval: no value of {self.within!r} has both rows of {query!r} and of {key!r}")
        if self.pool is not None:
            blocks = [
                (q & torch.isin(asked.index, chosen), k & torch.isin(keys.index, chosen))
                for q, k in blocks
                for chosen in self._pools(torch.cat([asked.index[q], keys.index[k]]).unique())
            ]
        return [(q.nonzero()[:, 0], k.nonzero()[:, 0]) for q, k in blocks]

    def _pools(self, samples: Tensor) -> list[Tensor]:
        """`samples` in the order of a hash, in blocks of `pool`; CounterpointError when they fill none."""
        shuffled = samples[torch.argsort(splitmix64(samples))]
        if len(samples) < self.pool:
            raise CounterpointError(
                f"retrieval: pool: {self.pool} candidates asked for; the test has {len(samples)} samples"
            )
        return [block for block in shuffled.split(self.pool) if len(block) == self.pool]

    def _directions(self, test: Embeddings) -> list[tuple[str, str]]:
        queries = modalities("retrieval", test, self.on, self.query)
        keys = modalities("retrieval", test, self.on, self.key)
        if len(queries) == len(keys) == 1:
            return [(queries[0], keys[0])]
        return [pair for pair in permutations(getattr(test, self.on), 2) if pair[0] in queries and pair[1] in keys]

    def _compared(self, test: Embeddings, query: str, key: str, asked: Rows, keys: Rows):
        """What is compared of queries and of keys, and how."""
        s = test.similarity
        if not self.compares or s is None or (s.tuples and query == key):
            return asked.x, keys.x, cosine
        sides = {"query": [_side(test, query, asked.place)], "key": [_side(test, key, keys.place)]}
        joined = s.joins(query, key)
        samples = (asked if joined == "query" else keys).index
        for modality in [m for m in test.z if m not in (query, key)] if joined else ():
            sides[joined].append(_side(test, modality, _first(test.index[modality], samples)))
        if joined == "query":
            return Tuples(sides["query"]), Tuples(sides["key"]), lambda q, k: s.score(k.sides[0], q.sides).T
        return Tuples(sides["query"]), Tuples(sides["key"]), lambda q, k: s.score(q.sides[0], k.sides)

    def _score(
        self, test: Embeddings, query: str, key: str, asked: Rows, keys: Rows, blocks: list[tuple[Tensor, Tensor]]
    ) -> list[Score]:
        title = query if query == key else f"{query}->{key}"
        if asked.x.shape[1] != keys.x.shape[1]:
            raise CounterpointError(
                f"retrieval: {title}: {self.on!r} of both must have one width; got {asked.x.shape[1]} and {keys.x.shape[1]}"
            )
        left, right, similar = self._compared(test, query, key, asked, keys)
        ranked = [
            rank(left[q], right[k], asked.target[q], keys.target[k], self.ks, own=query == key, similar=similar)
            for q, k in blocks
        ]
        figures, several = torch.cat([one for one, _ in ranked]), any(several for _, several in ranked)
        cluster = asked.cluster[torch.cat([q for q, _ in blocks])]
        counted = ~figures[:, 0].isnan()
        if not counted.any():
            remedy = "; name a label or group as `by`" if self.by == "index" and query == key else ""
            raise CounterpointError(
                f"retrieval: {title}: no query of {len(asked)} has a relevant key by {self.by!r}{remedy}"
            )
        part = "" if query == key else f"{title}/"
        names = [f"{part}{name}" for name in (*(f"R@{k}" for k in self.ks), "MRR", "mAP")]
        shown = len(names) if several else len(names) - 1
        return scores(names[:shown], means(figures[counted, :shown]), cluster[counted])


def _at(values: Tensor, index: Tensor, wanted: Tensor) -> Tensor:
    """The values of the samples `wanted`, of those (n,) that the samples `index` (n,) have."""
    return values[_first(index, wanted)]


def _first(index: Tensor, wanted: Tensor) -> Tensor:
    """Positions in `index` (n,) of the first row of each sample `wanted`."""
    order = torch.argsort(index, stable=True)
    return order[torch.searchsorted(index[order].contiguous(), wanted)]


def _side(test: Embeddings, modality: str, rows: Tensor) -> Side:
    return Side(test.z[modality], test.tokens.get(modality), test.masks.get(modality))[rows]


@dataclass(frozen=True)
class Tuples:
    """Rows of several modalities that belong together: that of the query or key first, then those that join it."""

    sides: list[Side]

    def __len__(self) -> int:
        return len(self.sides[0])

    def __getitem__(self, rows: Tensor) -> Tuples:
        return Tuples([side[rows] for side in self.sides])


def cosine(queries: Tensor, keys: Tensor) -> Tensor:
    """(N, M) cosine similarities."""
    return normalize(queries, dim=-1) @ normalize(keys, dim=-1).T


@torch.no_grad()
def rank(
    queries: Tensor | Tuples,
    keys: Tensor | Tuples,
    query_ids: Tensor,
    key_ids: Tensor,
    ks: Sequence[int],
    own: bool = False,
    chunk: int = 1 << 23,
    similar: Callable = cosine,
) -> tuple[Tensor, bool]:
    """float64 (N, len(ks) + 2): hits at each k, reciprocal rank and average precision, NaN where nothing is relevant.

    Keys (M, D) are relevant to queries (N, D) of the same id; with `own` the queries are the keys and none finds itself.
    Also whether some query has several relevant keys. At most `chunk` similarities, similar(queries, keys) -> (N, M), are
    held at a time.
    """
    order = torch.argsort(key_ids, stable=True)  # the keys of one id stand together
    ids = key_ids[order].contiguous()
    first = torch.searchsorted(ids, query_ids)
    count = torch.searchsorted(ids, query_ids, right=True) - first  # (N,) keys of the query's id
    place = torch.argsort(order) if own else torch.full_like(first, -1)  # where a query stands among the keys
    keys, figures = keys[order], []
    for part in torch.arange(len(queries), device=ids.device).split(max(1, chunk // len(keys))):
        similarity = similar(queries[part], keys)  # (chunk, M)
        ranks = _ranks(similarity, first[part], count[part], place[part])
        figures.append(_figures(ranks, ks))
    return torch.cat(figures), bool((count - int(own) > 1).any())


def _ranks(similarity: Tensor, first: Tensor, count: Tensor, place: Tensor) -> Tensor:
    """float64 (N, P): rank of every relevant key, farthest first; infinite where a query has fewer than P.

    No row is sorted: each irrelevant key is put among the query's few sorted relevant ones by binary search.
    """
    nth = torch.arange(max(1, int(count.max())), device=first.device)  # (P,)
    where = (first[:, None] + nth.where(nth < count[:, None], 0)).clamp(max=similarity.shape[1] - 1)
    relevant = (nth < count[:, None]) & (where != place[:, None])
    near = similarity.gather(1, where).where(relevant, torch.inf).sort(1).values  # (N, P) ascending, absent ones last
    others = similarity.scatter(1, where, -torch.inf)  # the query's own id, itself included, beats no relevant key
    beaten = torch.searchsorted(near, others, right=True)  # (N, M): how many relevant keys each irrelevant one beats
    ahead = near.new_zeros(len(near), len(nth) + 1, dtype=torch.float64)
    ahead.scatter_add_(1, beaten, torch.ones_like(beaten, dtype=torch.float64))
    ahead = ahead.flip(1).cumsum(1).flip(1)[:, 1:]  # (N, P): irrelevant keys before each relevant one
    return (ahead + relevant.sum(1, keepdim=True) - nth).where(near < torch.inf, torch.inf)


def _figures(ranks: Tensor, ks: Sequence[int]) -> Tensor:
    """(N, len(ks) + 2) of the ranks (N, P): hits, reciprocal rank, average precision."""
    best = ranks.amin(1)
    there = ranks.isfinite()
    place = torch.arange(ranks.shape[1], device=ranks.device)
    nth = there.sum(1, keepdim=True) - place  # the farthest relevant key is the last found
    precision = (nth / ranks).where(there, 0.0).sum(1) / there.sum(1)
    figures = torch.stack([*(best <= k for k in ks), 1 / best, precision], 1).double()
    return figures.masked_fill(~there.any(1, keepdim=True), torch.nan)
