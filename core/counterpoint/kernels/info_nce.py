"""InfoNCE for hard and grouped positives, from `softmax_stats`.

1. The positive is left out of the log-sum-exp, so that a well-separated pair keeps its last digits.
2. A hard pair costs softplus(lse_without_positive - pos), which equals -log softmax.
3. A group's positives are added apart: lse over negatives alone, lse and mean over positives alone.

van den Oord, Li and Vinyals, 2018, eq. 4; grouped positives: Khosla et al., 2020, eq. 2.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

from counterpoint.kernels.autocast import no_autocast
from counterpoint.kernels.few import FewPairs
from counterpoint.kernels.identities import Rule, counts, out_of
from counterpoint.kernels.pairs import KeptPairs
from counterpoint.kernels.reference import log_sum_exp
from counterpoint.kernels.softmax import Stats, are_few, precise, scaled, softmax_stats

Denominator = Literal["all", "negatives"]
SHARES = {"forward": 1.0, "both": 0.5}  # of forward, by the name of a direction


class Grouped:
    """Positives of an anchor: the mean over the keys of its group. Row ids (N,) and key ids (M,), int64."""

    def __init__(self, rows: Tensor, keys: Tensor):
        self.rule: Rule = (rows, keys)

    @property
    def T(self) -> Grouped:
        return Grouped(self.rule[1], self.rule[0])


def contrast(negatives: Tensor, positive: Tensor, denominator: Denominator = "all") -> Tensor:
    """-log(e^pos / (e^pos + e^negatives)), or without the positive below; an anchor without negatives gives 0.

    negatives (N,): log-sum-exp of the negative logits, -inf for none. positive (N,): a logit.
    """
    if denominator == "all":
        return softplus(negatives - positive, threshold=40)
    return torch.where(negatives == -torch.inf, torch.zeros_like(positive), negatives - positive)


def info_nce(
    queries: Tensor,
    keys: Tensor,
    temperature: float | Tensor,
    *,
    positives: Tensor | Grouped | None = None,
    exclude: Rule | None = None,
    extra: tuple[Tensor, ...] = (),
    denominator: Denominator = "all",
    weight: Tensor | None = None,
    direction: float | str = "forward",
    smoothing: float = 0.0,
    reduction: Literal["mean", "none"] = "mean",
) -> Tensor:
    """The InfoNCE loss of N queries (N, D) and M keys (M, D), with memory linear in N + M.

    positives    None: key i; int64 (N,): that key; Grouped: the mean over the group's keys
    exclude      (row ids (N,), key ids (M,)), equal = no negative. Must cover the positive, which is added back once.
                 With Grouped it takes rows (an anchor's own) out of its positives; the group is never a negative
    extra        finished logits (N,) or (N, m) that widen the row denominator (a queue's log-sum-exp)
    denominator  all: with the positive; negatives: without it (decoupled)
    weight       (N,) on the positive logit in the numerator (DCLW, Yeh et al., 2022)
    direction    forward: queries find keys; both: the mean of the two directions; a number: the share of forward
    smoothing    label smoothing: this share of the target is spread evenly over the positive and the negatives
    reduction    mean over anchors (each direction over its own), those without a positive included with 0; none: (N,)

    Raises ValueError for arguments that do not go together.
    """
    alpha = share_of_forward(direction)
    queries, keys, temperature = precise(queries, keys, temperature)
    _check(queries, keys, positives, extra, alpha, smoothing, denominator, reduction)
    simple = positives is None and not extra and weight is None and not smoothing and denominator == "all"
    if simple and reduction == "mean" and are_few(queries, temperature):
        return _few(queries, keys, temperature, exclude, alpha)
    if isinstance(positives, Grouped):
        terms = _grouped(queries, keys, temperature, positives, exclude, extra, denominator, weight, alpha)
    else:
        terms = _hard(queries, keys, temperature, positives, exclude, extra, denominator, weight, alpha, smoothing)
    if reduction == "none":
        return _mix(terms, alpha)
    return _mix([None if t is None else t.sum() / max(len(t), 1) for t in terms], alpha)


def _few(queries: Tensor, keys: Tensor, temperature: float | Tensor, exclude: Rule | None, alpha: float) -> Tensor:
    out = None if exclude is None else out_of(_covering(exclude, None), None)
    with no_autocast("cpu"):  # `queries.device.type` costs microseconds, and they count here
        return FewPairs.apply(queries, keys, 1.0 / temperature, out, alpha)


def share_of_forward(direction: float | str) -> float:
    """forward: 1, both: 1/2, or the number itself; ValueError for anything else."""
    alpha = SHARES.get(direction, direction)
    if isinstance(alpha, str) or not 0 <= alpha <= 1:
        raise ValueError(f"info_nce: direction is 'forward', 'both' or a number in [0, 1]; got {direction!r}")
    return float(alpha)


def _mix(terms, alpha: float) -> Tensor:
    forward, backward = terms
    if backward is None:
        return forward
    return backward if forward is None else alpha * forward + (1 - alpha) * backward


def _check(queries, keys, positives, extra, alpha, smoothing, denominator, reduction) -> None:
    n, m, grouped = queries.shape[0], keys.shape[0], isinstance(positives, Grouped)
    if positives is None and n != m:
        raise ValueError(f"info_nce: key i is the positive of query i, but there are {n} queries and {m} keys")
    if isinstance(positives, Tensor) and alpha < 1:
        raise ValueError("info_nce: positives given as indices have one direction; pass direction='forward'")
    if smoothing and (grouped or extra or denominator != "all"):
        raise ValueError("info_nce: smoothing goes with hard positives, denominator='all' and no extra")
    if reduction == "none" and grouped and 0 < alpha < 1:
        raise ValueError("info_nce: reduction='none' of grouped positives has one direction a call")


def _hard(queries, keys, temperature, positives, exclude, extra, denominator, weight, alpha, smoothing):
    scale = 1.0 / temperature
    if positives is None and exclude is None and not smoothing and are_few(queries, scale):
        with no_autocast(queries.device.type):
            rows, columns, pos = KeptPairs.apply(queries, keys, torch.as_tensor(scale, dtype=queries.dtype), alpha < 1)
        stats = Stats(rows, None, columns)
    else:
        chosen = keys if positives is None else keys[positives]
        pos = scale * (queries * chosen).sum(-1)
        exclude = _own(queries, keys, positives) if exclude is None else _covering(exclude, positives)
        stats = softmax_stats(queries, keys, scale, exclude=exclude, mean=smoothing > 0, columns=alpha < 1)
    forward = _decoupled(_widened(stats.rows, extra), pos, denominator, weight)
    if smoothing:
        forward = forward + smoothing * _spread(pos, stats.mean, exclude, len(keys))
    if alpha == 1:
        return forward, None
    backward = _decoupled(stats.columns, pos, denominator, weight)
    if smoothing:
        back = (exclude[1], exclude[0])
        mean = softmax_stats(keys, scaled(queries, scale), 1.0, exclude=back, mean=True).mean
        backward = backward + smoothing * _spread(pos, mean, back, len(queries))
    return forward if alpha > 0 else None, backward


def _own(queries: Tensor, keys: Tensor, positives: Tensor | None) -> Rule:
    names = torch.arange(len(keys), device=keys.device)
    if positives is None:
        return names, names
    return positives, names


def _covering(exclude: Rule, positives: Tensor | None) -> Rule:
    mine = exclude[1] if positives is None else exclude[1][positives]
    if mine is not exclude[0] and not torch.equal(mine, exclude[0]):
        raise ValueError("info_nce: `exclude` must cover every positive, whose id has to equal its query's id")
    return exclude


def _widened(lse: Tensor, extra: tuple[Tensor, ...]) -> Tensor:
    columns = [logits if logits.ndim == 2 else logits[:, None] for logits in extra]
    return log_sum_exp(torch.cat([lse[:, None], *columns], 1), 1) if columns else lse


def _decoupled(negatives: Tensor, pos: Tensor, denominator: Denominator, weight: Tensor | None) -> Tensor:
    loss = contrast(negatives, pos, denominator)
    return loss if weight is None else loss + (1 - weight) * pos


def _spread(pos: Tensor, mean: Tensor, exclude: Rule, m: int) -> Tensor:
    """pos minus the mean logit over the positive and its negatives."""
    negatives = counts(len(pos), m, exclude, None, pos.device)
    return (pos - mean) * negatives / (negatives + 1)


def _grouped(queries, keys, temperature, groups, exclude, extra, denominator, weight, alpha):
    scale = 1.0 / temperature
    forward = backward = None
    if alpha > 0:
        forward = _group_terms(queries, keys, scale, groups, exclude, extra, denominator, weight)
    if alpha < 1:
        back = None if exclude is None else (exclude[1], exclude[0])
        backward = _group_terms(keys, scaled(queries, scale), 1.0, groups.T, back, (), denominator, None)
    return forward, backward


def _group_terms(queries, keys, scale, groups, exclude, extra, denominator, weight) -> Tensor:
    negatives = _widened(softmax_stats(queries, keys, scale, exclude=groups.rule).rows, extra)
    same = softmax_stats(queries, keys, scale, only=groups.rule, exclude=exclude, mean=True)
    has = same.rows > -torch.inf
    total = torch.where(has, same.rows, torch.zeros_like(same.rows))
    if denominator == "all":
        loss = contrast(negatives, total) + total - same.mean
    else:
        loss = contrast(negatives, same.mean, denominator)
    loss = loss if weight is None else loss + (1 - weight) * same.mean
    return torch.where(has, loss, torch.zeros_like(loss))
