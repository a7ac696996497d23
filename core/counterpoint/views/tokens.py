"""View generators of token ids: text, code, whatever is a sequence of symbols.

Dimensions: n rows, L tokens. Padding and special tokens are never touched.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from counterpoint.batch import APART, NEGATIVE, View
from counterpoint.errors import ComponentError
from counterpoint.markers import Given
from counterpoint.randomness import Draw
from counterpoint.views.generator import Augmentation, ViewGenerator

MaskToken = Annotated[int, Given("mask_token")]
SpecialTokens = Annotated[list[int] | None, Given("special_tokens")]


def ordinary(data: Tensor, mask: Tensor | None, special: Tensor) -> Tensor:
    """bool (n, L): the tokens that are part of the text, neither padding nor special."""
    own = ~torch.isin(data, special.to(data.device))
    return own if mask is None else own & mask


def _special(tokens: list[int] | None) -> Tensor:
    return torch.tensor(sorted(tokens or [0]), dtype=torch.int64)


def _fraction(who: str, value: float) -> float:
    if not 0.0 <= value < 1.0:
        raise ComponentError(f"view {who!r}: fraction must be in [0, 1); got {value}")
    return value


class TokenMask(Augmentation):
    """Each token replaced by the mask token with probability `fraction`; (n, L) -> (n, L).

    Source: Devlin et al., NAACL 2019, section 3.1 (masked tokens); as a contrastive view, Wu et al., "CLEAR", 2020.
    """

    def __init__(
        self, *, fraction: float = 0.15, mask_token: MaskToken, special_tokens: SpecialTokens = None, p: float = 1.0
    ):
        super().__init__(p=p)
        self.fraction, self.mask_token = _fraction("token_mask", fraction), mask_token
        self.special = _special(special_tokens)

    def augment(self, data: Tensor, mask: Tensor | None, draw: Draw) -> Tensor:
        hidden = draw.positions(data.shape[1]) < self.fraction
        return data.masked_fill(hidden & ordinary(data, mask, self.special), self.mask_token)


class TokenDelete(ViewGenerator):
    """Each token left out with probability `fraction`, the others moved together; a text keeps its first token at least.

    Source: Wu et al., "CLEAR", 2020, section 3.2 (word deletion); Wei and Zou, EMNLP 2019 (random deletion).
    """

    def __init__(self, *, fraction: float = 0.1, special_tokens: SpecialTokens = None):
        super().__init__()
        self.fraction, self.special = _fraction("token_delete", fraction), _special(special_tokens)

    def forward(self, view: View, draw: Draw) -> View:
        own = ordinary(view.data, view.mask, self.special)
        kept = ~(own & (draw.positions(view.data.shape[1]) < self.fraction))
        first = own & (own.cumsum(1) == 1)
        return compact(view, (kept | first) & real(view))


class TokenRepeat(ViewGenerator):
    """Some tokens, drawn for each text, stand twice in a row; the text grows by as many.

    Source: Wu et al., "ESimCSE", COLING 2022, section 3.1 (word repetition; here of tokens, its sub-word form).
    Of a text with N tokens, special ones not counted, so many distinct ones are repeated as a whole number says that is
    uniform in [0, m]: m = max(2, int(fraction N)), and at most N.

    most        not None: m = min(most, int(fraction N)) - 1, none where int(fraction N) is 0: the released code for
                sub-words, with 10; it counts special tokens in N
    max_tokens  no text grows beyond so many tokens, special ones counted; the encoder's limit
    fraction    as released for BERT (0.32; RoBERTa 0.28 to 0.30)
    """

    def __init__(
        self,
        *,
        fraction: float = 0.32,
        most: int | None = None,
        max_tokens: int | None = None,
        special_tokens: SpecialTokens = None,
    ):
        super().__init__()
        if most is not None and most < 1:
            raise ComponentError(f"view 'token_repeat': most is at least 1, or null; got {most}")
        self.fraction, self.special = _fraction("token_repeat", fraction), _special(special_tokens)
        self.most, self.max_tokens = most, max_tokens

    def forward(self, view: View, draw: Draw) -> View:
        own, there = ordinary(view.data, view.mask, self.special), real(view)
        chances = draw.positions(view.data.shape[1]).masked_fill(~own, 2.0)  # a token that is not own comes last
        rank = chances.argsort(dim=1, stable=True).argsort(dim=1)
        twice = own & (rank < self._count(own.sum(1), there.sum(1), draw)[:, None])
        ends = (there.long() + twice).cumsum(1)  # (n, L): where in the new text each token's stretch ends
        length = max(1, int(ends[:, -1].max())) if ends.numel() else 1
        places = torch.arange(length, device=ends.device).expand(len(ends), length).contiguous()
        mask = places < ends[:, -1:]
        source = torch.searchsorted(ends, places, right=True).clamp(max=view.data.shape[1] - 1)
        return view.replace(data=view.data.gather(1, source).masked_fill(~mask, 0), mask=mask)

    def _count(self, own: Tensor, length: Tensor, draw: Draw) -> Tensor:
        """int64 (n,): how many of `own` tokens are repeated in texts of `length` tokens."""
        share = (own.double() * self.fraction).long()
        highest = share.clamp(min=2) if self.most is None else (share.clamp(max=self.most) - 1).clamp(min=0)
        count = torch.minimum((draw.uniform() * (torch.minimum(highest, own) + 1)).long(), own)
        return count if self.max_tokens is None else torch.minimum(count, (self.max_tokens - length).clamp(min=0))


class TokenCrop(ViewGenerator):
    """A random stretch of the tokens: between `low` and `high` of them, moved to the front; special tokens stay.

    Source: Izacard et al., "Contriever", TMLR 2022, section 3.1 (independent cropping); bounds of the stretch 0.05 to 0.5
    there, for documents; the default suits short texts.
    """

    def __init__(self, *, low: float = 0.5, high: float = 1.0, special_tokens: SpecialTokens = None):
        super().__init__()
        if not 0.0 < low <= high <= 1.0:
            raise ComponentError(f"view 'token_crop': bounds must be in (0, 1], low before high; got {low}, {high}")
        self.low, self.high, self.special = low, high, _special(special_tokens)

    def forward(self, view: View, draw: Draw) -> View:
        own = ordinary(view.data, view.mask, self.special)
        count = own.sum(1)
        width = (draw.uniform(low=self.low, high=self.high) * count).round().long().clamp(min=1)
        start = torch.minimum((draw.uniform() * (count - width + 1)).long(), (count - width).clamp(min=0))
        place = own.cumsum(1) - 1  # which of the ordinary tokens each is
        inside = own & (place >= start[:, None]) & (place < (start + width)[:, None])
        return compact(view, (inside | ~own) & real(view))


class TokenSwap(ViewGenerator):
    """The text, and beside it a view of role `negative` in which two different tokens have changed places.

    What the order of words says must then be learned: the negatives of NegCLIP (Yuksekgonul et al., ICLR 2023, section
    4), of tokens rather than of words and phrases. A text without two different tokens has no negative. Views that are
    negatives, edited positives or mixtures already stay as they are.
    """

    def __init__(self, *, special_tokens: SpecialTokens = None):
        super().__init__()
        self.special = _special(special_tokens)

    def layout(self, roles: list[str]) -> list[str]:
        return [made for role in roles for made in ([role] if role in APART else [role, NEGATIVE])]

    def forward(self, view: View, draw: Draw) -> View | list[View]:
        if view.role in APART:
            return view
        own = ordinary(view.data, view.mask, self.special)
        first = draw.positions(view.data.shape[1]).masked_fill(~own, 2.0).argmin(1, keepdim=True)  # (n, 1)
        differs = own & (view.data != view.data.gather(1, first))
        second = draw.positions(view.data.shape[1]).masked_fill(~differs, 2.0).argmin(1, keepdim=True)
        swapped = view.data.scatter(1, first, view.data.gather(1, second))
        swapped = swapped.scatter(1, second, view.data.gather(1, first))
        return [view, view.replace(data=swapped, role=NEGATIVE)[differs.any(1)]]


def real(view: View) -> Tensor:
    """bool (n, L): the tokens that are no padding."""
    return torch.ones_like(view.data, dtype=torch.bool) if view.mask is None else view.mask


def compact(view: View, kept: Tensor) -> View:
    """The tokens `kept` (n, L), in their order at the front of each row; the rest is padding of id 0."""
    order = torch.argsort((~kept).to(torch.uint8), dim=1, stable=True)
    longest = max(1, int(kept.sum(1).max()) if len(kept) else 1)
    mask = kept.gather(1, order)[:, :longest]
    data = view.data.gather(1, order)[:, :longest].masked_fill(~mask, 0)
    return view.replace(data=data, mask=mask)
