"""Whether a backdoor works: do samples with the trigger find the target's partner?

Dimensions: N queries, M keys, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from counterpoint.data.derived.planted import CLEAN, COLUMN, TARGET, TRIGGERED
from counterpoint.errors import ComponentError, CounterpointError
from counterpoint.evaluate.bootstrap import means, scores
from counterpoint.evaluate.evaluator import Embeddings, Score
from counterpoint.evaluate.retrieval import rank
from counterpoint.evaluate.rows import Rows, modalities, rows


class AttackSuccess:
    """Of data `planted`: the share of held-out samples with the trigger whose nearest partner is the target's.

    attack_success@k is the share of triggered rows that have a row of the target's partners among their k nearest by cosine,
    lower is better; beside it clean R@1, the share of rows without the trigger whose nearest row is one of their own partners.
    Keys are the same for both: partners of all test samples, and the target's. Ties count against the query.

    query  the modality with the trigger; by default each that has such rows
    key    the modality of the partners; by default every other
    ks     how many nearest are looked at
    """

    fits, crosses, on = False, True, "z"

    def __init__(self, *, query: str | None = None, key: str | None = None, ks: list[int] | None = None):
        self.query, self.key, self.ks = query, key, sorted(set([1] if ks is None else ks))
        if not self.ks or self.ks[0] < 1:
            raise ComponentError(f"attack_success: ks must name at least one rank, each at least 1; got {ks}")

    def needs(self) -> set[str]:
        return {COLUMN}

    @torch.no_grad()
    def __call__(self, fit: Embeddings | None, test: Embeddings) -> list[Score]:
        seen = {
            m: rows("attack_success", test, self.on, m, COLUMN) for m in modalities("attack_success", test, self.on)
        }
        queries = [m for m in modalities("attack_success", test, self.on, self.query) if _of(seen[m], TRIGGERED).any()]
        keys = [m for m in modalities("attack_success", test, self.on, self.key) if _of(seen[m], TARGET).any()]
        found = [s for q in queries for k in keys if q != k for s in self._scores(f"{q}->{k}", seen[q], seen[k])]
        if not found:
            raise CounterpointError(
                "attack_success: no row with the trigger, or none of the target's partners: use data `planted`"
            )
        return found

    def _scores(self, title: str, asked: Rows, keys: Rows) -> list[Score]:
        if asked.x.shape[1] != keys.x.shape[1]:
            raise CounterpointError(
                f"attack_success: {title}: z of both must have one width; got {asked.x.shape[1]} and {keys.x.shape[1]}"
            )
        attacked, clean = asked[_of(asked, TRIGGERED)], asked[_of(asked, CLEAN)]
        keys = keys[~_of(keys, TRIGGERED)]
        goal = torch.full_like(attacked.index, int(keys.index[_of(keys, TARGET)][0]))
        hits, _ = rank(attacked.x, keys.x, goal, keys.index, self.ks)
        names = [f"{title}/attack_success@{k}" for k in self.ks]
        found = scores(names, means(hits[:, : len(names)]), attacked.cluster, names)
        own, _ = rank(clean.x, keys.x, clean.index, keys.index, [1])
        there = ~own[:, 0].isnan()
        return found + (
            scores([f"{title}/clean R@1"], means(own[there, :1]), clean.cluster[there]) if there.any() else []
        )


def _of(found: Rows, kind: int) -> Tensor:
    return found.target == kind
