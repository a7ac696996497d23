"""What an objective is told of a modality: by the data and the encoder in a run, by `facts` outside one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from counterpoint.errors import ComponentError


def fact(who: str, modality: str, known: Mapping[str, Any], name: str) -> Any:
    """One fact; ComponentError names it when it is not among them."""
    if name not in known:
        has = ", ".join(known) or "nothing"
        raise ComponentError(
            f"objective {who!r}: facts of {modality!r} do not say {name}; they say: {has}; "
            f"facts={{{modality!r}: {{{name!r}: ...}}}}"
        )
    return known[name]
