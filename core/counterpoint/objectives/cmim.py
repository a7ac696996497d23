"""cMIM: a mutual information machine whose codes repel each other.

Dimensions: n rows of a view, D width of z, P places of an input of C channels.
"""

from __future__ import annotations

from math import log, pi
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, normalize

from counterpoint.batch import Encoded, Outputs
from counterpoint.errors import ComponentError
from counterpoint.kernels import contrast, softmax_stats
from counterpoint.kernels.identities import counts
from counterpoint.markers import Dim, Facts
from counterpoint.modules import NamedModules
from counterpoint.objectives.mechanisms.decoder import Decoder
from counterpoint.objectives.mechanisms.temperature import Temperature
from counterpoint.objectives.objective import Needs, Objective, mean
from counterpoint.randomness import Draw, key

BANDS = 6  # frequencies of a place's coordinates


class CMIM(Objective):
    """Contrastive mutual information machine (Livne, 2025), for one view of each sample: no augmented positive.

    The head gives a code's mean z (n, D) and, under the name `variance`, the logarithm v of its variances; a code is drawn,
    c_i = z_i + exp(v_i / 2) * e_i with e_i ~ N(0, I). A decoder of the objective's own gives p(x | c). The mean over rows of

        - log p(x_i | c_i)  -  1/2 ( log q(c_i | x_i) + log p(c_i) )  +  contrast_weight * C_i
        C_i = - log( exp(1/t) / (exp(1/t) + mean_{j: not of sample i} exp(cos(c_i, c_j) / t)) )

    and the mean over views. q is N(z, exp(v)), p(c) is N(0, I), both of D dimensions, summed; p(x | c) is a causal decoder of
    ids, summed over the real tokens after the first, or N(f(c), noise^2 I) for an input of numbers, summed over it.

    The likelihood terms are the asymmetric MIM loss (Livne, Swersky and Fleet, 2020), -1/2 E_q[log q(c|x) P(x) + log
    p(x|c) p(c)] with P(x) bounded by p(x|c). Where a VAE has + log q, this has - log q: codes become certain, and without
    bound as variances go to 0; they are kept from falling below `least`^2. The own similarity cos(c_i, c_i) = 1 is a
    constant: C_i only repels. C_i is log 2 for equal codes whatever the batch, and log(1 + exp(-1/t)) for orthogonal ones;
    with `negatives: sum`, log n: then it depends on the size of the batch, as InfoNCE does. Nothing is detached.

    The paper was not at hand in full: that C_i enters with weight 1 and that negatives are averaged follow its abstract and
    reviews (a probability whose other event is an expectation; little dependence on the batch), not its equations.

    axes  of time or space of an input of numbers (n, C, ...): f is a network of the code and of the place's coordinates

    Drawn, for every view alike: e (n, D), standard normal.
    """

    unit = False
    draws = ("e",)

    def __init__(
        self,
        *,
        dim: Dim,
        facts: Facts,
        temperature: float = 0.1,
        negatives: Literal["mean", "sum"] = "mean",
        contrast_weight: float = 1.0,
        variance: str = "logvar",
        least: float = 1e-2,
        noise: float = 1.0,
        axes: int = 1,
        width: int = 128,
        depth: int = 2,
        heads: int = 4,
    ):
        super().__init__()
        if not (least > 0 and noise > 0):
            raise ComponentError(f"objective 'cmim': least and noise are above 0; got {least}, {noise}")
        self.temperature = Temperature(temperature, False)
        self.negatives, self.contrast_weight, self.variance = negatives, contrast_weight, variance
        self.lowest, self.noise = 2 * log(least), noise
        made: dict[str, nn.Module] = {}
        for modality, known in facts.items():
            if known.get("vocabulary"):
                made[modality] = Decoder(known["vocabulary"], dim, width, 0, depth, heads)
            else:
                made[modality] = Field(dim, _channels(modality, known), axes, width, depth)
        self.decoders = NamedModules(made)

    def needs(self) -> Needs:
        features, heads = frozenset({"input"}), frozenset({self.variance})
        return Needs(batch=2, modalities=tuple(self.decoders), features=features, heads=heads)

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        seed = outputs.seed()
        found = [self._view(e, outputs.ids(e), seed, outputs) for e in outputs.views() if len(e.row)]
        terms = {name: mean([terms[name] for terms in found], outputs) for name in ("likelihood", "codes", "contrast")}
        total = terms["likelihood"] + terms["codes"] + self.contrast_weight * terms["contrast"]
        return total, {name: term.detach() for name, term in terms.items()}

    def _view(self, e: Encoded, ids: Tensor, seed: int, outputs: Outputs) -> dict[str, Tensor]:
        spread = e.heads[self.variance].to(e.z).clamp(min=self.lowest)
        normal = Draw(key(seed, e.view), ids).normal(e.z.shape[1])
        noise = outputs.drawn("e", e.z.shape, lambda: normal).to(e.z)
        code = e.z + (spread / 2).exp() * noise
        certainty = -0.5 * (noise.square() + spread + log(2 * pi)).sum(1)  # log q(c | x)
        prior = -0.5 * (code.square() + log(2 * pi)).sum(1)
        return {
            "likelihood": -self._likelihood(e, code).mean(),
            "codes": -0.5 * (certainty + prior).mean(),
            "contrast": self._repulsion(code, ids).mean(),
        }

    def _likelihood(self, e: Encoded, code: Tensor) -> Tensor:
        """(n,): log p(x | c)."""
        decoder = self.decoders[e.modality]
        if isinstance(decoder, Decoder):
            return -decoder.surprise(e.input, e.input_mask, code[:, None])[0]
        target = e.input.to(code.dtype)
        error = (target - decoder(code, target)).square() / self.noise**2 + log(2 * pi * self.noise**2)
        real = torch.ones_like(target) if e.input_mask is None else e.input_mask[:, None].to(target)
        return -0.5 * (error * real).flatten(1).sum(1)

    def _repulsion(self, code: Tensor, ids: Tensor) -> Tensor:
        """(n,): C_i; 0 for a row that has no negative."""
        scale, unit = 1.0 / self.temperature(), normalize(code, dim=-1)
        others = softmax_stats(unit, unit, scale, exclude=(ids, ids)).rows
        if self.negatives == "mean":
            others = others - counts(len(ids), len(ids), (ids, ids), None, ids.device).clamp(min=1).to(others).log()
        return contrast(others, torch.full_like(others, scale))


class Field(nn.Module):
    """A code (n, D) and the shape of an input (n, C, ...) of so many axes -> that input, place by place."""

    def __init__(self, dim: int, channels: int, axes: int, width: int, depth: int):
        super().__init__()
        self.channels, self.axes = channels, axes
        self.code, self.place = nn.Linear(dim, width), nn.Linear(2 * BANDS * axes, width, bias=False)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 1))
        self.out = nn.Linear(width, channels)

    def forward(self, code: Tensor, like: Tensor) -> Tensor:
        if like.ndim != 2 + self.axes or like.shape[1] != self.channels:
            raise ComponentError(
                f"objective 'cmim': wants an input (n, {self.channels}, ...) of {self.axes} axes, the views are "
                f"{tuple(like.shape)}; say its `axes`, or leave out what changes the channels"
            )
        places = coordinates(like.shape[2:], code)  # (P, 2 BANDS axes)
        x = gelu(self.code(code)[:, None] + self.place(places))  # (n, P, width)
        for layer in self.hidden:
            x = gelu(layer(x))
        return self.out(x).transpose(1, 2).reshape(like.shape)


def coordinates(sizes: tuple[int, ...], like: Tensor) -> Tensor:
    """(P, 2 BANDS axes): sines and cosines of each place's coordinates, at 1, 2, 4, ... half turns over an axis."""
    axes = [(torch.arange(size, device=like.device).to(like.dtype) + 0.5) / size for size in sizes]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)  # (P, axes)
    turns = pi * grid[..., None] * 2.0 ** torch.arange(BANDS, device=like.device).to(like.dtype)
    return torch.cat([turns.sin(), turns.cos()], -1).flatten(1)


def _channels(modality: str, known: dict) -> int:
    if not isinstance(known.get("channels"), int):
        raise ComponentError(f"objective 'cmim': the data of {modality!r} say neither channels nor a vocabulary")
    return known["channels"]
