"""Global contrastive learning: every sample remembers its own denominator, and may have its own temperature.

Dimensions: N anchors, M candidates, D width of z, S kinds of anchors, I samples of the training set.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from math import inf, log
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from counterpoint.batch import Outputs
from counterpoint.errors import ComponentError
from counterpoint.kernels import softmax_stats
from counterpoint.kernels.identities import Rule, counts
from counterpoint.markers import Modalities, Size
from counterpoint.objectives.mechanisms.rows import pair_ids, stack_views
from counterpoint.objectives.objective import Needs, Objective, mean

TINY = 1e-30  # a weight that is divided by: small enough to change nothing


class Anchors(NamedTuple):
    """Anchors q (N, D) with their ids and the candidates k (M, D) with theirs; n (N,): negatives of each anchor.

    share  (N,): what each anchor counts in the loss
    slot   which state is theirs
    shift  (N,): similarity to the positive, taken off every candidate; None: candidates are compared as they are
    """

    q: Tensor
    k: Tensor
    rule: Rule
    n: Tensor
    share: Tensor
    slot: int
    shift: Tensor | None = None


class Measured(NamedTuple):
    """What anchors that have negatives leave in the state: ids, log s_a and mean weighted logit, (n,) each."""

    ids: Tensor
    log_s: Tensor
    logit: Tensor


class SogCLR(Objective):
    """SogCLR (Yuan et al., 2022, algorithm 1): the loss over all samples, with a running denominator for each.

    All R rows of all views are stacked, L2-normalised. For an anchor a of sample i and temperature T, n_a its negatives
    b (rows of other samples, of either view; its own other view is none, as in `dcl`):

        g_a  = 1/n_a sum_b exp(z_a . z_b / T)
        s_a  = (1 - gamma) s_i + gamma g_a           s_i: the state of sample i; s_a = g_a in epoch 0 and when i is new
        w_ab = exp(z_a . z_b / T) / s_a              detached
        loss = 2 mean over ordered positive pairs (a, p) of [ 1/n_a sum_b w_ab z_a . z_b - z_a . z_p ]

    The factor 2 makes it the sum over two views of means over samples, as released. Its gradient is that of T log s_a
    minus the positive similarity, so that neither term is divided by T. After a call in training s_i becomes the mean
    of s_a over the rows of i; the state is held as log s and has effect from the next call.

    With several modalities (names from the recipe) anchors of one are compared with rows of another, for every ordered
    pair of modalities, each with a state of its own (the bimodal form of Qiu et al., 2023). Similarities are relative
    there: z_a . z_b - z_a . z_p replaces z_a . z_b, also in g, and z_a . z_p is not subtracted again; the loss is the
    sum of the two directions' means over anchors, averaged over pairs of views. The positive is no candidate (a first
    release counts its exp(0) in g).

    size     samples of the training set; state (S, size), 4 bytes each
    state    mean, the paper's; sum: s_i becomes the sum over its rows, as in the first release
    gamma    share of the new estimate (0.9 for ImageNet in the paper); 1: no memory

    The paper's s takes the mean of g over the two views before weighting, the released code and this one weight each
    view by its own s_a. The first release starts every s_i from 0 without the rule of epoch 0. A running maximum beside
    s, as in the bimodal release, is not needed for log s.
    """

    def __init__(
        self,
        *,
        size: Size,
        modalities: Modalities = None,
        temperature: float = 0.1,
        gamma: float = 0.9,
        state: Literal["mean", "sum"] = "mean",
    ):
        super().__init__()
        if temperature <= 0 or not 0 < gamma <= 1 or state not in ("mean", "sum"):
            raise ComponentError(
                "objective: expected a positive temperature, gamma in (0, 1] and state mean or sum; "
                f"got {temperature}, {gamma} and {state}"
            )
        self.temperature, self.gamma, self.state = temperature, gamma, state
        self.modalities = modalities if modalities and len(modalities) > 1 else None
        self.slots = list(permutations(self.modalities, 2)) if self.modalities else [None]
        self.register_buffer("log_s", torch.full((len(self.slots), size), -inf))

    def needs(self) -> Needs:
        samples = self.log_s.shape[1]
        if self.modalities is None:
            return Needs(pairs="all", batch=2, index=True, state=samples)
        return Needs(pairs="across", batch=2, modalities=tuple(self.modalities), index=True, state=samples)

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        terms, measured = [], [[] for _ in self.slots]
        for anchors, positive in self._stacked(outputs) if self.modalities is None else self._across(outputs):
            pull, found = self._pull(anchors, self.gamma == 1 or outputs.epoch == 0)
            terms.append(pull - positive)
            measured[anchors.slot].append(found)
        parts = self.parts(outputs)
        if self.training:
            for slot, found in enumerate(measured):
                self._remember(slot, found)
        directions = 1 if self.modalities is None else 2
        return directions * mean(terms, outputs), parts

    def parts(self, outputs: Outputs) -> dict[str, Tensor]:
        """What to log of the state that this call used."""
        return {}

    # Anchors

    def _stacked(self, outputs: Outputs) -> Iterator[tuple[Anchors, Tensor]]:
        z, ids, (a, b) = stack_views(outputs)
        if not len(a):
            return
        n, ends, rows = self._negatives(ids, ids), torch.cat([a, b]), torch.arange(len(z), device=z.device)
        share = counts(len(z), len(ends), None, (rows, ends), z.device).to(z) / len(a)
        has = (n > 0).to(z)
        positive = ((z[a] * z[b]).sum(-1) * (has[a] + has[b])).sum() / len(a)
        yield Anchors(z, z, (ids, ids), n, share, 0), positive

    def _across(self, outputs: Outputs) -> Iterator[tuple[Anchors, Tensor]]:
        for pair in outputs.pairs("across"):
            ids, kind = pair_ids(outputs, pair), (pair.query.modality, pair.key.modality)
            share, shift = pair.q.new_full((len(ids),), 1 / len(ids)), (pair.q * pair.k).sum(-1)
            n = self._negatives(ids, ids)
            for q, k, names in ((pair.q, pair.k, kind), (pair.k, pair.q, kind[::-1])):
                if names in self.slots:
                    yield Anchors(q, k, (ids, ids), n, share, self.slots.index(names), shift), shift.new_zeros(())

    @staticmethod
    def _negatives(ids: Tensor, keys: Tensor) -> Tensor:
        return counts(len(ids), len(keys), (ids, keys), None, ids.device)

    def _temperatures(self, anchors: Anchors) -> Tensor:
        """(N,): the temperature of each anchor."""
        return anchors.q.new_full((len(anchors.q),), self.temperature)

    # The loss of some anchors, and what they leave

    def _pull(self, anchors: Anchors, first: bool) -> tuple[Tensor, Measured]:
        """sum_a share_a / n_a sum_b w_ab (similarity, relative if there is a shift).

        w_ab / n_a = ratio_a p_ab with ratio_a = g_a / s_a and p the softmax over negatives, so that its gradient is
        that of ratio T lse: one backward pass over detached copies gives both the gradient and the mean logit.
        """
        tau, there = self._temperatures(anchors), anchors.n > 0
        shift = torch.zeros_like(tau) if anchors.shift is None else anchors.shift
        with torch.enable_grad():
            q, k = anchors.q.detach().requires_grad_(), anchors.k.detach().requires_grad_()
            lse = softmax_stats(q, k, 1 / tau, exclude=anchors.rule).rows
        log_g = torch.where(there, lse.detach() - anchors.n.to(lse).log() - shift.detach() / tau, -inf)
        log_s = self._estimate(anchors, log_g, first)
        ratio = torch.where(there, torch.exp(log_g - log_s), 0.0)
        weight = anchors.share * ratio * tau
        slopes = torch.autograd.grad(lse, (q, k), weight.clamp(min=TINY))
        logit = (q.detach() * slopes[0]).sum(-1) / weight.clamp(min=TINY)  # (N,): sum_b p_ab z_a . z_b / T
        total = (weight * logit - anchors.share * ratio * shift).sum()
        for slope, z in zip(slopes, (anchors.q, anchors.k)):
            total = total + (slope * (z - z.detach())).sum()
        left = Measured(anchors.rule[0][there], log_s[there], (ratio * (logit - shift.detach() / tau))[there])
        return total, left

    def _estimate(self, anchors: Anchors, log_g: Tensor, first: bool) -> Tensor:
        """(N,): log s_a."""
        old = self.log_s[anchors.slot, anchors.rule[0]]
        if first:
            return log_g
        moved = torch.logaddexp(old + log(1 - self.gamma), log_g + log(self.gamma))
        return torch.where(old == -inf, log_g, moved)

    @torch.no_grad()
    def _remember(self, slot: int, found: list[Measured]) -> None:
        if not any(len(m.ids) for m in found):
            return
        ids, log_s, logit = (torch.cat(column) for column in zip(*found))
        order = ids.argsort(stable=True)
        names, lengths = torch.unique_consecutive(ids[order], return_counts=True)
        log_s, logit = log_s[order], logit[order]
        self.adapt(slot, names, torch.segment_reduce(log_s - logit, "mean", lengths=lengths))
        top = torch.segment_reduce(log_s, "max", lengths=lengths)
        shares = torch.exp(log_s - torch.repeat_interleave(top, lengths))
        self.log_s[slot, names] = top + torch.segment_reduce(shares, self.state, lengths=lengths).log()

    def adapt(self, slot: int, ids: Tensor, slope: Tensor) -> None:
        """Move what else is remembered of samples `ids`; slope: mean over a sample's rows of log s_a - mean logit."""


class ISogCLR(SogCLR):
    """iSogCLR (Qiu et al., 2023, algorithm 1): SogCLR with a temperature T_i for each sample, from a robust objective.

    The loss is that of `sogclr` with T_i in place of T. T_i is not learned by the optimizer; after a call in training,
    with G_a the derivative in T_i of T_i (log s_a + rho):

        G_a = log s_a + rho - 1/n_a sum_b w_ab z_a . z_b / T_i     relative similarities where `sogclr` has them
        u_i <- (1 - beta) u_i + beta clip(mean of G_a over the rows of i, -limit, limit)
        T_i <- clip(T_i - rate u_i, lowest, highest)

    Without memory G_a = rho - KL(p_a from uniform), p_a the softmax over the negatives: T_i falls where they are alike
    and rises where few of them hold the weight, so that rho bounds how far the weights may be from uniform.

    temperature  where every T_i starts; size, modalities, gamma and state as in `sogclr`

    Defaults are those of the released unimodal code; its form for image and text starts from 0.01, between 0.005 and 1,
    with rho 8 and limit 5.
    """

    def __init__(
        self,
        *,
        size: Size,
        modalities: Modalities = None,
        temperature: float = 0.07,
        gamma: float = 0.8,
        state: Literal["mean", "sum"] = "mean",
        rho: float = 0.3,
        rate: float = 0.001,
        beta: float = 0.9,
        lowest: float = 0.05,
        highest: float = 1.0,
        limit: float = 3.0,
    ):
        super().__init__(size=size, modalities=modalities, temperature=temperature, gamma=gamma, state=state)
        if not 0 < lowest <= highest or not 0 < beta <= 1:
            raise ComponentError(
                "objective isogclr: expected 0 < lowest <= highest and beta in (0, 1]; "
                f"got {lowest}, {highest} and {beta}"
            )
        self.rho, self.rate, self.beta, self.limit, self.bounds = rho, rate, beta, limit, (lowest, highest)
        self.register_buffer("u", torch.zeros_like(self.log_s))
        self.register_buffer("tau", torch.full_like(self.log_s, temperature))

    def _temperatures(self, anchors: Anchors) -> Tensor:
        return self.tau[anchors.slot, anchors.rule[0]]

    def parts(self, outputs: Outputs) -> dict[str, Tensor]:
        return {"temperature": self.tau[:, outputs.batch.index].mean()} if len(outputs.batch) else {}

    def adapt(self, slot: int, ids: Tensor, slope: Tensor) -> None:
        step = (slope + self.rho).clamp(-self.limit, self.limit)
        self.u[slot, ids] = (1 - self.beta) * self.u[slot, ids] + self.beta * step
        self.tau[slot, ids] = (self.tau[slot, ids] - self.rate * self.u[slot, ids]).clamp(*self.bounds)
