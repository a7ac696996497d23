"""Which layers of an encoder can be looked at before its last."""


def exits(depth: int) -> list[int]:
    """The numbers (from 1) of at most three layers before the last of `depth`, evenly spaced: of 12, the 3rd, 6th and 9th."""
    return sorted({(depth * quarter + 2) // 4 for quarter in (1, 2, 3)} & set(range(1, depth)))
