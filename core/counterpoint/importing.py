"""Importing libraries that leave traces: what they change in this process is put back."""

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def untouched() -> Iterator[None]:
    """Python's and numpy's random state and the warning filters are afterwards as they were, whatever is imported inside.

    Importing tsai or MONAI moves the one and adds to the other, so that a run would depend on when it happened.
    """
    import numpy as np

    python, numpy = random.getstate(), np.random.get_state()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
