"""The shuffled group whitening head of WhitenedCSE.

Dimensions: n rows of one view, H width of h, G groups of d = H / G channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from counterpoint.errors import ComponentError
from counterpoint.markers import Width


class GroupWhitening(nn.Module):
    """ZCA whitening of groups of channels, by the statistics of the rows it is given.

    Each call in training draws an order of the channels, cuts it into G groups and whitens each:
    x_g -> (x_g - mean) (Cov_g + eps)^(-1/2), Cov_g the covariance divided by n; then the channels go back. Running mean
    and covariance (H, H) are kept, by which an evaluation whitens the groups of channels that stand beside each other,
    so that a row's embedding does not depend on the others. A call with fewer than two rows uses them, too.
    """

    track_running_stats = True

    def __init__(self, width: int, groups: int, eps: float = 1e-5, momentum: float = 0.1, detach: bool = False):
        super().__init__()
        if groups < 1 or width % groups:
            raise ComponentError(f"head 'whitening': groups must divide the width of h, {width}; got groups: {groups}")
        self.groups, self.eps, self.momentum, self.detached = groups, eps, momentum, detach
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_covariance", torch.eye(width))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def reset_running_stats(self) -> None:
        self.running_mean.zero_()
        self.running_covariance.copy_(torch.eye(len(self.running_mean)))
        self.num_batches_tracked.zero_()

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # an eigenvalue problem
            x = x if x.dtype == torch.float64 else x.float()
            if not self.training or len(x) < 2:
                order = torch.arange(x.shape[1], device=x.device)
                return self._whiten(x - self.running_mean.to(x), self._blocks(self.running_covariance.to(x)), order)
            mean = x.mean(0)
            centred = x - mean
            self._follow(mean.detach(), centred.detach())
            order = torch.randperm(x.shape[1], device=x.device)
            grouped = self._grouped(centred[:, order])
            covariance = grouped.transpose(1, 2) @ grouped / len(x)  # (G, d, d)
            return self._whiten(centred, covariance.detach() if self.detached else covariance, order)

    def _whiten(self, centred: Tensor, covariance: Tensor, order: Tensor) -> Tensor:
        white = self._grouped(centred[:, order]) @ inverse_root(covariance, self.eps)  # (G, n, d)
        return white.transpose(0, 1).flatten(1)[:, order.argsort()]

    def _grouped(self, x: Tensor) -> Tensor:
        """(G, n, d) of x (n, H)."""
        return x.unflatten(1, (self.groups, -1)).transpose(0, 1)

    def _blocks(self, covariance: Tensor) -> Tensor:
        """(G, d, d): the blocks along the diagonal."""
        size = len(covariance) // self.groups
        return covariance.unflatten(0, (-1, size)).unflatten(2, (-1, size)).diagonal(dim1=0, dim2=2).permute(2, 0, 1)

    @torch.no_grad()
    def _follow(self, mean: Tensor, centred: Tensor) -> None:
        self.num_batches_tracked += 1
        rate = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), rate)
        self.running_covariance.lerp_((centred.T @ centred / len(centred)).to(self.running_covariance), rate)


def inverse_root(matrices: Tensor, eps: float = 0.0) -> Tensor:
    """(A + eps I)^(-1/2) of symmetric positive matrices (..., d, d), with a gradient that equal eigenvalues leave finite."""
    return _InverseRoot.apply(matrices, eps)


class _InverseRoot(torch.autograd.Function):
    """With A = U diag(l) U^T and s = sqrt(l), the derivative of A^(-1/2) multiplies U^T dA U entrywise by

        (1/s_i - 1/s_j) / (l_i - l_j) = -1 / (s_i s_j (s_i + s_j)),

    the right side of which has no difference in it (Daleckii and Krein; Higham, Functions of Matrices, 2008, theorem 3.11).
    """

    @staticmethod
    def forward(ctx, matrices: Tensor, eps: float) -> Tensor:
        values, vectors = torch.linalg.eigh(matrices)
        roots = (values.clamp(min=0) + max(eps, torch.finfo(values.dtype).tiny)).sqrt()
        ctx.save_for_backward(roots, vectors)
        return (vectors / roots[..., None, :]) @ vectors.mT

    @staticmethod
    def backward(ctx, grad: Tensor):
        roots, vectors = ctx.saved_tensors
        rows, columns = roots[..., :, None], roots[..., None, :]
        inside = vectors.mT @ ((grad + grad.mT) / 2) @ vectors
        return vectors @ (-inside / (rows * columns * (rows + columns))) @ vectors.mT, None


class Whitening(nn.Module):
    """Shuffled group whitening, then a linear map and tanh: h (n, H) -> z (n, D).

    The head of WhitenedCSE (Zhuo, Sun, Wang et al., ACL 2023, section 3.2), put between the encoder and the layer that
    BERT calls its pooler. Whitened is each view of the whole batch apart, over all ranks and micro-batches: the loop
    calls this head once for a view, when the batch is together. At evaluation running statistics take the place of the
    batch's, where the authors' code whitens what it is given by itself.

    groups    128 of the 768 channels of BERT: groups of 6. Groups of one channel only standardise
    detach    no gradient through the covariance, as in the authors' code, which copies it
    momentum  of the running statistics
    """

    whole_batch = True

    def __init__(
        self, *, width: Width, dim: int | None = None, groups: int = 128, detach: bool = False, momentum: float = 0.1
    ):
        super().__init__()
        self.dim = dim or width
        self.whiten = GroupWhitening(width, groups, momentum=momentum, detach=detach)
        self.map = nn.Linear(width, self.dim)

    def forward(self, h: Tensor) -> Tensor:
        return torch.tanh(self.map(self.whiten(h).to(h.dtype)))
