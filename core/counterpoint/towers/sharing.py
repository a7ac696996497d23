"""Parts that the heads of several modalities have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from torch import nn

from counterpoint.errors import ComponentError

Tower = TypeVar("Tower", bound=nn.Module)


def share(towers: Mapping[str, Tower]) -> Mapping[str, Tower]:
    """Give all heads of one class the parts that its attribute `shared` names, from the first tower that has such a head.

    A part is a submodule or a parameter. It is one tensor after this: trained once, under the name of each modality in a
    file of weights. Heads inside another head share with those at the same place. ComponentError when the parts of two
    modalities are not of one form.
    """
    first: dict[tuple[type, str], tuple[str, nn.Module]] = {}
    for modality, tower in towers.items():
        for place, head in tower.head.named_modules():
            for name in getattr(type(head), "shared", ()):
                owner, source = first.setdefault((type(head), f"{place}.{name}"), (modality, head))
                if source is not head:
                    _check(name, owner, getattr(source, name), modality, getattr(head, name))
                    setattr(head, name, getattr(source, name))
    return towers


def _check(name: str, owner: str, mine, modality: str, theirs) -> None:
    if _form(mine) != _form(theirs):
        raise ComponentError(
            f"heads.{modality}: shares its {name} with heads.{owner}, and is made otherwise; give both the same options"
        )


def _form(part: nn.Module | nn.Parameter) -> dict:
    tensors = dict(part.named_parameters()) if isinstance(part, nn.Module) else {"": part}
    buffers = dict(part.named_buffers()) if isinstance(part, nn.Module) else {}
    return {name: (tuple(t.shape), t.requires_grad) for name, t in {**tensors, **buffers}.items()}
