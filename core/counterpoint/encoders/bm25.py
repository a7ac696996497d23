"""Okapi BM25 written as two encoders: the baseline that any trained text retrieval has to beat.

Dimensions: n rows, T terms.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")  # parse|HTTP|Header
_WORD = re.compile(r"[^\W\d_]+|\d+")
_TERMS: dict[str, int] = {}  # term -> column, the same for queries and documents


def terms(text: str) -> list[str]:
    """Lower-case words; `parseHTTPHeader_v2` is parse, http, header, v, 2."""
    return [word.lower() for word in _WORD.findall(_HUMP.sub(" ", text))]


class BM25(nn.Module):
    """BM25 of texts: the cosine of a query's and a document's h (n, T + 1) orders documents as their score does.

    score(q, d) = sum over the terms t of q of idf(t) f (k1 + 1) / (f + k1 (1 - b + b |d| / mean |d|)), f = occurrences of t
    in d, idf(t) = log(1 + (N - n_t + 1/2) / (n_t + 1/2)) counted over the training split's documents. A last column gives all
    documents one norm, so that cosine and score agree. Sees the text itself, whole. For `baselines`: `role: query` in one
    modality and `role: document` in the other. Source: Robertson and Zaragoza, "The probabilistic relevance framework", 2009,
    section 3.4 (k1 and b: its recommended 1.2 to 2 and 0.5 to 0.8).
    """

    reads_text = True
    width = 1 << 16
    NORM = 2e3  # above the norm of any document's scores

    def __init__(self, *, role: Literal["query", "document"], k1: float = 1.2, b: float = 0.75):
        super().__init__()
        self.role, self.k1, self.b = role, k1, b
        self.documents, self.words, self.holding = 0, 0, Counter()

    def observe(self, texts: Sequence[str]) -> None:
        """Count the terms of some training documents."""
        for text in texts if self.role == "document" else ():
            found = terms(text)
            self.documents, self.words = self.documents + 1, self.words + len(found)
            self.holding.update(set(found))

    def forward(self, texts: Sequence[str]) -> Tensor:
        h = torch.zeros(len(texts), self.width)
        for row, text in zip(h, texts):
            weights = self._weights(terms(text))
            columns = torch.tensor([_column(term, self.width - 1) for term in weights], dtype=torch.int64)
            row.index_add_(0, columns, torch.tensor(list(weights.values()), dtype=torch.float32))
            if self.role == "document":
                row[-1] = max(self.NORM**2 - float(row.double().square().sum()), 0.0) ** 0.5
        return h

    def _weights(self, found: list[str]) -> dict[str, float]:
        count = Counter(found)
        if self.role == "query":
            return {term: float(times) for term, times in count.items()}
        short = 1 - self.b + self.b * len(found) / (self.words / max(self.documents, 1) or 1.0)
        return {t: self._idf(t) * f * (self.k1 + 1) / (f + self.k1 * short) for t, f in count.items()}

    def _idf(self, term: str) -> float:
        held = self.holding[term]
        return math.log1p((self.documents - held + 0.5) / (held + 0.5))


def _column(term: str, columns: int) -> int:
    return _TERMS.setdefault(term, len(_TERMS)) % columns
