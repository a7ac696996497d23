"""Evaluators."""

from counterpoint.evaluate.evaluator import Embeddings, Score


class Spread:
    """The standard deviation of h over the test set, and the share of rows with a known label."""

    crosses = False

    def __init__(self, *, label: str):
        self.label = label

    def needs(self) -> set[str]:
        return {self.label}

    def __call__(self, fit: Embeddings | None, test: Embeddings) -> list[Score]:
        found = []
        for modality, h in test.h.items():
            known = (test.column(self.label, modality) >= 0).double().mean().item()
            nothing = float("nan")
            found.append(Score(f"{modality}/spread", h.std(0).mean().item(), nothing, nothing, len(h)))
            found.append(Score(f"{modality}/known", known, nothing, nothing, len(h)))
        return found


class Rows:
    """How many rows of each modality there are: an evaluator that says nothing of itself."""

    def __call__(self, fit: Embeddings | None, test: Embeddings) -> list[Score]:
        nothing = float("nan")
        return [Score(f"{modality}/rows", float(len(h)), nothing, nothing, len(h)) for modality, h in test.h.items()]
