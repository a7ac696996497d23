"""How what an objective lacks is mended: by a line of a recipe, or by what a call from Python is given."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

MAKES = {"scores": "slots", "map": "dense"}  # outputs beside z, and the head of the core that makes them
PARTS = {"tokens": "tokens=tokens, mask=mask", "layers": "layers=(x1, x2)", "input": "input=x"}


class OfRecipe:
    """Remedies for a person with a recipe; each is the end of a message."""

    whole, has, makes = "the recipe", "the recipe has", "the recipe makes"

    def data(self, name: str) -> str:
        return f"data {name!r}"

    def modality(self) -> str:
        return "add one under `encoders`"

    def views(self, modality: str, n: int) -> str:
        return f"add views.{modality}: [{{use: copies, n: {n}}}, ...]"

    def second_modality(self) -> str:
        return "add a second modality under `encoders`"

    def role(self, names: Iterable[str]) -> str:
        return ", and no step under `views` makes one"

    def features(self, path: str, missing: dict[str, set[str]]) -> list[str]:
        """One line for all modalities: the encoders of a recipe give all the same."""
        names = sorted({name for lacking in missing.values() for name in lacking})
        return [f"{path}: needs {', '.join(names)} from the encoders, which return h alone"] if names else []

    def heads(self, missing: set[str], modality: str) -> str:
        made = [head for name, head in MAKES.items() if name in missing]
        return f"; add heads.{modality}: {{use: {made[0]}, ...}}" if made else ""

    def record(self, path: str, name: str, modality: str) -> str:
        return (
            f"{path}: needs views that record their {name}, and no step of views.{modality} does; "
            "crops and flips that know where in the sample they look do (medical.crop)"
        )

    def teacher(self) -> str:
        return "needs a teacher, a trained run (or an earlier stage) that sees the same views; add teacher: {run: runs/...}"

    def batch(self, n: int) -> str:
        return f"the smallest batch that makes sense is loader.batch: {n}"

    def column(self, kind: str, name: str) -> str:
        made = f"; a pseudo label is made by refresh: {{{name}: {{use: kmeans, clusters: 100}}}}"
        return made if kind == "group" else ""

    def state(self, n: int) -> str:
        return f"the data have {n}; leave `size` out, and they say it"


class OfCall(OfRecipe):
    """Remedies for a person who calls an objective with `counterpoint.outputs`."""

    whole, has, makes = "the outputs", "the outputs have", "the outputs have"

    def data(self, name: str) -> str:
        return "the batch"

    def modality(self) -> str:
        return "counterpoint.outputs({'image': zi, 'text': zt})"

    def views(self, modality: str, n: int) -> str:
        names = ", ".join(["za", "zb", "zc", "zd"][:n])
        return f"counterpoint.outputs({names if modality == 'input' else f'{{{modality!r}: [{names}]}}'})"

    def second_modality(self) -> str:
        return self.modality()

    def role(self, names: Iterable[str]) -> str:
        return f", and there is none: counterpoint.encoded(z, role={sorted(names)[0]!r})"

    def features(self, path: str, missing: dict[str, set[str]]) -> list[str]:
        return [
            f"{path}: needs {name} of every view it looks at, and {modality!r} gives no {name}; "
            f"counterpoint.encoded(z, {PARTS.get(name, f'{name}={name}')})"
            for modality, lacking in missing.items()
            for name in sorted(lacking)
        ]

    def heads(self, missing: set[str], modality: str) -> str:
        named = sorted(missing - {"map"})
        parts = [f"heads={{{', '.join(f'{name!r}: {name}' for name in named)}}}"] if named else []
        return f"; counterpoint.encoded({', '.join(['z', *parts, *(['map=map'] if 'map' in missing else [])])})"

    def record(self, path: str, name: str, modality: str) -> str:
        return (
            f"{path}: needs views that say their {name}, and one of {modality!r} does not; "
            f"counterpoint.encoded(z, meta={{{name!r}: {name}}})"
        )

    def teacher(self) -> str:
        return (
            "expected `teacher` in the outputs, the views as the teacher sees them; got none. "
            "counterpoint.outputs(za, zb, teacher=[ta, tb])"
        )

    def batch(self, n: int) -> str:
        return f"it takes {n} different samples; DataLoader(..., drop_last=True) leaves a smaller last batch out"

    def column(self, kind: str, name: str) -> str:
        return f"; counterpoint.outputs(..., {kind}s={{{name!r}: tensor of the B samples}})"

    def state(self, n: int) -> str:
        return f"the batch has index {n - 1}; build it with size={n} or more, the samples of the training set"


RECIPE: Any = OfRecipe()
CALL: Any = OfCall()
