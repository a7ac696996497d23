"""Optimal-transport assignment of samples to prototypes."""

from __future__ import annotations

import math

import torch
from torch import Tensor


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Soft assignments (n, K) of n samples to K prototypes, rows of which sum to 1, all prototypes used about alike.

    Q = exp(scores / epsilon); repeat: each prototype's mass becomes 1 / K, then each sample's 1 / n (Cuturi, 2013;
    Caron et al., 2020, eq. 3-5). Prototypes first and samples last, so that every sample is assigned whole. In logs,
    where no sample far from all prototypes is lost; without iterations, a softmax.
    """
    log_q = scores / epsilon
    for _ in range(iterations if len(scores) else 0):
        log_q = log_q - log_q.logsumexp(0, keepdim=True) - math.log(scores.shape[1])
        log_q = log_q - log_q.logsumexp(1, keepdim=True) - math.log(len(scores))
    return log_q.softmax(1)
