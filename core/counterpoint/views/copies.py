"""View generators that know no modality."""

from counterpoint.batch import View
from counterpoint.randomness import Draw
from counterpoint.views.generator import ViewGenerator


class Copies(ViewGenerator):
    """`n` views of the same rows; the steps after it draw for each of them apart."""

    def __init__(self, *, n: int = 2):
        super().__init__()
        if n < 1:
            raise ValueError(f"n is at least 1; got {n}")
        self.n = n

    def layout(self, roles: list[str]) -> list[str]:
        return ["global"] * (self.n * len(roles))

    def forward(self, view: View, draw: Draw) -> list[View]:
        return [view.replace(role="global") for _ in range(self.n)]
