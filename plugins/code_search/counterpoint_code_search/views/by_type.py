"""View generators of code that know the types of its tokens: identifiers, keywords, operators, separators, literals.

Dimensions: n rows, L tokens, T token types. Padding and special tokens are never touched.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from counterpoint.errors import ComponentError
from counterpoint.markers import Given
from counterpoint.randomness import Draw
from counterpoint.views.generator import Augmentation
from counterpoint.views.tokens import MaskToken, SpecialTokens, ordinary
from counterpoint_code_search.readers.token_types import TYPES, type_numbers

TokenTypes = Annotated[str, Given("token_types")]  # a digit for every entry of the vocabulary
TypeTokens = Annotated[list[int], Given("type_tokens")]
Type = Literal["identifier", "keyword", "operator", "separator", "literal"]


class _ByType(Augmentation):
    """What the views by type have in common: the type of each token, and which tokens of a row are chosen."""

    def __init__(
        self,
        who: str,
        fraction: float,
        types: list[str] | None,
        token_types: str,
        special_tokens: list[int] | None,
        p: float,
    ):
        super().__init__(p=p)
        if not 0.0 <= fraction < 1.0:
            raise ComponentError(f"view {who!r}: fraction must be in [0, 1); got {fraction}")
        if types is not None and not types:
            raise ComponentError(f"view {who!r}: types is empty; name some of {', '.join(TYPES[1:])}, or leave it out")
        self.fraction = fraction
        self.wanted = None if types is None else type_numbers(types, who)
        if not token_types or set(token_types) - set("012345"):
            raise ComponentError(
                f"view {who!r}: token_types has a digit from 0 to 5 for every token; got {token_types[:20]!r}"
            )
        self.register_buffer(
            "types", torch.tensor([int(digit) for digit in token_types], dtype=torch.int64), persistent=False
        )
        self.register_buffer(
            "special", torch.tensor(sorted(special_tokens or [0]), dtype=torch.int64), persistent=False
        )

    def types_of(self, data: Tensor) -> Tensor:
        """int64 (n, L): the type of every token."""
        return self.types.to(data.device)[data]

    def chosen(self, data: Tensor, mask: Tensor | None, draw: Draw, wanted: list[int] | None) -> Tensor:
        """bool (n, L): `fraction` of the tokens; of one type, drawn for each row, where types are wanted."""
        own = ordinary(data, mask, self.special)
        if wanted is not None:
            drawn = torch.tensor(wanted, device=data.device)[draw.integers(0, len(wanted))]  # (n,)
            own = own & (self.types_of(data) == drawn[:, None])
        return own & (draw.positions(data.shape[1]) < self.fraction)


class TypeMask(_ByType):
    """Tokens replaced by the mask token with probability `fraction`, all of one type drawn for each sample among `types`.

    types: identifier, keyword, operator, separator, literal; all of them when left out. (n, L) -> (n, L).
    Raises ComponentError for an unknown or missing type. The type comes from the vocabulary (reader `code_search.code`).
    Source: Shi et al., "CoCoSoDa", ICSE 2023, section III-B (dynamic masking of specified type; there 15 %).
    """

    def __init__(
        self,
        *,
        fraction: float = 0.15,
        types: list[Type] | None = None,
        token_types: TokenTypes,
        mask_token: MaskToken,
        special_tokens: SpecialTokens = None,
        p: float = 1.0,
    ):
        types = list(TYPES[1:]) if types is None else types
        super().__init__("code_search.type_mask", fraction, types, token_types, special_tokens, p)
        self.mask_token = mask_token

    def augment(self, data: Tensor, mask: Tensor | None, draw: Draw) -> Tensor:
        return data.masked_fill(self.chosen(data, mask, draw, self.wanted), self.mask_token)


class TypeReplace(_ByType):
    """Tokens replaced by the name of their type with probability `fraction`; (n, L) -> (n, L).

    types: left out, any token with a type may be replaced; otherwise those of one type drawn for each sample among
    them. The name is the token that the word ("identifier", "operator", ...) begins with.
    Raises ComponentError for an unknown or missing type.
    Source: Shi et al., "CoCoSoDa", ICSE 2023, section III-B (dynamic replacement, also of specified type; there 15 %).
    """

    def __init__(
        self,
        *,
        fraction: float = 0.15,
        types: list[Type] | None = None,
        token_types: TokenTypes,
        type_tokens: TypeTokens,
        special_tokens: SpecialTokens = None,
        p: float = 1.0,
    ):
        super().__init__("code_search.type_replace", fraction, types, token_types, special_tokens, p)
        self.register_buffer("names", torch.tensor(type_tokens, dtype=torch.int64), persistent=False)

    def augment(self, data: Tensor, mask: Tensor | None, draw: Draw) -> Tensor:
        types = self.types_of(data)
        hit = self.chosen(data, mask, draw, self.wanted) & (types > 0)
        return torch.where(hit, self.names.to(data.device)[types], data)


class SoftAugmentation(_ByType):
    """SoDa: one of four views drawn for each sample; tokens masked or replaced by their type, all types or one type.

    fraction: of the tokens (with one type: of its tokens) that change. (n, L) -> (n, L).
    Source: Shi et al., "CoCoSoDa", ICSE 2023, section III-B (soft data augmentation; there 15 %, each way as likely).
    """

    def __init__(
        self,
        *,
        fraction: float = 0.15,
        token_types: TokenTypes,
        type_tokens: TypeTokens,
        mask_token: MaskToken,
        special_tokens: SpecialTokens = None,
        p: float = 1.0,
    ):
        super().__init__("code_search.soft", fraction, None, token_types, special_tokens, p)
        self.register_buffer("names", torch.tensor(type_tokens, dtype=torch.int64), persistent=False)
        self.mask_token = mask_token

    def augment(self, data: Tensor, mask: Tensor | None, draw: Draw) -> Tensor:
        types, way = self.types_of(data), draw.integers(0, 4)[:, None]  # (n, L), (n, 1)
        every, one = (self.chosen(data, mask, draw, wanted) for wanted in (None, list(range(1, len(TYPES)))))
        hit = torch.where(way < 2, every, one)
        named = torch.where(types > 0, self.names.to(data.device)[types], data)
        return torch.where(hit, torch.where(way % 2 == 0, torch.full_like(data, self.mask_token), named), data)
