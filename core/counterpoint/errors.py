"""The user's mistakes: each is one message, shown without a traceback."""


class CounterpointError(Exception):
    """A mistake that the user can mend: says who, where, what was expected, what came, and the valid choices.

    Names and values of other people's files stand in it: what a terminal would obey is written as an escape.
    """

    def __init__(self, *words):
        super().__init__(*(printable(word) if isinstance(word, str) else word for word in words))


def printable(text: str) -> str:
    """`text` in which only the ends of lines are no printable signs."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


class RecipeError(CounterpointError):
    """Every mistake found in a recipe, one line each."""

    def __init__(self, problems: list[str]):
        self.problems = problems
        super().__init__("\n".join(problems))


class ComponentError(CounterpointError):
    """A component that is unknown, ambiguous, or cannot be imported or built."""


class DataError(CounterpointError):
    """A file or a sample that cannot be read as what it should be; the message names it."""


class RunError(CounterpointError):
    """A run folder or checkpoint that is missing, damaged, or belongs to another recipe."""


class TrainingError(CounterpointError):
    """Training cannot go on: the loss is not finite, or a rank has died."""


class Stopped(Exception):
    """Training was stopped by a signal after a checkpoint had been written."""

    def __init__(self, number: int, step: int):
        from signal import Signals

        self.signal, self.step, self.run = Signals(number), step, None  # the run folder, once it is known
        super().__init__(f"stopped by {self.signal.name} at step {step}")


SHOWN = 12  # choices that a message lists


def suggest(name: str, choices) -> str:
    """`; did you mean 'x'?` for the nearest of `choices`, or `; valid: a, b, c`, or nothing."""
    from difflib import get_close_matches

    choices = list(dict.fromkeys(sorted(str(choice) for choice in choices)))
    choices = [choice if choice.isprintable() else ascii(choice) for choice in choices]
    if close := get_close_matches(str(name), choices, n=1, cutoff=0.6):
        return f"; did you mean {close[0]!r}?"
    more = f" and {len(choices) - SHOWN} more" if len(choices) > SHOWN else ""
    return f"; valid: {', '.join(choices[:SHOWN])}{more}" if choices else ""
