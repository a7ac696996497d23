"""The geometry of embeddings: alignment and uniformity on the hypersphere, effective rank.

Dimensions: n rows, N positive pairs, D and H widths.
"""

from itertools import combinations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from counterpoint.errors import ComponentError, CounterpointError
from counterpoint.evaluate.evaluator import Embeddings, Score
from counterpoint.evaluate.rows import check_finite, identities, modalities, prefix
from counterpoint.randomness import splitmix64


class Geometry:
    """Alignment and uniformity of `z` (Wang and Isola, ICML 2020, section 4.1), effective rank of `h`; no intervals.

    Alignment is taken over every positive pair: rows of one sample (or group, see `by`) in two modalities, or different
    rows in one; it is left out where there is none. Lower alignment and uniformity are better: 0 and -2t are their
    limits. Effective rank lies between 1 (collapse to a line) and the width of `h`.

    modality  which to read; all when not named
    by        "index", or the group whose rows should be near each other
    t         scale of uniformity
    rows      uniformity looks at this many rows of a modality at most: a fixed pseudo-random choice of them
    """

    on = "z"
    crosses = False
    fits = False

    def __init__(self, *, modality: str | None = None, by: str = "index", t: float = 2.0, rows: int = 10_000):
        if not t > 0:
            raise ComponentError(f"geometry: t must be above 0; got {t}")
        if rows < 2:
            raise ComponentError(f"geometry: rows must be at least 2; got {rows}")
        self.modality, self.by, self.t, self.rows = modality, by, t, rows

    def needs(self) -> set[str]:
        return set() if self.by == "index" else {self.by}

    def __call__(self, fit: Embeddings | None, test: Embeddings) -> list[Score]:
        chosen = modalities("geometry", test, "h", self.modality)
        for on, table in (("h", test.h), ("z", test.z)):
            for modality in chosen:
                if modality in table:
                    check_finite("geometry", on, modality, table[modality])
        contrasted = [modality for modality in chosen if modality in test.z]
        return [
            *self._alignments(test, chosen, contrasted),
            *(self._uniformity(test, m, prefix(m, chosen)) for m in contrasted if len(test.z[m]) > 1),
            *(self._rank(test.h[m], prefix(m, chosen)) for m in chosen),
        ]

    def _alignments(self, test: Embeddings, chosen: list[str], contrasted: list[str]) -> list[Score]:
        found = []
        for a, b in [*((m, m) for m in contrasted), *combinations(contrasted, 2)]:
            ids = [test.index[m] if self.by == "index" else identities(test, self.by, m) for m in (a, b)]
            value, pairs = _alignment_by(test.z[a], test.z[b], *ids, own=a == b)
            if pairs:
                part = prefix(a, chosen) if a == b else f"{a}~{b}/"
                found.append(_score(f"{part}alignment", value, pairs))
        return found

    def _rank(self, h: Tensor, part: str) -> Score:
        return _score(f"{part}effective_rank", effective_rank(h), len(h), higher_is_better=True)

    def _uniformity(self, test: Embeddings, modality: str, part: str) -> Score:
        z = test.z[modality]
        if len(z) > self.rows:
            z = z[torch.argsort(splitmix64(test.index[modality]), stable=True)[: self.rows]]
        return _score(f"{part}uniformity", uniformity(z, self.t), len(z))


def _score(name: str, value: Tensor, n: int, higher_is_better: bool = False) -> Score:
    return Score(name, float(value), float("nan"), float("nan"), n, higher_is_better)


def alignment(za: Tensor, zb: Tensor, alpha: float = 2.0) -> Tensor:
    """Mean over positive pairs of |a - b|^alpha of the normalised rows of `za`, `zb` (N, D).

    Wang and Isola, ICML 2020, section 4.1, L_align. Raises CounterpointError when there is no pair or shapes differ.
    """
    if za.shape != zb.shape or za.ndim != 2 or len(za) == 0:
        raise CounterpointError(
            f"alignment: expected two tensors (N, D) of one shape, N at least 1; got {tuple(za.shape)}, {tuple(zb.shape)}"
        )
    return (normalize(za.double(), dim=1) - normalize(zb.double(), dim=1)).norm(dim=1).pow(alpha).mean()


def _alignment_by(za: Tensor, zb: Tensor, ida: Tensor, idb: Tensor, own: bool) -> tuple[Tensor, int]:
    """Alignment (alpha = 2) over every pair of rows with equal ids, and their number, without forming the pairs.

    Over the rows of one id, the sum of |a - b|^2 = |a|^2 + |b|^2 - 2ab needs the sums of a, b and their squares alone.
    With `own` the two are the same rows, none paired with itself.
    """
    ids, member = torch.cat([ida, idb]).unique(return_inverse=True)
    sums = []
    for z, which in ((za, member[: len(za)]), (zb, member[len(za) :])):
        z = normalize(z.double(), dim=1)
        columns = torch.cat([z, z.square().sum(1, keepdim=True), torch.ones_like(z[:, :1])], 1)  # (n, D + 2)
        sums.append(columns.new_zeros(len(ids), columns.shape[1]).index_add_(0, which, columns))
    (a, aa, na), (b, bb, nb) = (torch.split(s, [za.shape[1], 1, 1], dim=1) for s in sums)
    pairs = (na * nb).sum() - (len(za) if own else 0)  # a row is at distance 0 of itself, so only the count changes
    total = (aa * nb + bb * na).sum() - 2 * (a * b).sum()
    return total.clamp(min=0) / pairs, int(pairs) // (2 if own else 1)


def uniformity(z: Tensor, t: float = 2.0, chunk: int = 1 << 22) -> Tensor:
    """Log of the mean over pairs of different rows of exp(-t |x - y|^2), rows of `z` (n, D) normalised.

    Wang and Isola, ICML 2020, section 4.1, L_uniform; 0 for a constant. At most `chunk` distances are held at a time.
    Raises CounterpointError with fewer than two rows.
    """
    if z.ndim != 2 or len(z) < 2:
        raise CounterpointError(f"uniformity: expected (n, D), n at least 2; got {tuple(z.shape)}")
    z = normalize(z.double(), dim=1)
    square, n, parts = z.square().sum(1), len(z), []
    for part in torch.arange(n, device=z.device).split(max(1, chunk // n)):
        distance = (square[part, None] + square - 2 * z[part] @ z.T).clamp_(min=0)  # (chunk, n)
        exponent = (-t * distance).scatter_(1, part[:, None], -torch.inf)  # a row is no pair with itself
        parts.append(exponent.flatten().logsumexp(0))
    return torch.stack(parts).logsumexp(0) - torch.tensor(n * (n - 1.0), dtype=z.dtype, device=z.device).log()


def effective_rank(h: Tensor, chunk: int = 1 << 22) -> Tensor:
    """exp of the entropy of the singular values of `h` (n, H), scaled to sum to 1; 0 when all are 0.

    Roy and Vetterli, EUSIPCO 2007, definition 1; rows are not centred. RankMe (Garrido et al., ICML 2023, equation 1) is
    this with 1e-7 added to every scaled value. The singular values are the roots of the eigenvalues of the smaller Gram
    matrix in float64, so those under 1e-8 of the largest count as noise. Raises CounterpointError without any row.
    """
    if h.ndim != 2 or h.numel() == 0:
        raise CounterpointError(
            f"effective_rank: expected (n, H) with at least one row and column; got {tuple(h.shape)}"
        )
    h = h.T if h.shape[0] < h.shape[1] else h
    gram = h.new_zeros(h.shape[1], h.shape[1], dtype=torch.float64)
    for part in h.split(max(1, chunk // h.shape[1])):
        gram += part.double().T @ part.double()
    values = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    values = values.where(values > 1e-7 * values.max(), 0.0)
    return torch.special.entr(values / values.sum()).sum().exp() if values.sum() > 0 else values.sum()
