"""Parameters given from Python, checked as those of a recipe are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from counterpoint.errors import ComponentError
from counterpoint.recipe import values
from counterpoint.recipe.annotations import structured


def checked(component: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters as their annotations want them; ComponentError tells every value that is none.

    Names are left to the component. So is what may hold a component: from Python that is an object, not a mapping.
    """
    known, made, mistakes = component.parameters(), {}, []
    for name, value in given.items():
        if name not in known or structured(known[name].hint):
            made[name] = value
            continue
        value = value.item() if isinstance(value, np.generic) else value
        made[name], wrong = values.checked(known[name].hint, value, name)
        mistakes += [f"{component}: {mistake}" for mistake in wrong]
    if mistakes:
        raise ComponentError("\n".join(mistakes))
    return made
