"""Contrast by pseudo labels: batches without two of one, negatives of one alone, and one class centre for each."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, softplus

from counterpoint.batch import Outputs, Pair
from counterpoint.errors import ComponentError
from counterpoint.kernels import contrast, softmax_stats
from counterpoint.kernels.reference import log_sum_exp
from counterpoint.markers import Dim
from counterpoint.objectives.clip import CLIP
from counterpoint.objectives.mechanisms.rows import pair_ids
from counterpoint.objectives.nt_xent import NTXent
from counterpoint.objectives.objective import Needs, Objective
from counterpoint.randomness import Draw


class GSimCLR(NTXent):
    """G-SimCLR (Chakraborty, Gosthipaty and Paul, 2020): NT-Xent on batches without two samples of one pseudo label.

    The loss is exactly that of `nt_xent`; what is new is the batch. It takes

        refresh: {cluster: {use: kmeans, clusters: 100, every: null}}
        loader:  {sampler: {use: distinct, by: cluster}}

    and this objective only says so when the group is not there. The authors cluster with a denoising autoencoder
    trained first (here: a first stage of the recipe, or `every: 1` for labels that follow the encoder).

    group  the pseudo label, made by `refresh` or a group of the data
    """

    def __init__(self, *, group: str = "cluster", temperature: float = 0.1, learnable: bool = False):
        super().__init__(temperature=temperature, learnable=learnable)
        self.group = group

    def needs(self) -> Needs:
        return Needs(pairs="all", batch=2, groups=frozenset({self.group}))


class MCL(CLIP):
    """A later stage of MCL (Zhang et al., 2024): negatives come from the anchor's own pseudo label alone.

    For N aligned rows of two views or modalities, L2-normalised, and l_ij = q_i . k_j / temperature:

        forward_i = -log( exp(l_ii) / (exp(l_ii) + sum_{j: group of j = group of i, sample j is not i} exp(l_ij)) )
        loss      = mean over pairs of 1/2 ( mean_i forward_i + mean_j backward_j )

    What tells the clusters apart has been learned by the stage before; within one it no longer helps, so that features
    it suppressed must be learned. An anchor alone in its group, or of unknown group, contributes 0 and stays in the
    mean. Most anchors have negatives in batches of one pseudo label each, as the authors make them:

        refresh: {cluster: {use: kmeans, clusters: 10, every: null}}
        loader:  {batch: 256, sampler: {use: by_group, by: cluster, per_group: 256}}

    Each stage s starts afresh, takes the clusters of all stages before it as one label, sum_k cluster_k C^(s - 1 - k), and
    in the end the embeddings of all stages stand side by side: `start: afresh`, `by: [first, second]` of kmeans, and
    `concatenate: true` of the recipe (docs/stages.md). The authors' script for the labels reads the last stage's clusters
    in the place of each earlier one's, so that their label is that of the last stage alone: `by: [second]`.

    group  the pseudo label, made by `refresh` or a group of the data
    """

    def __init__(self, *, group: str = "cluster", temperature: float = 0.07, learnable: bool = True):
        super().__init__(temperature=temperature, learnable=learnable)
        self.group = group

    def needs(self) -> Needs:
        return Needs(pairs="all", batch=2, groups=frozenset({self.group}))

    def pair_loss(self, pair: Pair, temperature: float | Tensor, outputs: Outputs) -> Tensor:
        own, group = pair_ids(outputs, pair), pair_ids(outputs, pair, self.group)
        scale = 1.0 / temperature
        found = softmax_stats(pair.q, pair.k, scale, exclude=(own, own), only=(group, group), columns=True)
        positive = scale * (pair.q * pair.k).sum(-1)
        return (contrast(found.rows, positive).mean() + contrast(found.columns, positive).mean()) / 2


class MLCD(Objective):
    """Multi-label cluster discrimination (An et al., 2024): several of many class centres are a sample's own.

    For a row z_i, L2-normalised, class centres w_c with unit rows, s_ic = scale * z_i . w_c, P_i the classes that the
    `groups` give sample i, N_i a random share of the others:

        term_i = log(1 + sum_{c in N_i} exp(s_ic)) + log(1 + sum_{c in P_i} exp(-s_ic))
        loss   = mean over rows of all views of term_i

    From memory of the paper, whose training code is not released, and checked: a term rises with s of a negative and
    falls with s of a positive, the two sums do not pull at each other (which is what splitting the multi-label loss of
    Sun et al., 2020, log(1 + sum exp(s_n) sum exp(-s_p)), is for), and the steepest slope is where cos is 0. No margin.
    A row without a class contributes 0 and stays in the mean. Centres are normalised with a gradient.

    classes   number of class centres: ids in `groups` are less than it
    groups    columns that each name one class of a sample; an unknown one (-1) names none
    negatives share of the other classes that are drawn for each sample; views of a sample share the draw
    scale     the inverse temperature

    Drawn: negatives bool (B, classes), whether a class is in N_i; own classes never are.
    """

    draws = ("negatives",)

    def __init__(
        self,
        *,
        dim: Dim,
        classes: int,
        groups: list[str] = ["cluster"],  # noqa: B006
        negatives: float = 0.1,
        scale: float = 64.0,
    ):
        super().__init__()
        if not groups or classes < 2 or not 0 < negatives <= 1 or scale <= 0:
            raise ComponentError(
                "objective mlcd: at least one of groups and two classes, negatives in (0, 1] and a positive scale; got "
                f"{groups}, {classes}, {negatives} and {scale}"
            )
        self.groups, self.negatives, self.scale = list(groups), negatives, scale
        self.centres = nn.Parameter(normalize(torch.randn(classes, dim), dim=1))

    def needs(self) -> Needs:
        return Needs(groups=frozenset(self.groups))

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        seed = outputs.seed()
        centres = normalize(self.centres, dim=1)
        views = [e for e in outputs.views() if len(e.row)]
        if not views:
            return outputs.zero(), {}
        z, row = torch.cat([e.z for e in views]), torch.cat([e.row for e in views])
        scores = self.scale * z @ centres.T  # (R, C)
        own = self._own(outputs)  # (B, C)
        drawn = outputs.drawn("negatives", own.shape, lambda: self._drawn(seed, outputs)).bool()
        negative, known = (drawn & ~own)[row], own.any(1)[row]
        against = softplus(log_sum_exp(scores.masked_fill(~negative, -torch.inf), 1), threshold=40)
        towards = softplus(log_sum_exp((-scores).masked_fill(~own[row], -torch.inf), 1), threshold=40)
        return ((against + towards) * known).mean(), {}

    def _drawn(self, seed: int, outputs: Outputs) -> Tensor:
        return Draw(seed, outputs.batch.index).positions(len(self.centres)) < self.negatives

    def _own(self, outputs: Outputs) -> Tensor:
        """bool (B, C): the classes of every sample."""
        ids = torch.stack([outputs.batch.groups[name] for name in self.groups], 1)  # (B, G)
        classes = len(self.centres)
        if len(ids) and int(ids.max()) >= classes:
            raise ComponentError(f"objective mlcd: {', '.join(self.groups)} name class {int(ids.max())} of {classes}")
        own = torch.zeros(len(ids), classes + 1, dtype=torch.bool, device=ids.device)
        return own.scatter(1, torch.where(ids < 0, classes, ids), True)[:, :classes]
